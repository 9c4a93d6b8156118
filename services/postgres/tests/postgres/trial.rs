//! Capabilities that are tried: what is told, and that nothing is left.

use pgtenant_model::CheckResult;
use pgtenant_postgres::{
    Server, ServerBasics, Session, Trial, half_made, server_basics, try_database, try_extensions, try_logins, try_roles,
};
use pgtenant_testkit::unique;
use secrecy::ExposeSecret as _;

use crate::world::{World, value};

macro_rules! on_every_version {
    ($($test:ident)*) => { mod on { $(
        mod $test {
            #[tokio::test]
            async fn v14() { crate::trial::$test(14).await }
            #[tokio::test]
            async fn v15() { crate::trial::$test(15).await }
            #[tokio::test]
            async fn v16() { crate::trial::$test(16).await }
            #[tokio::test]
            async fn v17() { crate::trial::$test(17).await }
            #[tokio::test]
            async fn v18() { crate::trial::$test(18).await }
        }
    )* } };
}

on_every_version! {
    what_works_passes_and_leaves_no_trace
    what_is_refused_is_told_with_the_statement_that_mends_it
}

/// Everything that could be tried, and how it went.
#[derive(Debug)]
struct Tried {
    logins: Option<Trial>,
    roles: Trial,
    database: Trial,
    extensions: Option<Trial>,
}

async fn start(server: &Server) -> (Session, ServerBasics) {
    let mut session = server.maintenance().await.unwrap();
    let basics = server_basics(&mut session).await.unwrap();
    (session, basics)
}

async fn all_of(server: &Server, extensions: &[&str]) -> Tried {
    let (mut session, basics) = start(server).await;
    let logins = try_logins(&mut session).await.unwrap();
    let roles = try_roles(&mut session, &basics).await.unwrap();
    drop(session);
    let (mut session, _) = start(server).await;
    let extensions: Vec<_> = extensions.iter().map(|&name| name.to_owned()).collect();
    match try_database(server, &mut session, &basics).await.unwrap() {
        Err(database) => Tried { logins, roles, database, extensions: None },
        Ok(mut sandbox) => {
            let extensions = try_extensions(&mut sandbox, &basics, &extensions).await.unwrap();
            let database = sandbox.close(server).await.unwrap();
            Tried { logins, roles, database, extensions: Some(extensions) }
        }
    }
}

/// Everything that a trial could leave, apart from those of other tests, which have another owner.
async fn traces(world: &World, owner: &str) -> i64 {
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE 'pgtenant\\_preflight\\_%' AND datdba = '\"{owner}\"'::regrole) \
              + (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgtenant\\_preflight\\_%')"
    );
    value(&mut world.root("postgres").await, &sql).await
}

/// A provisioner of this test's own, who acts as itself.
async fn provisioner(world: &World, attributes: &str) -> (Server, String) {
    let name = unique("trial");
    let password = pgtenant_postgres::generate_password(&mut rand::rng());
    let make = format!("CREATE ROLE \"{name}\" LOGIN {attributes} PASSWORD '{}'", password.expose_secret());
    world.sql("postgres", &make).await;
    // The others' databases are closed to PUBLIC.
    world.sql("postgres", &format!("GRANT CONNECT ON DATABASE postgres TO \"{name}\"")).await;
    let mut options = world.server.options().clone();
    (options.username, options.password) = (name.clone(), password);
    (Server::new(options).unwrap(), name)
}

async fn what_works_passes_and_leaves_no_trace(major: u32) {
    let world = World::of_major(major).await;
    for _ in 0..3 {
        let tried = all_of(&world.server, &["pg_trgm", "pgcrypto"]).await;
        for trial in [tried.logins.as_ref(), Some(&tried.roles), Some(&tried.database), tried.extensions.as_ref()] {
            assert_eq!(trial.unwrap().0, CheckResult::Passed, "{tried:?}");
        }
        assert_eq!(tried.logins.unwrap().1, "\"prov_a\" and \"prov_b\" act as \"pgtenant\"");
    }
    assert_eq!(traces(&world, "pgtenant").await, 0);
}

async fn what_is_refused_is_told_with_the_statement_that_mends_it(major: u32) {
    let world = World::of_major(major).await;
    let (server, name) = provisioner(&world, "NOCREATEDB NOCREATEROLE").await;
    let tried = all_of(&server, &[]).await;
    assert_eq!((tried.roles.0, tried.database.0), (CheckResult::Failed, CheckResult::Failed));
    assert_eq!(tried.logins, None, "it acts as itself");
    let (roles, database) = (&tried.roles.1, &tried.database.1);
    assert!(roles.starts_with("CREATE ROLE \"pgtenant_preflight_") && !roles.contains("SCRAM"), "{roles}");
    assert!(roles.ends_with(&format!("a superuser mends it with: ALTER ROLE \"{name}\" CREATEROLE;")), "{roles}");
    assert!(database.starts_with("CREATE DATABASE \"pgtenant_preflight_"), "{database}");
    assert!(database.ends_with(&format!("a superuser mends it with: ALTER ROLE \"{name}\" CREATEDB;")), "{database}");

    // What is told mends it; 14 needs its template besides, which is another's.
    let mend = |told: &str| told.split_once("mends it with: ").unwrap().1.to_owned();
    world.sql("postgres", &format!("{} {}", mend(roles), mend(database))).await;
    let tried = all_of(&server, &["pg_trgm", "dblink", "no_such_thing"]).await;
    assert_eq!(tried.roles.0, CheckResult::Passed, "{tried:?}");
    if major < 15 {
        assert!(tried.database.1.ends_with("which makes \"pgtenant_template\""), "{tried:?}");
        return;
    }
    assert_eq!(tried.database.0, CheckResult::Passed, "{tried:?}");
    let (result, extensions) = tried.extensions.unwrap();
    assert_eq!(result, CheckResult::Failed);
    assert!(
        extensions.contains("only a superuser may create dblink") && !extensions.contains("pg_trgm"),
        "{extensions}"
    );
    assert!(extensions.contains("no_such_thing is not on the server: install its package"), "{extensions}");
    assert_eq!(traces(&world, &name).await, 0);
}

#[tokio::test]
async fn what_a_killed_trial_leaves_is_found_and_no_tenant_was_let_in() {
    let world = World::new().await;
    let (server, name) = provisioner(&world, "CREATEDB CREATEROLE").await;
    let (mut session, basics) = start(&server).await;
    let sandbox = try_database(&server, &mut session, &basics).await.unwrap().unwrap();
    assert_eq!(traces(&world, &name).await, 1);
    let left = half_made(&mut session).await.unwrap();
    assert!(left.len() == 1 && left[0].starts_with("pgtenant_preflight_"), "{left:?}");
    let grants = format!(
        "SELECT array_agg(a.grantee::regrole::text) FROM pg_database d, aclexplode(d.datacl) a WHERE datname = '{}' \
         AND a.privilege_type = 'CONNECT'",
        left[0]
    );
    let who: Vec<String> = value(&mut world.root("postgres").await, &grants).await;
    assert_eq!(who, [format!("\"{name}\"")]);
    assert_eq!(sandbox.close(&server).await.unwrap().0, CheckResult::Passed);
    assert_eq!(traces(&world, &name).await, 0);
}

#[tokio::test]
async fn a_member_that_would_own_what_it_makes_is_warned_of() {
    let world = World::new().await;
    let (server, name) = provisioner(&world, "CREATEROLE").await;
    let (group, second) = (unique("group"), unique("second"));
    let sql = format!(
        "CREATE ROLE \"{group}\" CREATEDB CREATEROLE; GRANT \"{group}\" TO \"{name}\"; ALTER ROLE \"{name}\" SET role = '{group}'"
    );
    world.sql("postgres", &sql).await;
    let told = async || try_logins(&mut server.maintenance().await.unwrap()).await.unwrap().unwrap();
    let (result, message) = told().await;
    assert!(result == CheckResult::Passed && message.starts_with(&format!("{name:?} acts as {group:?}")), "{message}");
    world.sql("postgres", &format!("CREATE ROLE \"{second}\" LOGIN; GRANT \"{group}\" TO \"{second}\"")).await;
    let (result, message) = told().await;
    assert_eq!(result, CheckResult::Warning);
    let mend = format!("ALTER ROLE \"{second}\" SET role = '{group}';");
    assert!(message.ends_with(&mend), "{message}");
    world.sql("postgres", &mend).await;
    assert_eq!(told().await.0, CheckResult::Passed);
}
