//! What a superuser does with a cluster that this program itself has started.

use std::path::PathBuf;

use pgtenant_lab::{Lab, LabPooler};
use pgtenant_model::SslMode;
use pgtenant_postgres::{Bootstrap, GROUP, Server, ServerOptions, Timeouts, Verifier, bootstrap};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A superuser on the primary.
#[derive(Debug)]
pub(crate) struct Superuser {
    pub(crate) login: PgConnectOptions,
    pub(crate) password: SecretString,
    pub(crate) ca_file: PathBuf,
}

impl Superuser {
    /// That of a lab.
    pub(crate) async fn of(lab: &Lab) -> Result<Self> {
        let primary = lab.primary().await;
        let found = lab.nodes().into_iter().find(|(name, _)| Some(name) == primary.as_ref());
        let (_, port) = found.ok_or("the lab has no primary\nhint: `pgtenant lab status` shows why")?;
        Ok(Self { login: lab.login(port), password: lab.password().clone(), ca_file: lab.ca_file() })
    }

    /// Makes the group, the provisioner's logins, and what PgBouncer asks where there is one. It may be done again.
    pub(crate) async fn attach(self, logins: Vec<(String, Verifier)>, pooler: Option<LabPooler>) -> Result<()> {
        let server = Server::new(ServerOptions {
            host: self.login.get_host().to_owned(),
            port: self.login.get_port(),
            sslmode: SslMode::VerifyFull,
            ca: Some(std::fs::read_to_string(&self.ca_file)?),
            username: self.login.get_username().to_owned(),
            password: self.password,
            maintenance_database: "postgres".to_owned(),
            application_name: "pgtenant".to_owned(),
            timeouts: Timeouts::default(),
        })?;
        let pgbouncer = pooler.map(|pooler| (pooler.login.to_owned(), Verifier::of(&pooler.password)));
        // A cluster that serves nobody yet is left open, as whoever attaches it may want it.
        let close_to_public = !logins.is_empty();
        Ok(bootstrap(
            &server,
            &Bootstrap { group: GROUP.to_owned(), logins, close_to_public, pgbouncer, logical_replication: false },
        )
        .await?)
    }
}
