//! TLS to a cluster: libpq's `require`, `verify-ca` and `verify-full`.
//!
//! A cluster's CA is the only authority that is trusted: a certificate for the same name from a public one is not the
//! cluster's. Without one the machine's own store decides. Either is parsed once, not for each connection: the machine's
//! store takes 4 ms.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use pgtenant_model::SslMode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode as Encryption;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{PostgresError, chain};

/// TLS to a host; on a socket there is none, and nobody's name to check.
#[derive(Clone)]
pub(crate) struct Connector(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // The driver asks for it, and does not use it.
        let host = if host.is_empty() { "localhost" } else { host };
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut self.0, host)
    }
}

/// Whether a connection to `host` is encrypted: always, unless it is the folder of a socket of this machine.
pub(crate) fn encryption(host: &str) -> Encryption {
    if host.starts_with('/') { Encryption::Disable } else { Encryption::Require }
}

/// Reads the authorities and sets TLS up.
pub(crate) fn connector(sslmode: SslMode, ca: Option<&str>) -> Result<Connector, PostgresError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup("TLS", &error))?;
    let config = match sslmode {
        SslMode::VerifyFull => builder.with_root_certificates(roots(ca)?).with_no_client_auth(),
        SslMode::VerifyCa => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| setup("TLS", &error))?;
            let verifier = Lenient { provider, authority: Some(verifier) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        SslMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { provider, authority: None }))
            .with_no_client_auth(),
    };
    Ok(Connector(MakeRustlsConnect::new(config)))
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, PostgresError> {
    let mut store = RootCertStore::empty();
    let Some(pem) = ca else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(PostgresError::Setup {
                what: "TLS".into(),
                reason:
                    "this machine trusts no certificate authority; name the cluster's in tls.caFile or tls.caSecretRef"
                        .into(),
            });
        }
        return Ok(store);
    };
    let what = "the cluster's CA";
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| setup(what, &error))?;
        store.add(certificate).map_err(|error| setup(what, &error))?;
    }
    if store.is_empty() {
        return Err(PostgresError::Setup { what: what.into(), reason: "it holds no PEM certificate".into() });
    }
    Ok(store)
}

/// What this machine trusts, for a program that does not look there by itself. PEM.
pub(crate) fn machine_authorities() -> String {
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        let base64 = STANDARD.encode(&certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn setup(what: &str, error: &dyn std::error::Error) -> PostgresError {
    PostgresError::Setup { what: what.to_owned(), reason: chain(error) }
}

/// Checks the issuer and not the name (`verify-ca`), or neither (`require`); the server must still hold the key.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        let result = authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match result {
            // The name is what is checked last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
