//! What stays of a lab: its file `lab.json`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::ha::kind::LabKind;

/// What stays of a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) id: String,
    pub(crate) kind: LabKind,
    pub(crate) fsync: bool,
    /// Numbers of the nodes.
    pub(crate) nodes: Vec<u16>,
    pub(crate) ports: BTreeMap<String, u16>,
    /// The program that serves `health`.
    pub(crate) health_program: Option<PathBuf>,
    /// The login that pgpool has: it changes by turns with another.
    #[serde(default)]
    pub(crate) pgpool_login: Option<String>,
    /// Whether there is PgBouncer in front.
    #[serde(default)]
    pub(crate) pgbouncer: bool,
    /// Where there is Keepalived: the network of the address that moves.
    #[serde(default)]
    pub(crate) network: Option<Ipv4Addr>,
}

impl State {
    pub(crate) fn new(kind: LabKind, fsync: bool, health_program: Option<PathBuf>) -> Self {
        let id = Alphanumeric.sample_string(&mut rand::rng(), 8).to_ascii_lowercase();
        let (nodes, ports) = (Vec::new(), BTreeMap::new());
        Self { id, kind, fsync, nodes, ports, health_program, pgpool_login: None, pgbouncer: false, network: None }
    }

    /// `None`: there is no lab.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("lab.json");
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| Error::Damaged { path, source })
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("lab.json");
        let text =
            serde_json::to_string_pretty(self).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        files::write(&path, text.as_bytes(), 0o644, None)
    }
}
