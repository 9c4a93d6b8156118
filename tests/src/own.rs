//! A cluster of a test's own, to stop, kill, promote or listen to.

use pgtenant_lab::{Binaries, ClusterOptions};
use pgtenant_testkit::{Cluster, free_port};

use crate::{Folder, Place};

/// A running cluster and its folder. Both go when this is dropped.
#[derive(Debug)]
pub struct Own {
    /// Dropped before its folder.
    pub cluster: Cluster,
    folder: Folder,
}

impl Own {
    /// With or without a standby; `conf` are further settings of both servers.
    pub async fn start(standby: bool, conf: &[(&str, &str)]) -> Self {
        let binaries = Binaries::locate(None).unwrap_or_else(|error| panic!("{error}; run `.ci/postgres`"));
        Self::of(binaries, standby, conf).await
    }

    /// A single server of this major version.
    pub async fn of_major(major: u32, conf: &[(&str, &str)]) -> Self {
        let binaries = Binaries::of_major(major).unwrap_or_else(|error| panic!("{error}; run `.ci/postgres-versions`"));
        Self::of(binaries, false, conf).await
    }

    async fn of(binaries: Binaries, standby: bool, conf: &[(&str, &str)]) -> Self {
        let folder = Folder::new("own");
        let extra_conf = conf.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = ClusterOptions {
            standby,
            fsync: false,
            extra_conf,
            ..ClusterOptions::new(folder.join("cluster"), binaries)
        };
        for _ in 0..5 {
            let ports = [Some(free_port()), Some(free_port())];
            match Cluster::open_or_create(ClusterOptions { ports, ..options.clone() }, |_| {}).await {
                Ok(cluster) => return Self { cluster, folder },
                // Other tests look for free ports at the same time.
                Err(pgtenant_lab::Error::PortInUse { .. }) => {}
                Err(error) => panic!("no PostgreSQL: {error} {:?}", std::error::Error::source(&error)),
            }
        }
        panic!("no free port for PostgreSQL in five tries");
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place::of(&self.cluster)
    }

    /// Everything that its servers have logged.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in ["node-1", "node-2"] {
            let folder = self.folder.join(format!("cluster/nodes/{node}/log"));
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
        text
    }
}
