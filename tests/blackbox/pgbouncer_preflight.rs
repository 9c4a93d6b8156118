//! What `cluster preflight` says of PgBouncer, and of each way in which it can be set up wrongly.

use pgtenant_tests::{soon, superuser_sql};

use crate::pgbouncer::Pooled;
use crate::preflight::Tried;

/// Tries until a check is like that: PgBouncer takes up changes within a moment, and notices later what became of connections.
async fn becomes(pooled: &Pooled, what: &str, check: &str, result: &str, part: &str) {
    let api = pooled.shop.api();
    soon(what, || async {
        let tried = Tried::now(&api).await;
        if tried.has(check, result, part) { Ok(()) } else { Err(format!("{tried:#?}")) }
    })
    .await;
}

async fn is_well(pooled: &Pooled) {
    becomes(pooled, "it is well again", "pgbouncer login", "Passed", "two clients of it shared a connection").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_tried_as_tenants_come_to_it() {
    let pooled = Pooled::open(&[], "").await;
    let tried = Tried::now(&pooled.shop.api()).await;
    tried.all_passed(&["pgbouncer", "pgbouncer lookup", "pgbouncer login"]);
    assert!(tried.of("pgbouncer login").1.contains("no claim is ready"), "{tried:#?}");
    pooled.shop.stock("data").await;
    is_well(&pooled).await;
    let tried = Tried::now(&pooled.shop.api()).await;
    tried.all_passed(&["pgbouncer", "pgbouncer lookup", "pgbouncer login"]);
    assert!(tried.of("pgbouncer").1.ends_with("answers, with a certificate of that name"), "{tried:#?}");

    let login = "pgbouncer login";
    pooled.bouncer.change(("pool_mode", "session"));
    becomes(&pooled, "sessions are kept", login, "Warning", "set pool_mode = transaction").await;
    pooled.bouncer.change(("pool_mode", "statement"));
    becomes(&pooled, "transactions are refused", login, "Failed", "set pool_mode = transaction").await;
    pooled.bouncer.change(("pool_mode", "transaction"));
    is_well(&pooled).await;

    pooled.bouncer.change(("client_tls_sslmode", "allow"));
    becomes(&pooled, "clear text is told of", "pgbouncer", "Warning", "set client_tls_sslmode = require").await;
    pooled.bouncer.change(("client_tls_sslmode", "require"));
    pooled.bouncer.change(("server_tls_sslmode", "disable"));
    // Those that it has stay; the servers' pg_hba.conf lets no new one in.
    superuser_sql(
        &pooled.own.cluster.superuser(),
        None,
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pgbouncer' or usename like '%-read'",
    )
    .await;
    becomes(&pooled, "the servers refuse it", "pgbouncer", "Failed", "PgBouncer can not ask the servers").await;
    pooled.bouncer.change(("server_tls_sslmode", "verify-full"));
    is_well(&pooled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_looks_up_nobody_or_everybody_is_told_of() {
    let mut pooled = Pooled::open(&[], "").await;
    pooled.shop.stock("data").await;
    is_well(&pooled).await;
    let superuser = pooled.own.cluster.superuser();
    let lookup = Some("pgtenant_pgbouncer");

    superuser_sql(&superuser, lookup, "alter function pgbouncer.user_lookup(text) rename to gone").await;
    becomes(&pooled, "the function is gone", "pgbouncer", "Failed", "cluster bootstrap --pgbouncer-login").await;
    let wide = "create function pgbouncer.user_lookup(i_username text) returns table (uname text, phash text) language sql security definer
        as $$ select rolname::text, rolpassword from pg_authid where rolname = i_username $$";
    superuser_sql(&superuser, lookup, wide).await;
    becomes(&pooled, "it tells of everybody", "pgbouncer lookup", "Warning", "which is no tenant's").await;
    superuser_sql(
        &superuser,
        lookup,
        "drop function pgbouncer.user_lookup(text); alter function pgbouncer.gone(text) rename to user_lookup",
    )
    .await;
    is_well(&pooled).await;
    superuser_sql(&superuser, lookup, "create or replace function pgbouncer.user_lookup(i_username text) returns table (uname text, phash text) language sql
        as $$ select null::text, null::text where false $$").await;
    becomes(&pooled, "it tells of nobody", "pgbouncer login", "Failed", "is not told of a login that is there").await;

    pooled.bouncer.change_certificate();
    becomes(&pooled, "a stranger's certificate", "pgbouncer", "Failed", "it takes a certificate of the cluster's CA")
        .await;
    pooled.bouncer.kill();
    becomes(&pooled, "nobody listens", "pgbouncer", "Failed", "see whether PgBouncer runs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_asks_nobody_is_told_of() {
    let pooled = Pooled::open(&[("auth_user", "")], "").await;
    becomes(&pooled, "nobody is looked up", "pgbouncer lookup", "Failed", "so it looks nobody up").await;
}
