//! The webhooks' certificate: made by pgtenant, kept in a Secret that all replicas read, and made anew in time.
//!
//! Each certificate has an authority of its own. What the API server is told to trust holds the present authority and the one
//! before, so that a replica that still serves the former certificate is trusted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::SECRET;
use crate::context::MANAGER;
use crate::error::{OperatorError, Result};
use crate::object::ask;

/// How long a certificate is good for.
const VALIDITY: Duration = Duration::from_secs(90 * 86400);
/// It is made anew when less than this is left.
const RENEWAL: Duration = Duration::from_secs(30 * 86400);
/// For clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(3600);
/// When the certificate ends, RFC 3339: nobody has to parse it for that.
const NOT_AFTER: &str = "pgtenant.io/not-after";

/// A certificate, its key and what to trust, all PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    /// The server's own.
    pub(crate) certificate: String,
    /// PKCS #8.
    pub(crate) key: SecretString,
    /// The authority, and the one before.
    pub(crate) trusted: String,
}

impl Certificates {
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.trusted == other.trusted
    }

    /// What somebody else keeps in `dir`: `tls.crt` and `tls.key`.
    ///
    /// # Errors
    /// Which file can not be read.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .map_err(|error| OperatorError::Certificate(format!("can not read {}: {error}", path.display())))
        };
        let key = SecretString::from(Zeroizing::new(text("tls.key")?).as_str());
        Ok(Self { certificate: text("tls.crt")?, key, trusted: String::new() })
    }

    /// The Secret's, or new ones where there is none that can be used. With `renew`, also new ones in time before the present
    /// ones end; only one replica is to do that. Where the Secret is lost, the authority of `former` stays trusted.
    pub(crate) async fn of_secret(
        client: &Client,
        namespace: &str,
        names: &[String],
        now: DateTime<Utc>,
        renew: bool,
        former: Option<&Self>,
    ) -> Result<Self> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = ask(api.get_opt(SECRET)).await?;
        let known = found.as_ref().and_then(Self::of);
        let ends = found.as_ref().and_then(ends).filter(|_| known.is_some());
        let limit = if renew { RENEWAL } else { Duration::ZERO };
        if let (Some(known), Some(ends)) = (&known, ends)
            && ends > now + limit
        {
            return Ok(known.clone());
        }
        let made = Self::make(names, now, known.as_ref().or(former))?;
        let secret = made.secret(namespace, now + VALIDITY);
        let written = match &found {
            None => ask(api.create(&PostParams::default(), &secret)).await,
            Some(found) => {
                let mut secret = secret;
                secret.metadata.resource_version.clone_from(&found.metadata.resource_version);
                ask(api.patch(SECRET, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret))).await
            }
        };
        match written {
            Ok(_) => {
                tracing::info!(ends = %(now + VALIDITY), "the webhooks have a new certificate");
                Ok(made)
            }
            // Another replica was faster.
            Err(error) if error.code() == Some(409) => {
                let found = ask(api.get(SECRET)).await?;
                Self::of(&found).ok_or(OperatorError::Stale)
            }
            Err(error) => Err(error),
        }
    }

    fn of(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| Some(std::str::from_utf8(&data.get(key)?.0).ok()?.to_owned());
        let key = SecretString::from(Zeroizing::new(text("tls.key")?).as_str());
        Some(Self { certificate: text("tls.crt")?, key, trusted: text("ca.crt")? })
    }

    fn secret(&self, namespace: &str, ends: DateTime<Utc>) -> Secret {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = [
            ("tls.crt", bytes(&self.certificate)),
            ("tls.key", bytes(self.key.expose_secret())),
            ("ca.crt", bytes(&self.trusted)),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
                annotations: Some([(NOT_AFTER.to_owned(), ends.to_rfc3339())].into()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>()),
            ..Secret::default()
        }
    }

    /// For `names`, with a new authority; that of `before` stays trusted.
    fn make(names: &[String], now: DateTime<Utc>, before: Option<&Self>) -> Result<Self> {
        let fault = |error: rcgen::Error| OperatorError::Certificate(error.to_string());
        let at = |at: DateTime<Utc>| OffsetDateTime::from_unix_timestamp(at.timestamp());
        let (from, until) = match (at(now - BACKDATED), at(now + VALIDITY)) {
            (Ok(from), Ok(until)) => (from, until),
            _ => return Err(OperatorError::Certificate("the clock is outside of all time".to_owned())),
        };
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "pgtenant webhooks");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        (authority.not_before, authority.not_after) = (from, until);
        let authority_key = KeyPair::generate().map_err(fault)?;
        let authority_pem = authority.self_signed(&authority_key).map_err(fault)?.pem();

        let mut params = CertificateParams::new(names.to_vec()).map_err(fault)?;
        params.distinguished_name.push(DnType::CommonName, "pgtenant webhook");
        (params.not_before, params.not_after) = (from, until);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(fault)?;
        // The authority's key is not kept: it signs this one certificate.
        let signed = params.signed_by(&key, &Issuer::new(authority, authority_key)).map_err(fault)?;
        let former = before.map(|known| first_block(&known.trusted)).unwrap_or_default();
        Ok(Self {
            certificate: signed.pem(),
            key: SecretString::from(Zeroizing::new(key.serialize_pem()).as_str()),
            trusted: format!("{authority_pem}{former}"),
        })
    }
}

fn ends(secret: &Secret) -> Option<DateTime<Utc>> {
    let text = secret.metadata.annotations.as_ref()?.get(NOT_AFTER)?;
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// The first certificate of a PEM file.
fn first_block(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.find(END).map_or("", |at| &pem[..at + END.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_authority_stays_trusted_for_one_renewal() {
        let names = ["a.b.svc".to_owned()];
        let first = Certificates::make(&names, Utc::now(), None).unwrap();
        let second = Certificates::make(&names, Utc::now(), Some(&first)).unwrap();
        let third = Certificates::make(&names, Utc::now(), Some(&second)).unwrap();
        assert!(second.trusted.ends_with(&first.trusted));
        assert!(third.trusted.contains(first_block(&second.trusted)));
        assert!(!third.trusted.contains(&first.trusted));
        let secret = third.secret("here", Utc::now());
        assert!(Certificates::of(&secret).unwrap().same(&third));
        assert!(ends(&secret).is_some());
    }
}
