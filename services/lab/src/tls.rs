//! A certificate authority in a folder.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};
use crate::files;

/// Names of a server on this machine.
pub(crate) const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CA_VALIDITY: Duration = Duration::days(3650);
/// The longest that TLS clients of today accept.
const SERVER_VALIDITY: Duration = Duration::days(397);
/// For clocks that are a little behind.
const BACKDATED: Duration = Duration::hours(1);

/// Signs server certificates; `ca.crt` (0644) and `ca.key` (0600) in its folder.
#[derive(Debug)]
pub struct CertificateAuthority {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The certificate, without the authority's.
    pub certificate: String,
    /// PKCS #8.
    pub key: SecretString,
}

impl CertificateAuthority {
    /// Takes the authority of `dir`, or makes one valid for ten years. A half-written one is made anew.
    pub fn open_or_create(dir: &Path) -> Result<Self> {
        let made = |source| Error::Certificate { dir: dir.to_path_buf(), source };
        let (key_file, certificate_file) = (dir.join("ca.key"), dir.join("ca.crt"));
        let params = authority_params(OffsetDateTime::now_utc());
        let known = (files::read_if_there(&key_file)?, files::read_if_there(&certificate_file)?);
        let (key, certificate) = match known {
            (Some(key), Some(certificate)) => (KeyPair::from_pem(&key).map_err(made)?, certificate),
            _ => {
                let key = KeyPair::generate().map_err(made)?;
                let certificate = params.self_signed(&key).map_err(made)?.pem();
                files::make_dir(dir, 0o711, None)?;
                files::write(&key_file, key.serialize_pem().as_bytes(), 0o600, None)?;
                files::write(&certificate_file, certificate.as_bytes(), 0o644, None)?;
                (key, certificate)
            }
        };
        // Name and key are all that a certificate takes from its issuer; the name is always the same.
        Ok(Self { dir: dir.to_path_buf(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file to give to clients as their root certificate.
    pub fn certificate_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A new server certificate for `names` (DNS names or IP addresses), valid for 397 days.
    pub fn issue(&self, names: &[&str]) -> Result<IssuedCertificate> {
        let made = |source| Error::Certificate { dir: self.dir.clone(), source };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(names.clone()).map_err(made)?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
        params.not_before = now - BACKDATED;
        params.not_after = now + SERVER_VALIDITY;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(made)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?.pem();
        Ok(IssuedCertificate { certificate, key: key.serialize_pem().into() })
    }

    /// For a server on this machine: `localhost`, 127.0.0.1 and ::1.
    pub fn issue_for_loopback(&self) -> Result<IssuedCertificate> {
        self.issue(&LOOPBACK)
    }
}

/// A new key of one's own, PKCS #8 PEM. `dir` is for the error.
pub(crate) fn new_key(dir: &Path) -> Result<String> {
    let key = KeyPair::generate().map_err(|source| Error::Certificate { dir: dir.to_path_buf(), source })?;
    Ok(key.serialize_pem())
}

/// The public part of a key, PEM. `dir` is for the error.
pub(crate) fn public_key(key: &SecretString, dir: &Path) -> Result<String> {
    let key = KeyPair::from_pem(key.expose_secret());
    Ok(key.map_err(|source| Error::Certificate { dir: dir.to_path_buf(), source })?.public_key_pem())
}

fn authority_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "pgtenant local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = now - BACKDATED;
    params.not_after = now + CA_VALIDITY;
    params
}
