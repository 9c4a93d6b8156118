//! The ledger's server and the shared cluster.

use std::path::PathBuf;

use pgtenant_lab::{Binaries, Cluster, ClusterOptions};
use pgtenant_ledger::Ledger;
use pgtenant_model::{ClusterSpec, FileStore, HostPort, Limits, PgBouncer, Provisioner, Span, StoreSpec, TlsSpec};
use pgtenant_postgres::Verifier;
use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

use super::Result;
use super::folder::Folder;
use super::shared::{Shared, Wanted};

/// Trusted extensions of PostgreSQL's own distribution: a database's owner may make them.
const EXTENSIONS: [&str; 17] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "seg",
    "tablefunc",
    "unaccent",
    "uuid-ossp",
];
const PROVISIONER: &str = "prov_a";
const LEDGER_CONNECTIONS: u32 = 12;

/// Running servers.
#[derive(Debug)]
pub(super) struct Servers {
    cluster: Shared,
    ledger_server: Cluster,
    pub(super) ledger: Ledger,
    pub(super) ca_file: PathBuf,
    /// PgBouncer in front of the cluster.
    pub(super) pooler: Option<PgBouncer>,
}

impl Servers {
    pub(super) async fn start(folder: &Folder, wanted: Wanted, mut progress: impl FnMut(&str) + Send) -> Result<Self> {
        let binaries = Binaries::locate(None)?;
        progress(&format!("PostgreSQL {} from {}", binaries.version(), binaries.dir().display()));
        let options = ClusterOptions {
            standby: false,
            extra_conf: vec![("max_connections".into(), "50".into())],
            ..ClusterOptions::new(folder.root().join("ledger"), binaries.clone())
        };
        let ledger_server = Cluster::open_or_create(options, |text| progress(&format!("ledger: {text}"))).await?;
        let cluster = Shared::start(folder, wanted, binaries, |text| progress(&format!("cluster: {text}"))).await?;
        progress("bringing the ledger up to date");
        let ledger = open_ledger(folder, &ledger_server).await?;
        prepare_cluster(folder, &cluster).await?;
        let ca_file = cluster.ca_file();
        let pooler = cluster.pooler()?.map(|pooler| PgBouncer { host: "localhost".to_owned(), port: pooler.port });
        Ok(Self { cluster, ledger_server, ledger, ca_file, pooler })
    }

    /// The cluster as the control plane is told of it, with these stores beside the files.
    pub(super) fn spec(&self, folder: &Folder, beside: impl IntoIterator<Item = StoreSpec>) -> ClusterSpec {
        let file = FileStore { directory: folder.secrets(), name: "customer/{namespace}/{role}".to_owned() };
        let provisioner = Provisioner::from_file(PROVISIONER, folder.root().join("provisioner.password"));
        let tls = TlsSpec { ca_file: Some(self.ca_file.clone()), ..TlsSpec::default() };
        let stores = [StoreSpec::File(file)].into_iter().chain(beside).collect();
        ClusterSpec {
            // Whoever reads a credential here reads the file itself.
            rotate_overlap: Span::from_secs(5),
            allowed_extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            limits: Limits { databases_per_namespace: 1000, ..Limits::default() },
            pgbouncer: self.pooler.clone(),
            ..ClusterSpec::new(self.cluster.topology(), provisioner, tls, stores)
        }
    }

    pub(super) fn hosts(&self) -> Vec<HostPort> {
        self.cluster.hosts()
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        self.cluster.stop().await?;
        Ok(self.ledger_server.stop().await?)
    }
}

/// The ledger has a login and a database of its own on its server.
async fn open_ledger(folder: &Folder, server: &Cluster) -> Result<Ledger> {
    let (password, _) = folder.secret("ledger.password")?;
    let superuser = server.superuser();
    // What sqlx logs of a statement is its whole text.
    let mut db = superuser.clone().disable_statement_logging().connect().await?;
    let known: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = 'pgtenant')")
        .fetch_one(&mut db)
        .await?;
    if !known {
        // A verifier has no quotes, and the server's log can not hold the password when it has been sent this alone.
        let verifier = Zeroizing::new(scram_sha_256(password.expose_secret().as_bytes()));
        let statement = Zeroizing::new(format!("create role pgtenant login password '{}'", verifier.as_str()));
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.as_str())).execute(&mut db).await?;
    }
    let made: bool = sqlx::query_scalar("select exists (select from pg_database where datname = 'pgtenant')")
        .fetch_one(&mut db)
        .await?;
    if !made {
        sqlx::raw_sql("create database pgtenant owner pgtenant").execute(&mut db).await?;
    }
    let ledger = Ledger::new(login(superuser, "pgtenant", &password, "pgtenant"), LEDGER_CONNECTIONS);
    ledger.migrate().await?;
    Ok(ledger)
}

/// What a superuser does once when a cluster is attached.
async fn prepare_cluster(folder: &Folder, cluster: &Shared) -> Result<()> {
    let (password, _) = folder.secret("provisioner.password")?;
    let logins = vec![(PROVISIONER.to_owned(), Verifier::of(&password))];
    cluster.superuser().await?.attach(logins, cluster.pooler()?).await
}

fn login(server: PgConnectOptions, user: &str, password: &SecretString, database: &str) -> PgConnectOptions {
    server.username(user).password(password.expose_secret()).database(database)
}
