//! What stays the same over the lives of a Kubernetes: its port, its tokens, its keys.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::files;
use crate::ports::free_port;
use crate::tls::{self, CertificateAuthority};

/// Names that the API server's certificate has: those of this machine, and the one that clients in a cluster know.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"];

/// `kubernetes.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Of this folder, for where its data is put aside.
    pub(super) id: String,
    pub(super) port: u16,
}

impl State {
    /// A port that is given wins over the one of before.
    pub(super) fn load_or_create(dir: &Path, port: Option<u16>) -> Result<Self> {
        let path = dir.join("kubernetes.json");
        let damaged = |source| Error::Damaged { path: path.clone(), source };
        let mut state = match files::read_if_there(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(damaged)?,
            None => {
                let id = Alphanumeric.sample_string(&mut rand::rng(), 8).to_ascii_lowercase();
                Self { id, port: free_port() }
            }
        };
        state.port = port.unwrap_or(state.port);
        let text = serde_json::to_string_pretty(&state).map_err(damaged)?;
        files::write(&path, text.as_bytes(), 0o644, None)?;
        Ok(state)
    }
}

/// Each in a file of its own, 0600.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) admin: SecretString,
    controller_manager: SecretString,
    /// Signs the tokens of ServiceAccounts, PEM.
    service_account: SecretString,
}

impl Secrets {
    pub(super) fn load_or_create(dir: &Path) -> Result<Self> {
        let token = || Ok(Alphanumeric.sample_string(&mut rand::rng(), 40));
        Ok(Self {
            admin: keep(&dir.join("admin.token"), token)?,
            controller_manager: keep(&dir.join("controller-manager.token"), token)?,
            service_account: keep(&dir.join("service-account.key"), || tls::new_key(dir))?,
        })
    }

    /// What the servers read, into their folder; with a new certificate, so that none ever comes to its end.
    pub(super) fn hand_over(
        &self,
        home: &Path,
        url: &str,
        authority: &CertificateAuthority,
        owner: Option<&Account>,
    ) -> Result<()> {
        let Self { admin, controller_manager, service_account } = self;
        let issued = authority.issue(&NAMES)?;
        let public = tls::public_key(service_account, authority.dir())?;
        let client = kubeconfig(url, authority, controller_manager.expose_secret());
        let tokens = tokens(admin, controller_manager);
        let write = |name: &str, content: &str| files::write(&home.join(name), content.as_bytes(), 0o600, owner);
        write("tokens.csv", &tokens)?;
        write("controller-manager.kubeconfig", &client)?;
        write("service-account.key", service_account.expose_secret())?;
        write("service-account.pub", &public)?;
        write("server.key", issued.key.expose_secret())?;
        write("server.crt", &issued.certificate)
    }
}

/// A client's configuration, with the authority in it. It is JSON, which is YAML too.
pub(super) fn kubeconfig(url: &str, authority: &CertificateAuthority, token: &str) -> String {
    let name = "pgtenant";
    let ca = BASE64_STANDARD.encode(authority.certificate());
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": url, "certificate-authority-data": ca } }],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    });
    format!("{config:#}\n")
}

/// The controllers remove whatever is in a namespace, so they may all.
fn tokens(admin: &SecretString, controller_manager: &SecretString) -> String {
    let line = |token: &SecretString, user: &str| format!("{},{user},{user},system:masters\n", token.expose_secret());
    line(admin, "admin") + &line(controller_manager, "system:kube-controller-manager")
}

fn keep(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<SecretString> {
    if let Some(known) = files::read_if_there(path)? {
        return Ok(known.into());
    }
    let made = make()?;
    files::write(path, made.as_bytes(), 0o600, None)?;
    Ok(made.into())
}
