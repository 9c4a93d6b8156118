//! The kinds of clusters, and what each needs on this machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::binaries::Binaries;
use crate::error::{Error, Result};

/// How a cluster is kept available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabKind {
    /// A primary and standbys that stream from it; a person promotes.
    Streaming,
    /// Patroni on each node, and one etcd.
    Patroni,
    /// A monitor, and a keeper on each node.
    PgAutoFailover,
    /// repmgrd on each node, and pgpool-II in front.
    Repmgr,
    /// repmgrd on each node, HAProxy in front, and a health service on each node that tells it who is the primary.
    Haproxy,
}

impl LabKind {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Streaming, Self::Patroni, Self::PgAutoFailover, Self::Repmgr, Self::Haproxy];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Patroni => "patroni",
            Self::PgAutoFailover => "pg-auto-failover",
            Self::Repmgr => "repmgr",
            Self::Haproxy => "haproxy",
        }
    }

    /// How many nodes there are if nobody says.
    pub fn usual_nodes(self) -> u16 {
        match self {
            Self::Streaming | Self::PgAutoFailover => 2,
            Self::Patroni | Self::Repmgr | Self::Haproxy => 3,
        }
    }

    /// Logins by which servers reach each other; all have one password.
    pub(crate) fn logins(self) -> &'static [&'static str] {
        match self {
            Self::Streaming | Self::Patroni => &["replicator"],
            Self::Repmgr | Self::Haproxy => &["repmgr"],
            Self::PgAutoFailover => &["autoctl_node", "pgautofailover_monitor", "pgautofailover_replicator"],
        }
    }

    /// Those of them that stream.
    pub(crate) fn replication_users(self) -> &'static [&'static str] {
        match self {
            Self::Streaming | Self::Patroni => &["replicator"],
            Self::Repmgr | Self::Haproxy => &["repmgr"],
            Self::PgAutoFailover => &["pgautofailover_replicator"],
        }
    }

    /// A file of each package that has to be there beside the server's own.
    fn needs(self, binaries: &Binaries) -> Vec<(PathBuf, String)> {
        let of = |path: &str, package: &str| (PathBuf::from(path), package.to_owned());
        let client = (binaries.dir().join("pg_basebackup"), format!("postgresql-client-{}", binaries.major()));
        let repmgr = || (binaries.dir().join("repmgrd"), format!("postgresql-{}-repmgr", binaries.major()));
        match self {
            Self::Streaming => vec![client],
            Self::Patroni => vec![
                client,
                of("/usr/bin/patroni", "patroni"),
                // Patroni's package does not ask for it, and needs it for TLS to etcd.
                of("/usr/lib/python3/dist-packages/idna/__init__.py", "python3-idna"),
                of("/usr/bin/etcd", "etcd-server"),
            ],
            Self::Repmgr => vec![client, repmgr(), of("/usr/sbin/pgpool", "pgpool2")],
            Self::Haproxy => vec![client, repmgr(), of("/usr/sbin/haproxy", "haproxy")],
            Self::PgAutoFailover => {
                let library = library(binaries, "pgautofailover.so");
                let package = format!("postgresql-{}-auto-failover", binaries.major());
                vec![client, of("/usr/bin/pg_autoctl", "pg-auto-failover-cli"), (library, package)]
            }
        }
    }

    /// Refuses where packages are missing, naming all of them at once.
    pub(crate) fn require_packages(self, binaries: &Binaries, pgbouncer: bool) -> Result<()> {
        let mut missing = self.needs(binaries);
        if pgbouncer && self != Self::Haproxy {
            missing.push((PathBuf::from("/usr/sbin/haproxy"), "haproxy".to_owned()));
        }
        missing.retain(|(file, _)| !file.exists());
        if missing.is_empty() {
            return Ok(());
        }
        let what: Vec<String> = missing.iter().map(|(file, _)| file.display().to_string()).collect();
        let mut packages: Vec<String> = missing.into_iter().map(|(_, package)| package).collect();
        packages.dedup();
        Err(Error::MissingPackages { kind: self.name(), what: what.join(", "), packages: packages.join(" ") })
    }
}

/// Debian's servers have their modules beside the folder of their programs.
fn library(binaries: &Binaries, name: &str) -> PathBuf {
    binaries.dir().with_file_name("lib").join(name)
}

impl fmt::Display for LabKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LabKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("there are {}", known.join(", "))
        })
    }
}
