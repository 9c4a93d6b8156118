//! The webhooks' certificate: made by pgtenant, and kept in a Secret that all replicas read.
//!
//! Each certificate has an authority of its own. What the API server is told to trust holds the present authority and the one
//! before, so that a replica that still serves the former certificate is trusted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{RootCertStore, ServerConfig};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::SECRET;
use crate::context::MANAGER;
use crate::error::{OperatorError, Result};
use crate::object::ask;

/// How long a certificate is good for.
const VALIDITY: Duration = Duration::from_secs(90 * 86400);
/// For clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(3600);

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

    /// The Secret that all replicas read.
    pub(crate) async fn find(client: &Client, namespace: &str) -> Result<Option<Secret>> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        ask(api.get_opt(SECRET)).await
    }

    /// Writes the Secret, unless somebody else has since `found` was read.
    pub(crate) async fn put(&self, client: &Client, namespace: &str, found: Option<&Secret>) -> Result<()> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut secret = self.secret(namespace);
        let written = match found {
            None => ask(api.create(&PostParams::default(), &secret)).await,
            Some(found) => {
                secret.metadata.resource_version.clone_from(&found.metadata.resource_version);
                ask(api.patch(SECRET, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret))).await
            }
        };
        match (written, found) {
            (Err(error), _) if error.code() == Some(409) => Err(OperatorError::Stale),
            // Of another type, or immutable: the next try finds none.
            (Err(error), Some(found)) if error.code() == Some(422) => {
                let ObjectMeta { uid, resource_version, .. } = found.metadata.clone();
                let exactly = Preconditions { uid, resource_version };
                let exactly = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
                ask(api.delete(SECRET, &exactly)).await?;
                Err(OperatorError::Stale)
            }
            (other, _) => other.map(drop),
        }
    }

    /// What a server needs.
    ///
    /// # Errors
    /// One of them is no PEM, or the key is another certificate's.
    pub(crate) fn config(&self) -> Result<ServerConfig> {
        let fault = |what: &dyn std::fmt::Display| OperatorError::Certificate(what.to_string());
        let key = PrivateKeyDer::from_pem_slice(self.key.expose_secret().as_bytes())
            .map_err(|error| fault(&format!("tls.key: {error}")))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(blocks(&self.certificate)?, key))
            .map_err(|error| fault(&format!("tls.crt: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Whether it can be served, and whoever trusts [`Self::trusted`] will take it for each of `names`, at that time.
    pub(crate) fn holds(&self, names: &[String], at: DateTime<Utc>) -> bool {
        let verify = || {
            let chain = blocks(&self.certificate)?;
            let (own, others) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
            self.config().map_err(|error| rustls::Error::General(error.to_string()))?;
            let mut roots = RootCertStore::empty();
            for authority in blocks(&self.trusted)? {
                roots.add(authority)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            let at = Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default());
            for name in names {
                let name = ServerName::try_from(name.as_str()).map_err(|e| rustls::Error::General(e.to_string()))?;
                verifier.verify_server_cert(own, others, &name, &[], UnixTime::since_unix_epoch(at))?;
            }
            Ok::<_, rustls::Error>(())
        };
        verify().is_ok()
    }

    /// What is in the Secret; none where a key is missing.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| Some(std::str::from_utf8(&data.get(key)?.0).ok()?.to_owned());
        let key = SecretString::from(Zeroizing::new(text("tls.key")?).as_str());
        Some(Self { certificate: text("tls.crt")?, key, trusted: text("ca.crt")? })
    }

    fn secret(&self, namespace: &str) -> Secret {
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
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>()),
            ..Secret::default()
        }
    }

    /// For `names`, with a new authority; that of `before` stays trusted.
    pub(crate) fn make(names: &[String], now: DateTime<Utc>, before: Option<&Self>) -> Result<Self> {
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

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM file.
fn blocks(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    let fault = |error: pem::Error| rustls::Error::General(error.to_string());
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(fault)
}

/// The first certificate of a PEM file.
fn first_block(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.find(END).map_or("", |at| &pem[..at + END.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [String; 2] {
        ["a.b.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    #[test]
    fn the_former_authority_stays_trusted_for_one_renewal() {
        let first = Certificates::make(&names(), Utc::now(), None).unwrap();
        let second = Certificates::make(&names(), Utc::now(), Some(&first)).unwrap();
        let third = Certificates::make(&names(), Utc::now(), Some(&second)).unwrap();
        assert!(second.trusted.ends_with(&first.trusted));
        assert!(third.trusted.contains(first_block(&second.trusted)));
        assert!(!third.trusted.contains(&first.trusted));
        let former = Certificates { trusted: second.trusted.clone(), ..first };
        assert!(former.holds(&names(), Utc::now()), "a replica that has not read the new one is trusted");
    }

    #[test]
    fn it_holds_for_its_names_and_its_time() {
        let now = Utc::now();
        let made = Certificates::make(&names(), now, None).unwrap();
        assert!(made.config().is_ok());
        assert!(made.holds(&names(), now) && made.holds(&names(), now + VALIDITY - BACKDATED));
        assert!(!made.holds(&names(), now + VALIDITY + BACKDATED));
        assert!(!made.holds(&names(), now - BACKDATED * 2));
        assert!(!made.holds(&["other.b.svc".to_owned()], now));
        let other = Certificates::make(&names(), now, None).unwrap();
        assert!(!Certificates { trusted: other.trusted.clone(), ..made.clone() }.holds(&names(), now));
        assert!(Certificates { key: other.key, ..made.clone() }.config().is_err());
        assert!(Certificates { certificate: "garbage".to_owned(), ..made }.config().is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let made = Certificates::make(&names(), Utc::now(), None).unwrap();
        let mut secret = made.secret("here");
        assert!(Certificates::of(&secret).unwrap().same(&made));
        secret.data.as_mut().unwrap().remove("tls.key");
        assert!(Certificates::of(&secret).is_none());
    }
}
