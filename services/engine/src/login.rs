//! How the control plane itself logs in to a cluster: read from a file, a Secret or AWS, with the authorities to trust.

use std::path::Path;

use pgtenant_model::{Provisioner, TlsSpec};
use pgtenant_topology::{NoPrimary, ToolLogin};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::cluster::Cluster;
use crate::failure::Cause;

/// How the control plane itself logs in, as it was last read.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: SecretString,
    /// PEM.
    pub(crate) ca: Option<String>,
    /// For the tool beside the servers, where a Secret has it.
    pub(crate) tool: Option<ToolLogin>,
}

impl Login {
    pub(crate) fn same(&self, other: &Self) -> bool {
        let Self { username, password, ca, tool } = self;
        let of_tool = |tool: &Option<ToolLogin>| {
            tool.as_ref().map(|tool| (tool.username.clone(), Zeroizing::new(tool.password.expose_secret().to_owned())))
        };
        *username == other.username
            && password.expose_secret() == other.password.expose_secret()
            && *ca == other.ca
            && of_tool(tool) == of_tool(&other.tool)
    }
}

impl Cluster {
    /// Reads all of it. Where the login is to be in AWS and is not, and the cluster is Aurora, the login is made.
    pub(crate) async fn login(&self) -> Result<Login, Cause> {
        let Provisioner { username, password_file, secret_ref, aws_secret, rotate_every: _, database: _ } =
            &self.spec.provisioner;
        let ca = self.authorities().await?;
        let (given, password) = match (password_file, secret_ref, aws_secret) {
            (Some(path), _, _) => (None, read_password(path)?),
            (None, Some(secret), _) => {
                let mut found = self.access.read(secret).await?;
                let missing = |key: &str| Cause::Settings(format!("{secret} has no key {key:?}"));
                let password = found.remove("password").ok_or_else(|| missing("password"))?;
                let given = found.remove("username").map(|text| text.expose_secret().to_owned());
                if username.is_none() && given.is_none() {
                    return Err(missing("username"));
                }
                (given, password)
            }
            (None, None, Some(secret)) => {
                let login = self.aws_login(secret, ca.as_deref()).await?;
                (Some(login.username), login.password)
            }
            (None, None, None) => return Err(Cause::Settings("provisioner has no password".to_owned())),
        };
        let username = username.clone().or(given);
        let username = username.ok_or_else(|| Cause::Settings("provisioner has no username".to_owned()))?;
        Ok(Login { username, password, ca, tool: self.tool_login().await? })
    }

    async fn tool_login(&self) -> Result<Option<ToolLogin>, Cause> {
        let Some(secret) = self.spec.topology.tool_secret() else { return Ok(None) };
        let mut found = self.access.read(secret).await?;
        let password = found.remove("password");
        let password = password.ok_or_else(|| Cause::Settings(format!("{secret} has no key \"password\"")))?;
        let username = found.remove("username").map(|text| text.expose_secret().to_owned());
        Ok(Some(ToolLogin { username, password }))
    }

    /// PEM; none: the machine's own.
    pub(crate) async fn authorities(&self) -> Result<Option<String>, Cause> {
        let TlsSpec { sslmode: _, ca_file, ca_secret_ref } = &self.spec.tls;
        Ok(match (ca_file, ca_secret_ref, self.aurora()) {
            (Some(path), _, _) => Some(read_text(path)?),
            (None, Some(secret), _) => {
                let found = self.access.read(secret).await?.remove("ca.crt");
                let missing = || Cause::Settings(format!("{secret} has no key \"ca.crt\""));
                Some(found.ok_or_else(missing)?.expose_secret().to_owned())
            }
            (None, None, Some(work)) => {
                let pem = work.authorities.pem().await;
                Some(pem.map_err(|error| NoPrimary::because(error.to_string()))?)
            }
            (None, None, None) => None,
        })
    }
}

fn read_text(path: &Path) -> Result<String, Cause> {
    std::fs::read_to_string(path).map_err(|error| Cause::Settings(format!("can not read {}: {error}", path.display())))
}

/// The first line of the file.
fn read_password(path: &Path) -> Result<SecretString, Cause> {
    let text = Zeroizing::new(read_text(path)?);
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretString::from(line)),
        _ => Err(Cause::Settings(format!("{} holds no password", path.display()))),
    }
}
