//! What the lab asks the servers over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::tls::CertificateAuthority;

/// Each request is answered at once, or the server is not well.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks the API server whether it is ready.
#[derive(Debug)]
pub(super) struct Probe {
    http: Client,
    url: String,
    token: SecretString,
}

impl Probe {
    /// `url` of the API server.
    pub(super) fn new(authority: &CertificateAuthority, url: &str, token: SecretString) -> Result<Self> {
        let unusable = |source| Error::Authority { dir: authority.dir().to_path_buf(), source };
        let tls = trusting(authority.certificate()).map_err(unusable)?;
        let http = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(DEADLINE).build();
        let http = http.map_err(|source| Error::Request { program: "kube-apiserver", source })?;
        Ok(Self { http, url: format!("{url}/readyz"), token })
    }

    /// No answer is no.
    pub(super) async fn is_ready(&self) -> bool {
        let answer = self.http.get(&self.url).bearer_auth(self.token.expose_secret()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

fn trusting(certificate: &str) -> std::result::Result<ClientConfig, rustls::Error> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.map_err(|error| rustls::Error::General(error.to_string()))?)?;
    // The process's own provider is for the program to choose, not for a library.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// Removes all of etcd's history. A change of nothing that Kubernetes knows comes before it, so that every resource version that
/// a client has is of the past.
pub(super) async fn compact(socket: &Path) -> Result<()> {
    let asked = |source| Error::Request { program: "etcd", source };
    let http = Client::builder().unix_socket(socket).no_proxy().timeout(DEADLINE).build().map_err(asked)?;
    let ask = async |path: &str, body: Value| -> reqwest::Result<Value> {
        let answer = http.post(format!("http://etcd/v3/kv/{path}")).json(&body).send().await?;
        answer.error_for_status()?.json().await
    };
    let key = BASE64_STANDARD.encode("/pgtenant/forgotten");
    let put = ask("put", json!({ "key": key })).await.map_err(asked)?;
    let revision = &put["header"]["revision"];
    ask("compaction", json!({ "revision": revision, "physical": true })).await.map_err(asked)?;
    Ok(())
}
