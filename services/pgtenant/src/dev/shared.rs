//! The shared cluster: a primary and a standby, or a lab of the kind that is asked for.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use pgtenant_lab::{Binaries, Cluster, ClusterOptions, Lab, LabEndpoints, LabKind, LabOptions, LabPooler, Lifetime};
use pgtenant_model::{
    HaproxyTopology, HostPort, PatroniTopology, PgAutoFailoverTopology, RepmgrTopology, StreamingTopology, Topology,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::Result;
use super::folder::{Folder, write_private};
use crate::attach::Superuser;

/// What is asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) kind: Option<LabKind>,
    pub(super) pgbouncer: bool,
}

/// A running cluster.
#[derive(Debug)]
pub(super) enum Shared {
    Pair(Box<Cluster>),
    Lab { lab: Box<Lab>, topology: Topology },
}

impl Shared {
    /// Goes on with what is in the folder, where nobody asks for another kind.
    pub(super) async fn start(
        folder: &Folder,
        Wanted { kind, pgbouncer }: Wanted,
        binaries: Binaries,
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<Self> {
        let (pair, lab) = (folder.root().join("cluster"), folder.root().join("lab"));
        let Some(kind) = kind.map_or_else(|| Lab::kind_of(&lab), |kind| Ok(Some(kind)))? else {
            if pgbouncer {
                return Err("PgBouncer is started in front of a lab, and this is a primary with a standby\n\
                            hint: choose another folder with --dir, and a kind with --topology"
                    .into());
            }
            let options = ClusterOptions {
                extra_conf: vec![("max_connections".into(), "300".into())],
                ..ClusterOptions::new(pair, binaries)
            };
            return Ok(Self::Pair(Box::new(Cluster::open_or_create(options, progress).await?)));
        };
        if pair.exists() {
            return Err(format!(
                "{} has a primary and a standby already, with the databases of this folder\nhint: choose another folder with --dir",
                folder.root().display()
            )
            .into());
        }
        let options = LabOptions { lifetime: Lifetime::Bound, ..LabOptions::new(lab, kind, binaries) };
        let mut lab = Lab::create(LabOptions { health_program: std::env::current_exe().ok(), pgbouncer, ..options })?;
        lab.up(&mut progress).await?;
        let topology = topology(&lab, folder)?;
        Ok(Self::Lab { lab: Box::new(lab), topology })
    }

    /// As the control plane is told of it.
    pub(super) fn topology(&self) -> Topology {
        match self {
            Self::Pair(_) => Topology::Streaming(StreamingTopology { hosts: self.hosts() }),
            Self::Lab { topology, .. } => topology.clone(),
        }
    }

    /// Where a person connects.
    pub(super) fn hosts(&self) -> Vec<HostPort> {
        match self {
            Self::Pair(cluster) => addresses(&cluster.hosts()),
            Self::Lab { lab, .. } => addresses(&lab.endpoints().write),
        }
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        match self {
            Self::Pair(cluster) => cluster.ca_file(),
            Self::Lab { lab, .. } => lab.ca_file(),
        }
    }

    /// The superuser on the primary.
    pub(super) async fn superuser(&self) -> Result<Superuser> {
        match self {
            Self::Pair(cluster) => {
                let password = cluster.superuser_password().clone();
                Ok(Superuser { login: cluster.superuser(), password, ca_file: self.ca_file() })
            }
            Self::Lab { lab, .. } => Superuser::of(lab).await,
        }
    }

    /// PgBouncer in front of it.
    pub(super) fn pooler(&self) -> Result<Option<LabPooler>> {
        match self {
            Self::Pair(_) => Ok(None),
            Self::Lab { lab, .. } => Ok(lab.pooler()?),
        }
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        match self {
            Self::Pair(cluster) => Ok(cluster.stop().await?),
            Self::Lab { lab, .. } => Ok(lab.down(|_| {}).await?),
        }
    }
}

fn addresses(hosts: &[String]) -> Vec<HostPort> {
    hosts.iter().filter_map(|host| HostPort::from_str(host).ok()).collect()
}

fn topology(lab: &Lab, folder: &Folder) -> Result<Topology> {
    let kept = |name: &str, password: &SecretString| -> Result<PathBuf> {
        let file: &Path = &folder.root().join(name);
        write_private(file, password.expose_secret().as_bytes())?;
        Ok(file.to_owned())
    };
    let nodes: Vec<String> = lab.nodes().iter().map(|(_, port)| format!("localhost:{port}")).collect();
    let hosts = addresses(&nodes);
    Ok(match lab.kind() {
        LabKind::Streaming => Topology::Streaming(StreamingTopology { hosts }),
        LabKind::Repmgr => {
            Topology::Repmgr(RepmgrTopology { hosts, pgpool: addresses(&lab.endpoints().write).into_iter().next() })
        }
        LabKind::Haproxy => {
            let LabEndpoints { write, read, pool: _ } = lab.endpoints();
            let write = addresses(&write).into_iter().next().ok_or("the lab has no HAProxy")?;
            let read = addresses(&read).into_iter().next();
            // All nodes are on one host, and each health service has a port of its own.
            Topology::Haproxy(HaproxyTopology { write, read, hosts, health_port: None })
        }
        LabKind::Patroni => Topology::Patroni(PatroniTopology {
            urls: lab.patroni_urls(),
            username: Some(lab.login(0).get_username().to_owned()),
            password_file: Some(kept("patroni.password", lab.password())?),
            secret_ref: None,
        }),
        LabKind::PgAutoFailover => Topology::PgAutoFailover(PgAutoFailoverTopology {
            monitor: lab.monitor_uri().ok_or("the lab has no monitor")?,
            password_file: Some(kept("monitor.password", lab.service_password())?),
            secret_ref: None,
            formation: "default".to_owned(),
        }),
    })
}
