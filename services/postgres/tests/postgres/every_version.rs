//! What has to hold on each supported version.

use pgtenant_model::{Side, Tier};
use pgtenant_postgres::{Logins, Refusal, drop_roles_put_aside, generate_password, logged_in, plan, plan_drop};
use pgtenant_testkit::unique;
use secrecy::ExposeSecret as _;
use sqlx::ConnectOptions as _;

use crate::lookup::{pgbouncer_is_told_of_tenants_alone, the_lookup_is_pgbouncers_alone};
use crate::world::{World, run, sqlstate, value};

const ADMIN: Tier = Tier::Admin;
const WRITE: Tier = Tier::Write;
const READ: Tier = Tier::Read;

macro_rules! on_every_version {
    ($($test:ident)*) => { mod on { $(
        mod $test {
            #[tokio::test]
            async fn v14() { crate::every_version::$test(14).await }
            #[tokio::test]
            async fn v15() { crate::every_version::$test(15).await }
            #[tokio::test]
            async fn v16() { crate::every_version::$test(16).await }
            #[tokio::test]
            async fn v17() { crate::every_version::$test(17).await }
            #[tokio::test]
            async fn v18() { crate::every_version::$test(18).await }
        }
    )* } };
}

on_every_version! {
    tiers_do_what_they_may
    no_tenant_reaches_another
    what_was_changed_by_hand_is_put_back
    what_only_a_superuser_undoes_is_said
    a_second_login_makes_what_its_tier_makes
    a_database_is_adopted
    a_drop_goes_on_from_anywhere
    no_tenant_keeps_anothers_roles_from_being_dropped
    another_login_of_the_provisioner_goes_on
    pgbouncer_is_told_of_tenants_alone
    the_lookup_is_pgbouncers_alone
}

async fn tiers_do_what_they_may(major: u32) {
    let world = World::of_major(major).await;
    let mut tenant = world.tenant();
    tenant.desired.schemas = vec!["reporting".into()];
    tenant.desired.extensions = vec!["pg_trgm".into()];
    tenant.create().await;

    for schema in ["public", "reporting"] {
        let sql = |text: &str| text.replace('@', &format!("{schema}.t"));
        tenant.sql(ADMIN, &sql("CREATE TABLE @ (id serial, x text)")).await.unwrap();
        tenant.sql(WRITE, &sql("INSERT INTO @ (x) VALUES ('a')")).await.unwrap();
        tenant.sql(WRITE, &sql("UPDATE @ SET x = 'b'; DELETE FROM @; TRUNCATE @")).await.unwrap();
        tenant.sql(READ, &sql("SELECT x FROM @; SELECT last_value FROM @_id_seq")).await.unwrap();
        assert_eq!(sqlstate(tenant.sql(READ, &sql("DELETE FROM @")).await), "42501");
        assert_eq!(sqlstate(tenant.sql(WRITE, &sql("DROP TABLE @")).await), "42501");
    }
    for tier in [READ, WRITE] {
        assert_eq!(sqlstate(tenant.sql(tier, "CREATE TABLE x ()").await), "42501");
        assert_eq!(sqlstate(tenant.sql(tier, "CREATE SCHEMA x").await), "42501");
    }
    tenant.sql(ADMIN, "CREATE SCHEMA own; CREATE TABLE own.secret ()").await.unwrap();
    assert_eq!(sqlstate(tenant.sql(READ, "SELECT FROM own.secret").await), "42501");
    tenant.sql(READ, "SELECT similarity('a', 'b')").await.unwrap();
    tenant.assert_settled().await;
    tenant.drop().await;
}

async fn no_tenant_reaches_another(major: u32) {
    let world = World::of_major(major).await;
    let (one, other) = (world.tenant(), world.tenant());
    one.create().await;
    other.create().await;
    for tier in Tier::ALL {
        for database in [other.database().as_str(), "postgres", "template1"] {
            let mut options = one.options(tier);
            options = options.database(database);
            let error = sqlx::ConnectOptions::connect(&options).await.unwrap_err();
            assert_eq!(sqlstate(Err(error)), "42501", "{tier} on {database}");
        }
    }
    // The owner of a database could do all of this.
    let (database, stranger) = (one.database(), other.role(READ));
    for sql in [
        format!("DROP DATABASE \"{database}\""),
        format!("ALTER DATABASE \"{database}\" SET work_mem = '1GB'"),
        format!("COMMENT ON DATABASE \"{database}\" IS 'mine'"),
        format!("ALTER ROLE \"{stranger}\" PASSWORD 'x'"),
        format!("GRANT \"{stranger}\" TO CURRENT_USER"),
        "SET ROLE pgtenant".to_owned(),
        "CREATE ROLE x".to_owned(),
    ] {
        let state = sqlstate(one.sql(ADMIN, &sql).await);
        assert!(["42501", "55006"].contains(&state.as_str()), "{sql}: {state}");
    }
    // A grant that is not one's to give is only warned of.
    one.sql(ADMIN, &format!("GRANT CONNECT ON DATABASE \"{database}\" TO \"{stranger}\"")).await.unwrap();
    one.assert_settled().await;
}

async fn what_was_changed_by_hand_is_put_back(major: u32) {
    let world = World::of_major(major).await;
    let tenant = world.tenant();
    tenant.create().await;
    let (d, read, write, admin) = (tenant.database(), tenant.role(READ), tenant.role(WRITE), tenant.role(ADMIN));
    tenant.sql(ADMIN, "CREATE TABLE t (id serial)").await.unwrap();
    let other = unique("other");
    world.sql("postgres", &format!("CREATE ROLE \"{other}\"")).await;
    world
        .sql(
            &d,
            &format!(
                "ALTER ROLE \"{read}\" NOLOGIN CONNECTION LIMIT 3 VALID UNTIL '2001-01-01'; \
                 ALTER ROLE \"{write}\" CREATEDB CREATEROLE NOINHERIT; COMMENT ON ROLE \"{write}\" IS NULL; \
                 GRANT CONNECT, CREATE ON DATABASE \"{d}\" TO \"{read}\", PUBLIC, \"{other}\"; \
                 REVOKE CONNECT ON DATABASE \"{d}\" FROM \"{write}\"; \
                 ALTER DATABASE \"{d}\" CONNECTION LIMIT 1; ALTER DATABASE \"{d}\" SET work_mem = '8MB'; \
                 ALTER SCHEMA public OWNER TO pgtenant; REVOKE ALL ON SCHEMA public FROM \"{read}\"; \
                 GRANT CREATE ON SCHEMA public TO \"{write}\", PUBLIC; \
                 REVOKE ALL ON TABLE t FROM \"{read}\", \"{write}\"; REVOKE ALL ON SEQUENCE t_id_seq FROM \"{write}\"; \
                 ALTER DEFAULT PRIVILEGES FOR ROLE \"{admin}\" IN SCHEMA public REVOKE INSERT ON TABLES FROM \"{write}\""
            ),
        )
        .await;
    let changes = tenant.repair().await;
    for (change, times) in [
        (format!("alter role {read:?}: LOGIN, CONNECTION LIMIT -1, VALID UNTIL 'infinity'"), 1),
        (format!("alter role {write:?}: INHERIT, NOCREATEDB, NOCREATEROLE"), 1),
        (format!("revoke ALL on database {d:?} from {other:?}"), 1),
        (format!("revoke ALL on database {d:?} from PUBLIC"), 1),
        (format!("grant CONNECT on database {d:?} to {read:?}, {write:?}"), 1),
        (format!("reset work_mem of database {d:?}"), 1),
        (format!("make {admin:?} the owner of schema \"public\""), 1),
        (format!("grant INSERT on future tables of {admin:?} in schema \"public\" to {write:?}"), 1),
        (format!("grant SELECT on table \"public\".\"t\" to {read:?}"), 1),
        (format!("grant SELECT, USAGE on sequence \"public\".\"t_id_seq\" to {write:?}"), 1),
    ] {
        let found = changes.iter().filter(|c| **c == change).count();
        assert_eq!(found, times, "{change}\nin {changes:#?}");
    }
    tenant.sql(WRITE, "INSERT INTO t DEFAULT VALUES").await.unwrap();
    tenant.sql(READ, "SELECT FROM t").await.unwrap();
}

async fn what_only_a_superuser_undoes_is_said(major: u32) {
    let world = World::of_major(major).await;
    let tenant = world.tenant();
    tenant.create().await;
    let (d, read, write, admin) = (tenant.database(), tenant.role(READ), tenant.role(WRITE), tenant.role(ADMIN));
    let (member, owner) = (unique("member"), unique("owner"));
    let by_hand = format!(
        "CREATE ROLE \"{member}\"; GRANT \"{read}\" TO \"{member}\"; GRANT pg_read_all_data TO \"{read}\"; \
         ALTER ROLE \"{write}\" SUPERUSER; ALTER ROLE \"{read}\" BYPASSRLS CONNECTION LIMIT 2; \
         ALTER DATABASE \"{d}\" SET log_statement = 'all'; CREATE ROLE \"{owner}\" SUPERUSER; \
         ALTER SCHEMA public OWNER TO \"{owner}\""
    );
    world.sql(&d, &by_hand).await;
    let plan = tenant.plan().await.unwrap();
    // The rest is done all the same, and the next look does not try it again.
    assert!(plan.changes().any(|c| c.text() == format!("alter role {read:?}: CONNECTION LIMIT -1")));
    tenant.apply(&plan).await.unwrap();
    tenant.assert_settled().await;
    let remedies: Vec<_> = plan.beyond.iter().map(|beyond| beyond.remedy.as_str()).collect();
    for expected in [
        format!("ALTER ROLE \"{write}\" NOSUPERUSER;"),
        format!("ALTER ROLE \"{read}\" NOBYPASSRLS;"),
        format!("ALTER DATABASE \"{d}\" RESET \"log_statement\";"),
        format!("ALTER SCHEMA \"public\" OWNER TO \"{admin}\";"),
    ] {
        assert!(remedies.contains(&expected.as_str()), "{expected} in {remedies:#?}");
    }
    // From 16 on, what a superuser granted only a superuser revokes.
    assert_eq!(remedies.len(), if major >= 16 { 6 } else { 4 }, "{remedies:#?}");
    world.sql(&d, &remedies.join(" ")).await;
    tenant.repair().await;
    assert_eq!(tenant.plan().await.unwrap().beyond, []);
    tenant.sql(READ, "SELECT").await.unwrap();
}

async fn a_second_login_makes_what_its_tier_makes(major: u32) {
    let world = World::of_major(major).await;
    let mut tenant = world.tenant();
    tenant.create().await;
    let (admin, second) = (tenant.role(ADMIN), tenant.desired.key.second_login(ADMIN));
    let first = tenant.options(ADMIN);
    // It does not exist, and is made where it is to be in use.
    tenant.desired.logins.insert(ADMIN, Logins { in_use: Side::B, both: true });
    let word = generate_password(&mut rand::rng());
    tenant.set_password(ADMIN, &word).await;
    tenant.assert_settled().await;
    let options = tenant.options(ADMIN).username(&second).password(word.expose_secret());
    let mut login = options.connect().await.unwrap();
    run(&mut login, "CREATE TABLE early (id serial); CREATE SCHEMA theirs; RESET ROLE; SET ROLE NONE").await.unwrap();
    run(&mut login, "CREATE TABLE stray (id serial)").await.unwrap();
    drop(login);
    tenant.sql(WRITE, "INSERT INTO early DEFAULT VALUES; INSERT INTO stray DEFAULT VALUES").await.unwrap();
    let changes = tenant.repair().await;
    assert!(changes.contains(&format!("give {admin:?} all that {second:?} owns")), "{changes:#?}");
    let mut root = world.root(&tenant.database()).await;
    let owners: String =
        value(&mut root, "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'")
            .await;
    assert_eq!(owners, admin);
    tenant.sql(READ, "SELECT FROM stray").await.unwrap();

    // By hand: no longer in its tier, and no longer acting as it.
    let sql = format!(
        "SET ROLE pgtenant; REVOKE \"{admin}\" FROM \"{second}\"; ALTER ROLE \"{second}\" RESET role; RESET ROLE"
    );
    run(&mut root, &sql).await.unwrap();
    let changes = tenant.repair().await;
    let expected =
        [format!("let sessions of {second:?} act as {admin:?}"), format!("add {second:?} to role {admin:?}")];
    assert_eq!(changes, expected);

    // The former one is locked, and its sessions go on; then it is the other way round.
    let mut open = first.connect().await.unwrap();
    let mut session = world.server.maintenance().await.unwrap();
    let logins = [admin.clone(), second.clone()];
    assert_eq!(logged_in(&mut session, &logins).await.unwrap(), [admin.as_str()]);
    tenant.desired.logins.insert(ADMIN, Logins { in_use: Side::B, both: false });
    assert_eq!(tenant.repair().await, [format!("alter role {admin:?}: NOLOGIN")]);
    assert_eq!(sqlstate(first.connect().await.map(drop)), "28000");
    run(&mut open, "CREATE TABLE later ()").await.unwrap();
    run(&mut options.connect().await.unwrap(), "DROP TABLE later").await.unwrap();
    tenant.desired.logins.insert(ADMIN, Logins { in_use: Side::A, both: true });
    assert_eq!(tenant.repair().await, [format!("alter role {admin:?}: LOGIN")]);
    first.connect().await.unwrap();
    tenant.desired.logins.clear();
    assert_eq!(tenant.repair().await, [format!("alter role {second:?}: NOLOGIN")]);
    assert_eq!(sqlstate(options.connect().await.map(drop)), "28000");
    drop((root, open, session));
    tenant.drop().await;
}

async fn a_database_is_adopted(major: u32) {
    let world = World::of_major(major).await;
    let mut tenant = world.tenant();
    let (d, admin, owner) = (tenant.database(), tenant.role(ADMIN), unique("owner"));
    world.sql("postgres", &format!("CREATE ROLE \"{owner}\" LOGIN PASSWORD 'x'")).await;
    world.sql("postgres", &format!("CREATE DATABASE \"{d}\" OWNER \"{owner}\"")).await;
    let table = "CREATE TABLE t (id serial PRIMARY KEY, g int GENERATED ALWAYS AS IDENTITY); CREATE VIEW v AS SELECT 1 AS one; \
                 CREATE SEQUENCE s; CREATE TABLE \"odd \"\" name\" (); INSERT INTO t DEFAULT VALUES";
    let by_owner = format!("GRANT CREATE ON SCHEMA public TO \"{owner}\"; SET ROLE \"{owner}\"; {table}");
    world.sql(&d, &by_owner).await;

    let refusal = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap_err();
    assert!(matches!(&refusal, Refusal::Occupied { owner: found, .. } if found.contains(&owner)), "{refusal}");
    // Whoever asks for a removal gets nothing removed.
    let removal = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap();
    assert!(removal.is_empty() && removal.beyond.len() == 1, "{removal:?}");

    tenant.desired.adopt = true;
    if major >= 16 {
        // CREATEROLE alone no longer reaches a role that a superuser made.
        let refusal = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap_err();
        let Refusal::NeedsSuperuser { sql, .. } = refusal else { panic!("{refusal}") };
        world.sql("postgres", &sql).await;
        world.sql("postgres", &format!("GRANT \"{owner}\" TO pgtenant")).await;
    }
    // From outside first, then what was not to be seen before.
    let first = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    tenant.apply(&first).await.unwrap();
    tenant.repair().await;

    tenant
        .sql(WRITE, "INSERT INTO t DEFAULT VALUES; SELECT nextval('s'); INSERT INTO \"odd \"\" name\" DEFAULT VALUES")
        .await
        .unwrap();
    tenant.sql(READ, "SELECT id FROM t; SELECT one FROM v").await.unwrap();
    tenant.sql(ADMIN, "ALTER TABLE t ADD x int; DROP VIEW v").await.unwrap();
    let mut root = world.root(&d).await;
    let owned: i64 = value(
        &mut root,
        &format!("SELECT count(*) FROM pg_class WHERE relowner = '\"{admin}\"'::regrole AND relkind IN ('r', 'S')"),
    )
    .await;
    assert_eq!(owned, 5);
    drop(root);
    tenant.desired.adopt = false;
    tenant.assert_settled().await;
    tenant.drop().await;
}

async fn a_drop_goes_on_from_anywhere(major: u32) {
    let world = World::of_major(major).await;
    let tenant = world.tenant();
    // After each step of the creation, and after each of the removal.
    for steps in 0..=3 {
        let mut plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
        assert_eq!(plan.batches.len(), 3);
        plan.batches.truncate(steps);
        tenant.apply(&plan).await.unwrap();
        tenant.drop().await;
    }
    for steps in 1..=2 {
        tenant.create().await;
        let session = sqlx::ConnectOptions::connect(&tenant.options(READ)).await.unwrap();
        loop {
            let mut plan = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap();
            plan.batches.truncate(steps);
            if tenant.apply(&plan).await.is_ok() {
                break;
            }
        }
        drop(session);
        tenant.drop().await;
    }
    // And made again from what a removal left.
    tenant.create().await;
    world.sql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", tenant.database())).await;
    tenant.repair().await;
    tenant.sql(ADMIN, "CREATE TABLE t ()").await.unwrap();
    tenant.drop().await;
}

async fn no_tenant_keeps_anothers_roles_from_being_dropped(major: u32) {
    let world = World::of_major(major).await;
    let (hostile, tenant) = (world.tenant(), world.tenant());
    hostile.create().await;
    tenant.create().await;
    let roles = Tier::ALL.map(|tier| tenant.role(tier));
    let mut root = world.root(&hostile.database()).await;
    let numbers: Vec<String> = {
        let oids = roles.iter().map(|role| format!("'\"{role}\"'::regrole::oid"));
        let array = format!("SELECT ARRAY[{}]::text[]", oids.collect::<Vec<_>>().join(", "));
        value(&mut root, &array).await
    };
    let [read, write, admin] = &roles;
    let grants = format!(
        "CREATE TABLE t (); GRANT SELECT ON t TO \"{read}\"; CREATE POLICY p ON t TO \"{write}\"; \
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{admin}\""
    );
    hostile.sql(ADMIN, &grants).await.unwrap();
    // In the maintenance database, which may be open to all, by somebody whose grants the provisioner can not revoke.
    let table = unique("granted");
    world.sql("postgres", &format!("CREATE TABLE \"{table}\" (); GRANT SELECT ON \"{table}\" TO \"{read}\"")).await;
    let member = unique("member");
    run(
        &mut root,
        &format!("CREATE ROLE \"{member}\"; SET ROLE pgtenant; GRANT \"{read}\" TO \"{member}\"; RESET ROLE"),
    )
    .await
    .unwrap();

    let removal = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap();
    let shown = removal.report().iter().map(|change| format!("{} {}", change.text, change.sql)).collect::<String>();
    assert!(!shown.contains(&hostile.database()) && removal.beyond.is_empty(), "{shown}");
    tenant.drop().await;
    let left = |numbers: &[String]| {
        format!(
            "SELECT count(*) FROM pg_authid r WHERE oid = ANY ('{{{}}}') AND NOT rolcanlogin AND rolpassword IS NULL \
             AND rolname = 'pgtenant_dropped_' || oid AND shobj_description(oid, 'pg_authid') LIKE 'pgtenant: dropped%' \
             AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND NOT m.admin_option)",
            numbers.join(",")
        )
    };
    assert_eq!(value::<i64>(&mut root, &left(&numbers)).await, 3);

    // The names are free, and the new roles have nothing of what the old ones had.
    tenant.create().await;
    assert_eq!(sqlstate(hostile.sql(READ, &format!("SET ROLE \"{read}\"")).await), "42501");
    tenant.drop().await;

    let mut session = world.server.maintenance().await.unwrap();
    let names: Vec<_> = numbers.iter().map(|number| format!("pgtenant_dropped_{number}")).collect();
    let swept = drop_roles_put_aside(&mut session).await.unwrap();
    assert!(names.iter().all(|name| !swept.contains(name)), "{swept:?}");
    world.sql("postgres", &format!("DROP TABLE \"{table}\"")).await;
    drop(root);
    hostile.drop().await;
    let swept = drop_roles_put_aside(&mut session).await.unwrap();
    let mut root = world.root("postgres").await;
    assert_eq!(value::<i64>(&mut root, &left(&numbers)).await, 0, "{swept:?}");
    world.sql("postgres", &format!("DROP ROLE \"{member}\"")).await;
}

async fn another_login_of_the_provisioner_goes_on(major: u32) {
    let world = World::of_major(major).await;
    let made = world.tenant();
    made.create().await;
    let second = world.as_login("prov_b");
    let mut tenant = second.tenant_of(made.desired.key.clone());
    tenant.passwords = made.passwords.clone();
    tenant.assert_settled().await;
    tenant.desired.connection_limit = Some(3);
    tenant.desired.schemas = vec!["reporting".into()];
    assert_eq!(tenant.repair().await.iter().filter(|change| change.contains("CONNECTION LIMIT 3")).count(), 3);
    tenant.sql(ADMIN, "CREATE TABLE reporting.t ()").await.unwrap();
    // What is taken out of the claim stays in the database.
    tenant.desired.schemas.clear();
    tenant.assert_settled().await;
    tenant.sql(READ, "SELECT FROM reporting.t").await.unwrap();
    tenant.drop().await;
}
