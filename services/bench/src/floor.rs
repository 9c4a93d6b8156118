//! The floor: the same database, roles, grants and logins by hand, on raw connections. Nothing is stored, nobody is
//! asked, nothing is looked at before or after.

use std::time::Instant;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::connect::{Dial, Login, Session};
use crate::error::Result;

/// The database that maintenance connections are in.
const MAINTENANCE: &str = "postgres";
pub(crate) const TIERS: [&str; 3] = ["read", "write", "admin"];

/// One claim by hand. Everything in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FloorSample {
    pub(crate) name: String,
    pub(crate) total: f64,
    /// Three verifiers of fresh passwords.
    pub(crate) verifiers: f64,
    pub(crate) roles: f64,
    pub(crate) create_database: f64,
    pub(crate) open: f64,
    /// The connection to the new database.
    pub(crate) connect: f64,
    pub(crate) inside: f64,
    /// Three logins, one after the other.
    pub(crate) logins: f64,
}

/// A maintenance connection that is kept, and at most one further at a time.
pub(crate) struct Worker {
    pub(crate) dial: Dial,
    provisioner: Login,
    pub(crate) maintenance: Session,
}

impl Worker {
    pub(crate) async fn start(dial: &Dial, provisioner: &Login) -> Result<Self> {
        let maintenance = dial.connect(provisioner, MAINTENANCE).await?;
        Ok(Self { dial: dial.clone(), provisioner: provisioner.clone(), maintenance })
    }

    /// What POSTGRES calls a claim: four round trips, one connect, three logins.
    pub(crate) async fn claim(&self, name: &str) -> Result<FloorSample> {
        let mut clock = Clock::start();
        let passwords = TIERS.map(|_| SecretString::from(Alphanumeric.sample_string(&mut rand::rng(), 40)));
        let verifiers =
            passwords.each_ref().map(|p| postgres_protocol::password::scram_sha_256(p.expose_secret().as_bytes()));
        let verified = clock.lap();
        self.maintenance.batch(&roles(name, &verifiers)).await?;
        let roles = clock.lap();
        self.maintenance
            .batch(&format!(
                r#"CREATE DATABASE "{name}" TEMPLATE template0 OWNER "{name}-admin" ALLOW_CONNECTIONS false"#
            ))
            .await?;
        let create_database = clock.lap();
        self.maintenance.batch(&open(name)).await?;
        let open = clock.lap();
        let session = self.dial.connect(&self.provisioner, name).await?;
        let connect = clock.lap();
        session.batch(&inside(name)).await?;
        session.close().await;
        let inside = clock.lap();
        for (tier, password) in TIERS.iter().zip(passwords) {
            let login = Login { user: format!("{name}-{tier}"), password };
            self.dial.connect(&login, name).await?.close().await;
        }
        let logins = clock.lap();
        let total = clock.total();
        let name = name.to_owned();
        Ok(FloorSample { name, total, verifiers: verified, roles, create_database, open, connect, inside, logins })
    }

    /// Removes what [`Worker::claim`] made.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        // FORCE is refused while autovacuum is there; nobody else is.
        self.maintenance.batch(&format!(r#"DROP DATABASE IF EXISTS "{name}""#)).await?;
        self.maintenance.batch(&format!(r#"DROP ROLE IF EXISTS "{name}-read", "{name}-write", "{name}-admin""#)).await
    }

    pub(crate) async fn stop(self) {
        self.maintenance.close().await;
    }
}

// Names are the benchmark's own: lower-case letters, digits and hyphens.

fn roles(name: &str, [read, write, admin]: &[String; 3]) -> String {
    format!(
        r#"CREATE ROLE "{name}-read" LOGIN PASSWORD '{read}';
           CREATE ROLE "{name}-write" LOGIN PASSWORD '{write}';
           CREATE ROLE "{name}-admin" LOGIN PASSWORD '{admin}';
           GRANT "{name}-admin" TO CURRENT_USER"#
    )
}

fn open(name: &str) -> String {
    format!(
        r#"REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;
           GRANT CONNECT ON DATABASE "{name}" TO "{name}-read", "{name}-write";
           ALTER DATABASE "{name}" ALLOW_CONNECTIONS true"#
    )
}

fn inside(name: &str) -> String {
    let default = format!(r#"ALTER DEFAULT PRIVILEGES FOR ROLE "{name}-admin" IN SCHEMA public GRANT"#);
    format!(
        r#"ALTER SCHEMA public OWNER TO "{name}-admin";
           GRANT USAGE ON SCHEMA public TO "{name}-read", "{name}-write";
           {default} SELECT ON TABLES TO "{name}-read";
           {default} SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO "{name}-write";
           {default} SELECT ON SEQUENCES TO "{name}-read";
           {default} USAGE, SELECT ON SEQUENCES TO "{name}-write""#
    )
}

struct Clock {
    begun: Instant,
    last: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now }
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.last, now);
        since.as_secs_f64() * 1e3
    }

    fn total(&self) -> f64 {
        (self.last - self.begun).as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab;

    #[tokio::test]
    async fn a_claim_by_hand_is_made_and_removed() {
        let folder = lab::folder(&std::env::temp_dir()).unwrap();
        let lab = lab::Lab::start(folder.path(), lab::Described::files(), |_| {}).await.unwrap();
        let worker = Worker::start(&lab.primary, &lab.provisioner).await.unwrap();
        for number in 0..10 {
            let sample = worker.claim(&format!("floor-{number}")).await.unwrap();
            println!("{sample:?}");
            assert!(sample.total > sample.logins && sample.logins > 0.0);
        }
        for number in 0..10 {
            worker.remove(&format!("floor-{number}")).await.unwrap();
        }
        let left =
            worker.maintenance.client().query_one("select count(*) from pg_roles where rolname like 'floor-%'", &[]);
        assert_eq!(left.await.unwrap().get::<_, i64>(0), 0);
        worker.stop().await;
        lab.stop().await.unwrap();
    }
}
