//! A cluster as RDS gives it: the master login is no superuser.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use pgtenant_model::SslMode;
use pgtenant_postgres::{
    Bootstrap, GROUP, Server, ServerOptions, Timeouts, Verifier, bootstrap, generate_password, preflight,
};
use pgtenant_testkit::cluster_of;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

/// As `\du` and `\l` show it on RDS: the master login may make roles and databases, owns `postgres` and `template1`, and may give
/// away `rds_password` and `rds_superuser`.
const AS_ON_RDS: &str = "\
    CREATE ROLE rds_password; CREATE ROLE rds_superuser;
    CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD '';
    GRANT rds_password, rds_superuser TO master WITH ADMIN OPTION;
    ALTER DATABASE postgres OWNER TO master; ALTER DATABASE template1 OWNER TO master";

async fn a_master_that_is_no_superuser_attaches_the_cluster(major: u32) {
    let cluster = cluster_of(major).await;
    let master = SecretString::from("Only-of-this-test");
    cluster.execute(AS_ON_RDS).await;
    cluster.execute(&format!("ALTER ROLE master PASSWORD '{}'", master.expose_secret())).await;
    let server = |username: &str, password: &SecretString| {
        Server::new(ServerOptions {
            host: "localhost".into(),
            port: cluster.port(),
            sslmode: SslMode::VerifyFull,
            ca: Some(cluster.ca_pem()),
            username: username.into(),
            password: password.clone(),
            maintenance_database: "postgres".into(),
            application_name: "pgtenant-test".into(),
            timeouts: Timeouts::default(),
        })
        .unwrap()
    };
    let password = generate_password(&mut rand::rng());
    let wanted = Bootstrap {
        group: GROUP.into(),
        logins: vec![("prov_a".into(), Verifier::of(&password)), ("prov_b".into(), Verifier::of(&password))],
        close_to_public: true,
        pgbouncer: None,
        logical_replication: false,
    };
    let tenant = "CREATE ROLE \"ns-db-read\" LOGIN; COMMENT ON ROLE \"ns-db-read\" IS 'pgtenant: ns/db read'";
    cluster.execute(tenant).await;
    cluster.execute("CREATE ROLE checks LOGIN").await;
    bootstrap(&server("master", &master), &wanted).await.unwrap();
    // Again, as after a kill.
    bootstrap(&server("master", &master), &wanted).await.unwrap();
    let connecting = "SELECT array_agg(rolname::text ORDER BY 1) FROM pg_roles WHERE rolname IN ('checks', 'ns-db-read', 'pgtenant') \
                      AND has_database_privilege(oid, 'postgres', 'CONNECT')";
    let mut superuser = cluster.superuser().options.connect().await.unwrap();
    let connecting: Vec<String> = sqlx::query_scalar(connecting).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(connecting, ["checks", "pgtenant"], "no tenant, and whoever was there keeps it");

    for login in ["prov_a", "prov_b"] {
        let provisioner = server(login, &password);
        let found = preflight(&mut provisioner.maintenance().await.unwrap()).await.unwrap();
        assert_eq!(found, [], "{login}");
        let options = cluster.superuser().options.username(login).password(password.expose_secret());
        let mut session = options.connect().await.unwrap();
        let make = format!("CREATE ROLE \"{login}-tenant\" LOGIN PASSWORD 'x'");
        session.execute(AssertSqlSafe(make)).await.unwrap();
        session.execute(AssertSqlSafe(format!("CREATE DATABASE \"{login}-tenant\""))).await.unwrap();
        // What RDS asks for where rds.restrict_password_commands is on.
        let member: bool = sqlx::query_scalar("SELECT pg_has_role(current_user, 'rds_password', 'USAGE')")
            .fetch_one(&mut session)
            .await
            .unwrap();
        assert!(member, "{login}");
    }

    // What of RDS's own would bite later.
    let restricted = "ALTER ROLE prov_b SET \"rds.restrict_password_commands\" = 'on'; SET ROLE master; \
                      REVOKE rds_password FROM pgtenant; RESET ROLE";
    cluster.execute(restricted).await;
    cluster.execute("CREATE ROLE admins; GRANT rds_superuser TO admins; GRANT admins TO prov_b").await;
    cluster.execute("CREATE ROLE bystander; GRANT rds_superuser TO \"ns-db-read\", bystander").await;
    let found = preflight(&mut server("prov_b", &password).maintenance().await.unwrap()).await.unwrap();
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    for mend in [
        "GRANT rds_password TO \"pgtenant\";",
        "REVOKE \"rds_superuser\" FROM \"ns-db-read\";",
        "REVOKE \"admins\" FROM \"prov_b\";",
    ] {
        assert!(told.iter().any(|one| one.ends_with(mend)), "{mend}: {told:#?}");
        cluster.execute(mend).await;
    }
    let found = preflight(&mut server("prov_b", &password).maintenance().await.unwrap()).await.unwrap();
    assert_eq!(found, []);
}

macro_rules! on {
    ($($name:ident $major:literal)*) => { $(
        #[tokio::test]
        async fn $name() { a_master_that_is_no_superuser_attaches_the_cluster($major).await }
    )* };
}

on! { v15 15 v16 16 v17 17 v18 18 }
