//! A server that many tests share.

use std::path::PathBuf;

use pgtenant_lab::Cluster;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::sync::Mutex;

use crate::unique;

/// Facts about a running server. Tests have a runtime each, so that no connection is kept here.
pub struct Server {
    major: u32,
    version: String,
    port: u16,
    ca_file: PathBuf,
    superuser: Login,
    /// Held while a standby is being added.
    cluster: Mutex<Cluster>,
}

/// A role that can log in.
#[derive(Clone)]
pub struct Login {
    /// The role.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// Login to database `postgres` with `verify-full`.
    pub options: PgConnectOptions,
}

impl Server {
    pub(crate) fn new(mut cluster: Cluster, major: u32) -> Self {
        let options = cluster.superuser();
        let username = options.get_username().to_owned();
        Self {
            major,
            version: cluster.version().to_owned(),
            port: cluster.primary().port(),
            ca_file: cluster.ca_file(),
            superuser: Login { username, password: cluster.superuser_password().clone(), options },
            cluster: Mutex::new(cluster),
        }
    }

    /// Major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// On `localhost`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The root certificate that clients need.
    pub fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// The root certificate, PEM.
    pub fn ca_pem(&self) -> String {
        std::fs::read_to_string(&self.ca_file).unwrap_or_else(|error| panic!("no CA: {error}"))
    }

    /// The superuser, which a control plane must not need.
    pub fn superuser(&self) -> Login {
        self.superuser.clone()
    }

    /// Login of the superuser on a standby of this server, which is made when it is first asked for and then stays. Panics for versions
    /// that came without pg_basebackup.
    pub async fn standby(&self) -> PgConnectOptions {
        let mut cluster = self.cluster.lock().await;
        cluster.start_standby(|_| {}).await.unwrap_or_else(|error| panic!("no standby: {error}"));
        cluster.standby().map(|node| node.superuser()).unwrap_or_else(|| panic!("no standby"))
    }

    /// `localhost:PORT` of all servers.
    pub async fn hosts(&self) -> Vec<String> {
        self.cluster.lock().await.hosts()
    }

    /// A new login with CREATEDB and CREATEROLE and nothing else, as the control plane has it on a managed server.
    pub async fn fresh_provisioner(&self) -> Login {
        self.fresh_login("provisioner", "CREATEDB CREATEROLE").await
    }

    /// A new login. `attributes` are those of CREATE ROLE.
    pub async fn fresh_login(&self, prefix: &str, attributes: &str) -> Login {
        let username = unique(prefix);
        let password = unique("password");
        self.execute(&format!("CREATE ROLE \"{username}\" LOGIN {attributes} PASSWORD '{password}'")).await;
        let options = self.superuser.options.clone().username(&username).password(&password);
        Login { username, password: password.into(), options }
    }

    /// A new, empty database, owned by the superuser that the options log in.
    pub async fn fresh_database(&self, prefix: &str) -> PgConnectOptions {
        let name = unique(prefix);
        // Nobody can be connected to template0, which would make this fail.
        self.execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).await;
        self.superuser.options.clone().database(&name)
    }

    /// Runs statements as the superuser in database `postgres`. What they hold must come from the test itself.
    pub async fn execute(&self, sql: &str) {
        let run = async {
            let mut connection = self.superuser.options.connect().await?;
            connection.execute(AssertSqlSafe(sql)).await?;
            connection.close().await
        };
        run.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

impl Login {
    /// The password, for what takes plain text.
    pub fn plain_password(&self) -> &str {
        self.password.expose_secret()
    }
}
