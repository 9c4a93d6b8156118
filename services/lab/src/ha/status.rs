//! What a lab is at the moment, for people and for programs.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Serialize;

use crate::ha::kind::LabKind;

/// A lab and all that is in it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    /// How the cluster is kept available.
    pub kind: LabKind,
    /// The lab's folder.
    pub dir: PathBuf,
    /// PostgreSQL's version.
    pub version: String,
    /// Every node, running or not.
    pub nodes: Vec<LabNode>,
    /// What runs beside the nodes.
    pub services: Vec<LabService>,
    /// Where clients go.
    pub endpoints: LabEndpoints,
    /// How an administrator logs in.
    pub admin: LabAdmin,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabNode {
    /// `node-1` and so on.
    pub name: String,
    /// Of its PostgreSQL, on `localhost`.
    pub port: u16,
    /// The programs of it that run.
    pub processes: Vec<&'static str>,
    /// Whether its PostgreSQL runs.
    pub running: bool,
    /// What it is.
    pub role: LabRole,
    /// The kind's own tool's words for it.
    pub said: String,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LabRole {
    /// It takes writes.
    Primary,
    /// It follows, or tries to.
    Standby,
    /// It does not answer.
    Down,
    /// On its way from one to another.
    Changing,
}

impl LabRole {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Down => "down",
            Self::Changing => "changing",
        }
    }
}

/// What runs beside the nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabService {
    /// As its folder.
    pub name: String,
    /// `host:port`, or a URL.
    pub address: String,
    /// Whether it runs.
    pub running: bool,
    /// The address that moves, where it has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<Ipv4Addr>,
}

/// Where clients go.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabEndpoints {
    /// `host:port`; several where clients find the primary among them (`target_session_attrs=read-write`).
    pub write: Vec<String>,
    /// `host:port` of what answers reads.
    pub read: Vec<String>,
    /// `host:port` of PgBouncer, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// PgBouncer in front of a lab.
#[derive(Debug, Clone)]
pub struct LabPooler {
    /// On `localhost`.
    pub port: u16,
    /// The login with which it asks for verifiers: `pgtenant cluster bootstrap` makes that and the function.
    pub login: &'static str,
    /// The login's password.
    pub password: SecretString,
}

/// How an administrator logs in.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabAdmin {
    /// The superuser.
    pub user: String,
    /// A file with its password.
    pub password_file: PathBuf,
    /// The certificate authority of the servers.
    pub ca_file: PathBuf,
    /// For libpq, without a password; it finds the primary.
    pub uri: String,
    /// To paste into a shell.
    pub psql: String,
}

/// What the kind's own tool says of a node.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) role: LabRole,
    pub(crate) words: String,
}
