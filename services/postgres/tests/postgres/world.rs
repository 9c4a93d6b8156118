//! A bootstrapped cluster, and a tenant in it that is reconciled as the engine does it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgtenant_model::{ClaimKey, ClaimSpec, SslMode, Tier};
use pgtenant_postgres::{
    Bootstrap, Desired, ErrorClass, GROUP, Inside, Observed, Plan, PostgresError, Refusal, Server, ServerOptions,
    Timeouts, Unfenced, Verifier, apply, bootstrap, generate_password, observe, observe_inside, plan, plan_drop,
};
use pgtenant_testkit::{Login, cluster, cluster_of, unique};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tokio::sync::OnceCell;

/// The provisioner's login by major version, from 14.
static PROVISIONERS: [OnceCell<SecretString>; 5] = [const { OnceCell::const_new() }; 5];

/// A cluster as the provisioner sees it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) superuser: Login,
}

impl World {
    /// On the version that most tests run on.
    pub(crate) async fn new() -> Self {
        Self::of(cluster().await).await
    }

    pub(crate) async fn of_major(major: u32) -> Self {
        Self::of(cluster_of(major).await).await
    }

    async fn of(cluster: &pgtenant_testkit::Server) -> Self {
        let superuser = cluster.superuser();
        let options = |username: &str, password: &SecretString| ServerOptions {
            host: "localhost".into(),
            port: cluster.port(),
            sslmode: SslMode::VerifyFull,
            ca: Some(cluster.ca_pem()),
            username: username.into(),
            password: password.clone(),
            maintenance_database: "postgres".into(),
            application_name: "pgtenant-test".into(),
            timeouts: Timeouts::default(),
        };
        let password = PROVISIONERS[cluster.major() as usize - 14]
            .get_or_init(|| async {
                let password = generate_password(&mut rand::rng());
                let wanted = Bootstrap {
                    group: GROUP.into(),
                    logins: vec![
                        ("prov_a".into(), Verifier::of(&password)),
                        ("prov_b".into(), Verifier::of(&password)),
                    ],
                    close_to_public: true,
                    pgbouncer: None,
                    logical_replication: false,
                };
                let server = Server::new(options(&superuser.username, &superuser.password)).unwrap();
                bootstrap(&server, &wanted).await.unwrap();
                // It may be run again.
                bootstrap(&server, &wanted).await.unwrap();
                password
            })
            .await;
        Self { server: Server::new(options("prov_a", password)).unwrap(), superuser }
    }

    /// The same cluster, through another login of the provisioner.
    pub(crate) fn as_login(&self, username: &str) -> Self {
        let options = ServerOptions { username: username.into(), ..self.server.options().clone() };
        Self { server: Server::new(options).unwrap(), superuser: self.superuser.clone() }
    }

    /// The same cluster, with all privileges: not how it should be, and it works.
    pub(crate) fn as_superuser(&self) -> Self {
        let Login { username, password, .. } = self.superuser.clone();
        let options = ServerOptions { username, password, ..self.server.options().clone() };
        Self { server: Server::new(options).unwrap(), superuser: self.superuser.clone() }
    }

    pub(crate) fn tenant(&self) -> Tenant<'_> {
        let key = ClaimKey::new(unique("ns"), "db").unwrap();
        self.tenant_of(key)
    }

    pub(crate) fn tenant_of(&self, key: ClaimKey) -> Tenant<'_> {
        let passwords = Tier::ALL.map(|tier| (tier, generate_password(&mut rand::rng())));
        let desired = Desired::new(key, &ClaimSpec::default());
        Tenant { world: self, desired, passwords: passwords.into() }
    }

    /// A connection of the superuser.
    pub(crate) async fn root(&self, database: &str) -> PgConnection {
        self.superuser.options.clone().database(database).connect().await.unwrap()
    }

    /// Runs statements as the superuser.
    pub(crate) async fn sql(&self, database: &str, sql: &str) {
        run(&mut self.root(database).await, sql).await.unwrap();
    }
}

/// A claim on a cluster.
pub(crate) struct Tenant<'a> {
    pub(crate) world: &'a World,
    pub(crate) desired: Desired,
    pub(crate) passwords: BTreeMap<Tier, SecretString>,
}

impl Tenant<'_> {
    pub(crate) fn database(&self) -> String {
        self.desired.database.clone()
    }

    pub(crate) fn role(&self, tier: Tier) -> String {
        self.desired.key.role(tier)
    }

    /// The wish with every password.
    pub(crate) fn with_passwords(&self) -> Desired {
        let verifiers = self.passwords.iter().map(|(tier, word)| (*tier, Verifier::of(word)));
        Desired { passwords: verifiers.collect(), ..self.desired.clone() }
    }

    /// Looks from outside and, where the database is open to the provisioner, from inside.
    pub(crate) async fn observe(&self) -> Observed {
        let server = &self.world.server;
        let mut session = server.maintenance().await.unwrap();
        let Desired { key, database, extensions, .. } = &self.desired;
        let mut observed = observe(server, &mut session, key, database, extensions).await.unwrap();
        if observed.database.as_ref().is_some_and(|facts| facts.allow_connections) {
            observed.inside = self.inside(&observed).await;
        }
        observed
    }

    async fn inside(&self, observed: &Observed) -> Option<Inside> {
        let database = observed.database.as_ref()?;
        let provisioner = &observed.server.current_user;
        let may_connect =
            database.acl.iter().any(|item| item.grantee.as_ref() == Some(provisioner) && item.privilege == "CONNECT");
        let settled = may_connect && database.owner.name == *provisioner && database.connection_limit == -1;
        let mut session = match self.world.server.inside(&self.database()).await {
            Ok(session) => session,
            // The provisioner does not own it yet, or it lets nobody in.
            Err(error) if !settled => {
                assert!(["42501", "53300"].contains(&error.sqlstate().unwrap_or_default()), "{error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let provisioner = &observed.server.current_user;
        Some(observe_inside(&mut session, &self.desired, provisioner).await.unwrap())
    }

    pub(crate) async fn plan(&self) -> Result<Plan, Refusal> {
        plan(&self.desired, &self.observe().await)
    }

    pub(crate) async fn apply(&self, plan: &Plan) -> Result<(), PostgresError> {
        let server = &self.world.server;
        let mut session = server.maintenance().await?;
        apply(server, &mut session, plan, &Unfenced, &|_| {}).await
    }

    /// Makes it with passwords, then checks that nothing is left to do.
    pub(crate) async fn create(&self) {
        let plan = plan(&self.with_passwords(), &self.observe().await).unwrap();
        self.apply(&plan).await.unwrap();
        self.assert_settled().await;
    }

    /// Gives the login in use of a tier another password.
    pub(crate) async fn set_password(&self, tier: Tier, word: &SecretString) {
        let passwords = [(tier, Verifier::of(word))].into();
        let plan = plan(&Desired { passwords, ..self.desired.clone() }, &self.observe().await).unwrap();
        self.apply(&plan).await.unwrap();
    }

    /// Puts right what is wrong, and checks that nothing is left to do; says what was changed.
    pub(crate) async fn repair(&self) -> Vec<String> {
        let plan = self.plan().await.unwrap();
        self.apply(&plan).await.unwrap();
        self.assert_settled().await;
        plan.changes().map(|change| change.text()).collect()
    }

    pub(crate) async fn assert_settled(&self) {
        let plan = self.plan().await.unwrap();
        assert_eq!(plan.batches, [], "a plan after a plan");
    }

    pub(crate) async fn drop(&self) {
        let begun = Instant::now();
        loop {
            let plan = plan_drop(&self.desired.key, &self.observe().await).unwrap();
            match self.apply(&plan).await {
                Ok(()) => break,
                // A session of these tests that is just closing.
                Err(error) if error.class() == ErrorClass::Conflict => {
                    assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        let plan = plan_drop(&self.desired.key, &self.observe().await).unwrap();
        assert!(plan.is_empty(), "{plan:?}");
    }

    pub(crate) fn options(&self, tier: Tier) -> PgConnectOptions {
        let options = self.world.superuser.options.clone();
        options.username(&self.role(tier)).password(self.passwords[&tier].expose_secret()).database(&self.database())
    }

    /// Runs statements as a tier, on a new connection.
    pub(crate) async fn sql(&self, tier: Tier, sql: &str) -> sqlx::Result<()> {
        run(&mut self.options(tier).connect().await?, sql).await
    }
}

pub(crate) async fn run(connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(|_| ())
}

/// The first column of the first row.
pub(crate) async fn value<T>(connection: &mut PgConnection, sql: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap().get(0)
}

/// The SQLSTATE of a statement that must fail.
pub(crate) fn sqlstate(result: sqlx::Result<()>) -> String {
    let error = result.expect_err("it should have been refused");
    error.as_database_error().and_then(|e| e.code().map(String::from)).unwrap_or_else(|| error.to_string())
}
