//! Who wrote a manifest: a code over it that only a holder of a private key can make, and check.
//!
//! HMAC-SHA-256 (RFC 2104) with a key that HKDF (RFC 5869) derives from the private key's text; the derivation names its purpose,
//! so that the code says nothing about what age does with the same key. What is covered is the manifest as it is written, without
//! the seal: since every field is known, reading and writing it again gives the same bytes.

use age::x25519::Identity;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::ExposeSecret as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keys::Identities;
use crate::{Manifest, Seal, SnapshotError};

const PURPOSE: &[u8] = b"pgtenant dump manifest v1";

/// Seals a manifest.
pub(crate) fn seal(mut manifest: Manifest, identity: &Identity) -> Result<Manifest, SnapshotError> {
    let mac = code(&manifest, identity)?.finalize().into_bytes();
    manifest.seal = Some(Seal { by: identity.to_public().to_string(), mac: hex::encode(mac) });
    Ok(manifest)
}

/// Whether a holder of one of `identities` wrote the manifest.
///
/// # Errors
/// One of them is named, and did not.
pub(crate) fn check(manifest: &Manifest, identities: &Identities, location: &str) -> Result<bool, SnapshotError> {
    let Some(Seal { by, mac }) = &manifest.seal else { return Ok(false) };
    let Some(identity) = identities.of(std::slice::from_ref(by)) else { return Ok(false) };
    let forged = || SnapshotError::corrupt(location, "its seal is not of what is in it");
    let mac = hex::decode(mac).map_err(|_| forged())?;
    code(manifest, identity)?.verify_slice(&mac).map_err(|_| forged())?;
    Ok(true)
}

fn code(manifest: &Manifest, identity: &Identity) -> Result<Hmac<Sha256>, SnapshotError> {
    let unusable = |what: String| SnapshotError::corrupt(manifest.id.to_string(), what);
    let mut key = Zeroizing::new([0; 32]);
    let secret = identity.to_string();
    Hkdf::<Sha256>::new(None, secret.expose_secret().as_bytes())
        .expand(PURPOSE, &mut key[..])
        .map_err(|error| unusable(error.to_string()))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key[..]).map_err(|error| unusable(error.to_string()))?;
    let bare = Manifest { seal: None, ..manifest.clone() };
    mac.update(&serde_json::to_vec(&bare).map_err(|error| unusable(error.to_string()))?);
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_one_manifest_and_one_key() {
        let manifest: Manifest = serde_json::from_str(
            r#"{"format":1,"id":"20261122T020000Z-1a2b3c4d","cluster":"default","namespace":"shop","name":"orders",
                "database":"shop-orders","at":"2026-11-22T02:00:00Z","serverVersion":150018,"pgDumpMajor":18,
                "recipients":[],"parts":[],"tables":[],"plainBytes":0,"storedBytes":0}"#,
        )
        .unwrap();
        let (ours, theirs) = (Identity::generate(), Identity::generate());
        let held = |identity: &Identity| Identities::from(vec![identity.clone()]);
        let sealed = seal(manifest.clone(), &ours).unwrap();
        assert!(check(&sealed, &held(&ours), "m").unwrap());
        assert!(!check(&sealed, &held(&theirs), "m").unwrap(), "nothing is known of it");
        assert!(!check(&manifest, &held(&ours), "m").unwrap());

        // As it is read back.
        let text = serde_json::to_string_pretty(&sealed).unwrap();
        assert!(check(&serde_json::from_str(&text).unwrap(), &held(&ours), "m").unwrap());

        let other = Manifest { stored_bytes: 1, ..sealed.clone() };
        assert!(check(&other, &held(&ours), "m").is_err());
        let mut forged = seal(manifest, &theirs).unwrap();
        forged.seal.as_mut().unwrap().by = ours.to_public().to_string();
        assert!(check(&forged, &held(&ours), "m").is_err());
    }
}
