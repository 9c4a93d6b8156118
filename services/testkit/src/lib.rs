//! Real servers for tests: PostgreSQL with TLS and SCRAM, of any supported version, a Kubernetes API server, WebDAV, and moto in the place
//! of Amazon; and peers that are played: Secrets Manager, RDS, Slack. Servers and files go when the test process ends, however it ends.
//!
//! ```no_run
//! # async fn example() -> sqlx::Result<()> {
//! use sqlx::ConnectOptions;
//! let login = pgtenant_testkit::cluster().await.fresh_provisioner().await;
//! let connection = login.options.connect().await?;
//! # Ok(()) }
//! ```
//!
//! What goes wrong here panics: a test can do nothing about it.
#![expect(clippy::panic, reason = "a test that gets no server has failed")]

mod rds;
mod secrets_manager;
mod server;
mod slack;
mod tempdir;
mod webdav;
mod xml;

use pgtenant_lab::{Binaries, ClusterOptions, KubernetesBinaries, KubernetesOptions, MotoProgram};
use rand::RngExt;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::OnceCell;

pub use pgtenant_lab::{Cluster, Kubernetes, Moto, SUPPORTED_VERSIONS, free_port};
pub use rds::{FakeRds, RdsCall, RdsFields};
pub use secrets_manager::{Call, FakeSecret, FakeSecretsManager, FakeVersion, Trouble};
pub use server::{Login, Server};
pub use slack::{FakeSlack, SlackCall, SlackDisturbance, SlackRequest, SlackText, SlackView};
pub use webdav::WebDavServer;

/// By major version, from 14.
static SERVERS: [OnceCell<Server>; 5] = [const { OnceCell::const_new() }; 5];

static KUBERNETES: OnceCell<Kubernetes> = OnceCell::const_new();

static MOTO: OnceCell<Moto> = OnceCell::const_new();

/// The server that the tests of this process share, of the version that is installed. It has tenants of other tests: take unique
/// names, and do not stop it.
pub async fn cluster() -> &'static Server {
    shared(binaries()).await
}

/// As [`cluster`], of a major version from 14 to 18: the distribution's, or else the one that `.ci/postgres-versions` fetched.
pub async fn cluster_of(major: u32) -> &'static Server {
    match Binaries::of_major(major) {
        Ok(binaries) => shared(binaries).await,
        Err(error) => panic!("{error}; run `.ci/postgres-versions {major}`"),
    }
}

/// A primary and a standby of one's own, to kill and promote. They end when this is dropped.
pub async fn pair() -> Cluster {
    let options = ClusterOptions { fsync: false, ..ClusterOptions::new(tempdir::until_exit(), binaries()) };
    started(options).await
}

/// The Kubernetes that the tests of this process share. It has objects of other tests: take a namespace with a unique name. It
/// takes seconds of both cores to start and 400 MB.
pub async fn kubernetes() -> &'static Kubernetes {
    KUBERNETES.get_or_init(own_kubernetes).await
}

/// A Kubernetes of one's own, to kill, to pause, and to make forget. It ends when this is dropped.
pub async fn own_kubernetes() -> Kubernetes {
    start_kubernetes(false).await
}

/// One of one's own that writes down who asked for what.
pub async fn audited_kubernetes() -> Kubernetes {
    start_kubernetes(true).await
}

/// The moto that the tests of this process share. It has what other tests made: take a region or names of your own.
pub async fn moto() -> &'static Moto {
    MOTO.get_or_init(own_moto).await
}

/// A moto of one's own. It ends when this is dropped.
pub async fn own_moto() -> Moto {
    let started = async { Moto::start(&tempdir::until_exit(), MotoProgram::locate_or_install(|_| {}).await?).await };
    started.await.unwrap_or_else(|error| panic!("no moto for tests: {error}"))
}

async fn start_kubernetes(audit: bool) -> Kubernetes {
    let binaries = KubernetesBinaries::locate().unwrap_or_else(|error| panic!("{error}"));
    let options = KubernetesOptions { fsync: false, audit, ..KubernetesOptions::new(tempdir::until_exit(), binaries) };
    for port in [None, Some(free_port()), Some(free_port())] {
        match Kubernetes::open_or_create(KubernetesOptions { port, ..options.clone() }, |_| {}).await {
            Ok(kubernetes) => return kubernetes,
            // As for clusters, below.
            Err(pgtenant_lab::Error::PortInUse { .. }) => {}
            Err(error) => panic!("no Kubernetes for tests: {error} {:?}", std::error::Error::source(&error)),
        }
    }
    panic!("no free port for Kubernetes was found, in three tries");
}

/// A new, empty database on [`cluster`], owned by the superuser that the options log in.
pub async fn fresh_database(prefix: &str) -> PgConnectOptions {
    cluster().await.fresh_database(prefix).await
}

/// `{prefix}-{8 letters and digits}`: no other test has it. Good as a name in Kubernetes, and quoted as one in SQL.
pub fn unique(prefix: &str) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let letters = std::iter::repeat_with(|| char::from(LETTERS[random.random_range(0..LETTERS.len())]));
    format!("{prefix}-{}", letters.take(8).collect::<String>())
}

fn binaries() -> Binaries {
    Binaries::locate(None).unwrap_or_else(|error| panic!("{error}; run `.ci/postgres`"))
}

async fn shared(binaries: Binaries) -> &'static Server {
    let slot = (binaries.major() - SUPPORTED_VERSIONS.start()) as usize;
    SERVERS[slot]
        .get_or_init(|| async {
            let (standby, major) = (false, binaries.major());
            let options =
                ClusterOptions { fsync: false, standby, ..ClusterOptions::new(tempdir::until_exit(), binaries) };
            Server::new(started(options).await, major)
        })
        .await
}

/// Other test processes look for free ports at the same time: tries again with another.
async fn started(options: ClusterOptions) -> Cluster {
    for ports in [options.ports, [Some(free_port()), Some(free_port())], [Some(free_port()), Some(free_port())]] {
        match Cluster::open_or_create(ClusterOptions { ports, ..options.clone() }, |_| {}).await {
            Ok(cluster) => return cluster,
            Err(pgtenant_lab::Error::PortInUse { .. }) => {}
            Err(error) => {
                panic!("no PostgreSQL for tests: {error} {:?}", std::error::Error::source(&error))
            }
        }
    }
    panic!("no free port for PostgreSQL was found, in three tries");
}
