//! Tenants who mean harm, or only do odd things.

use std::time::{Duration, Instant};

use pgtenant_model::Tier;
use pgtenant_postgres::{Change, ErrorClass, plan_drop};
use pgtenant_testkit::unique;

use crate::world::{World, run, value};

const ADMIN: Tier = Tier::Admin;
const READ: Tier = Tier::Read;
const WRITE: Tier = Tier::Write;

#[tokio::test]
async fn names_of_any_kind_are_only_names() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let names = [
        "a\"; DROP SCHEMA public CASCADE; --",
        "a'b\\c",
        "$fence$ END $fence$",
        "new\nline\ttab",
        "ein Ümläut 🐘",
        "select",
        "PUBLIC",
        "pg_temp",
        "%s %I {0}",
        &"x".repeat(63),
    ];
    let mut sql = String::new();
    for name in names {
        let name = name.replace('"', "\"\"");
        sql += &format!("CREATE TABLE \"{name}\" (id serial); CREATE VIEW \"v {}\" AS SELECT 1; ", &name[..1]);
        sql = sql.replace("CREATE VIEW", "CREATE OR REPLACE VIEW");
    }
    tenant.sql(ADMIN, &sql).await.unwrap();
    let (read, write) = (tenant.role(READ), tenant.role(WRITE));
    tenant
        .sql(ADMIN, &format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM \"{read}\", \"{write}\"; REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM \"{write}\""))
        .await
        .unwrap();
    tenant.repair().await;
    for name in names {
        let name = name.replace('"', "\"\"");
        tenant.sql(WRITE, &format!("INSERT INTO public.\"{name}\" DEFAULT VALUES")).await.unwrap();
        tenant.sql(READ, &format!("SELECT FROM public.\"{name}\"")).await.unwrap();
    }
}

#[tokio::test]
async fn settings_and_lookalikes_of_a_tenant_change_nothing() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let admin = tenant.role(ADMIN);
    // Would be called by any query that trusted the search path.
    tenant
        .sql(
            ADMIN,
            &format!(
                "CREATE FUNCTION public.trap() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$; \
                 CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT public.trap()::text $$; \
                 CREATE FUNCTION public.has_table_privilege(oid, oid, text) RETURNS bool LANGUAGE sql AS 'SELECT public.trap()'; \
                 CREATE VIEW public.pg_roles AS SELECT public.trap(); CREATE TABLE public.pg_class (); \
                 ALTER ROLE \"{admin}\" SET search_path = public, pg_catalog; \
                 ALTER ROLE \"{admin}\" SET statement_timeout = 1; ALTER ROLE \"{admin}\" SET default_transaction_read_only = on; \
                 ALTER ROLE \"{admin}\" SET row_security = off; ALTER ROLE \"{admin}\" SET client_encoding = 'LATIN1'"
            ),
        )
        .await
        .unwrap();
    // The same documents, through the tenant's own login.
    let observed = tenant.observe().await;
    let mut session = world.server.prove(&tenant.database(), &admin, &tenant.passwords[&ADMIN]).await.unwrap();
    let inside = pgtenant_postgres::observe_inside(&mut session, &tenant.desired, "pgtenant").await.unwrap();
    assert_eq!(Some(inside), observed.inside);
    drop(session);
    tenant.assert_settled().await;
}

#[tokio::test]
async fn what_a_tenant_may_do_is_left_alone() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let (admin, read, write) = (tenant.role(ADMIN), tenant.role(READ), tenant.role(WRITE));
    tenant
        .sql(
            ADMIN,
            &format!(
                "CREATE SCHEMA own; CREATE TABLE own.t (); CREATE EXTENSION pg_trgm SCHEMA own; \
                 CREATE TABLE t (); GRANT REFERENCES, TRIGGER ON t TO \"{write}\"; GRANT INSERT ON t TO \"{read}\"; \
                 ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT SELECT ON TABLES TO \"{read}\"; \
                 ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO \"{read}\"; \
                 GRANT USAGE ON SCHEMA own TO \"{read}\"; ALTER ROLE \"{admin}\" SET work_mem = '8MB'; \
                 COMMENT ON SCHEMA public IS 'ours'"
            ),
        )
        .await
        .unwrap();
    tenant.assert_settled().await;
}

#[tokio::test]
async fn a_schema_that_was_dropped_is_made_again() {
    let world = World::new().await;
    let mut tenant = world.tenant();
    tenant.desired.schemas = vec!["reporting".into()];
    tenant.create().await;
    // What migration tools do to begin anew.
    tenant
        .sql(ADMIN, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA reporting; CREATE TABLE public.t ()")
        .await
        .unwrap();
    tenant.repair().await;
    tenant.sql(ADMIN, "CREATE TABLE reporting.t (); CREATE TABLE later ()").await.unwrap();
    tenant.sql(READ, "SELECT FROM t; SELECT FROM later; SELECT FROM reporting.t").await.unwrap();
    tenant.sql(ADMIN, "DROP SCHEMA public CASCADE").await.unwrap();
    tenant.repair().await;
}

#[tokio::test]
async fn an_extension_is_made_without_the_provisioners_privileges() {
    let world = World::new().await;
    let mut tenant = world.tenant();
    tenant.create().await;
    tenant.desired.extensions = vec!["file_fdw".into(), "hstore".into()];
    let plan = tenant.plan().await.unwrap();
    // Not trusted: a superuser has to make it. The other is made all the same.
    let error = tenant.apply(&plan).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Refused, "{error}");
    assert!(error.to_string().contains("CREATE EXTENSION IF NOT EXISTS \"file_fdw\""), "{error}");
    let left: Vec<_> = tenant.plan().await.unwrap().changes().map(Change::text).collect();
    assert!(
        left.contains(&"create extension \"file_fdw\"".to_owned()) && !left.concat().contains("hstore"),
        "{left:?}"
    );
    world.sql(&tenant.database(), "CREATE EXTENSION file_fdw SCHEMA public").await;
    tenant.repair().await;
    let mut root = world.root(&tenant.database()).await;
    let owner: String =
        value(&mut root, "SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'hstore'").await;
    assert_eq!(owner, format!("\"{}\"", tenant.role(ADMIN)));
}

#[tokio::test]
async fn many_relations_are_granted_in_parts() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let write = tenant.role(WRITE);
    tenant
        .sql(
            ADMIN,
            &format!(
                "DO $$ BEGIN FOR i IN 1..450 LOOP EXECUTE format('CREATE TABLE t%s ()', i); END LOOP; END $$; \
                 REVOKE ALL ON ALL TABLES IN SCHEMA public FROM \"{write}\""
            ),
        )
        .await
        .unwrap();
    let plan = tenant.plan().await.unwrap();
    assert_eq!(plan.batches.len(), 3);
    // Words count them; the statements of the report, which events carry too, name each.
    let report = plan.report();
    let sql: String = report.iter().map(|change| change.sql.as_str()).collect();
    assert!((1..=450).all(|i| sql.contains(&format!("\"public\".\"t{i}\""))), "{sql}");
    assert!(report.iter().any(|change| change.text.contains("and 199 more")), "{report:?}");
    tenant.apply(&plan).await.unwrap();
    tenant.assert_settled().await;
}

#[tokio::test]
async fn sessions_of_every_tier_are_ended_by_a_drop() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let mut open = Vec::new();
    for tier in Tier::ALL {
        open.push(sqlx::ConnectOptions::connect(&tenant.options(tier)).await.unwrap());
    }
    // In a transaction, with a lock, and with temporary tables.
    run(&mut open[2], "CREATE TABLE t (); BEGIN; LOCK t; CREATE TEMPORARY TABLE x ()").await.unwrap();
    tenant.drop().await;
    for session in &mut open {
        assert!(run(session, "SELECT").await.is_err());
    }
}

#[tokio::test]
async fn an_autovacuum_that_takes_hours_does_not_hold_up_a_drop() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let slow = "CREATE TABLE slow (n int) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
                INSERT INTO slow SELECT generate_series(1, 100000); DELETE FROM slow";
    tenant.sql(ADMIN, slow).await.unwrap();
    let mut root = world.root("postgres").await;
    run(&mut root, "ALTER SYSTEM SET autovacuum_naptime = '1s'").await.unwrap();
    run(&mut root, "SELECT pg_reload_conf()").await.unwrap();
    let workers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND backend_type = 'autovacuum worker'",
        tenant.database()
    );
    let begun = Instant::now();
    while value::<i64>(&mut root, &workers).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no autovacuum comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tenant.drop().await;
    run(&mut root, "ALTER SYSTEM RESET autovacuum_naptime").await.unwrap();
    run(&mut root, "SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn what_a_role_has_elsewhere_is_dropped_where_that_can_be() {
    let world = World::new().await;
    let (tenant, other) = (world.tenant(), world.tenant());
    let (admin, read) = (tenant.role(ADMIN), tenant.role(READ));
    tenant.create().await;
    let schema = unique("theirs");
    world.sql("postgres", &format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{admin}\"")).await;
    tenant.drop().await;

    // What only a superuser gives, only a superuser takes away.
    other.create().await;
    tenant.create().await;
    world.sql(&other.database(), &format!("CREATE SCHEMA theirs AUTHORIZATION \"{read}\"")).await;
    let refusal = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap_err();
    let statements = format!("\\connect \"{}\"; DROP OWNED BY", other.database());
    assert!(refusal.to_string().contains(&statements), "{refusal}");
}
