//! Connections as a careful script makes them: TLS `verify-full` with one configuration for all, SCRAM, one round trip a
//! batch.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{BenchError, Result};

/// Nothing here waits longer: a run that hangs must end. A checkpoint syncs 300 files for each new database.
const PATIENCE: Duration = Duration::from_secs(600);

/// One server.
#[derive(Clone)]
pub(crate) struct Dial {
    port: u16,
    tls: MakeRustlsConnect,
}

/// A login.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: SecretString,
}

/// An open connection. Dropping it closes it soon; [`Session::close`] waits until it is closed.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Dial {
    pub(crate) fn new(port: u16, ca_file: &Path) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(ca_file).map_err(BenchError::text("read the CA's file"))?;
        for certificate in certificates {
            let certificate = certificate.map_err(BenchError::text("read the CA's file"))?;
            roots.add(certificate).map_err(BenchError::text("use the CA's certificate"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(BenchError::text("set TLS up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { port, tls: MakeRustlsConnect::new(config) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn connect(&self, login: &Login, database: &str) -> Result<Session> {
        let mut config = Config::new();
        config.host("localhost").port(self.port).user(&login.user).password(login.password.expose_secret());
        config.dbname(database).ssl_mode(SslMode::Require).application_name("bench");
        let doing = || format!("connect to {database} as {}", login.user);
        let connected = tokio::time::timeout(PATIENCE, config.connect(self.tls.clone())).await;
        let (client, connection) = connected.map_err(|_| too_long(&doing()))?.map_err(BenchError::postgres(doing()))?;
        // The connection's end is seen by whoever uses the client.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Session { client, driver })
    }
}

impl Session {
    /// One batch, one round trip.
    pub(crate) async fn batch(&self, sql: &str) -> Result<()> {
        let first = || sql.split_inclusive(';').next().unwrap_or_default().chars().take(80).collect::<String>();
        match tokio::time::timeout(PATIENCE, self.client.batch_execute(sql)).await {
            Ok(done) => done.map_err(BenchError::postgres(first())),
            Err(_) => Err(too_long(&first())),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The goodbye is on its way to the server afterwards.
    pub(crate) async fn close(self) {
        drop(self.client);
        // A panic there is of no interest any more.
        drop(self.driver.await);
    }
}

fn too_long(doing: &str) -> BenchError {
    BenchError::Claim { claim: doing.to_owned(), message: format!("not done after {} s", PATIENCE.as_secs()) }
}
