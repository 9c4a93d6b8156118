//! PgBouncer in front of a cluster, in transaction mode: with the settings that the documents give, on real parts.

use std::fs;
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use pgtenant_tests::{
    Cli, Credential, Own, PgBouncer, SiteOptions, can, connect, eventually, free_port, rows, soon, superuser_sql,
    try_sql,
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::shared::Plane;
use crate::shop::Shop;

const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: [&str; 3] = ["poolEndpoint", "poolPort", "poolUri"];

/// A cluster, a control plane that knows its PgBouncer, and that.
pub(crate) struct Pooled {
    pub(crate) shop: Shop,
    pub(crate) bouncer: PgBouncer,
    pub(crate) own: Own,
    port: u16,
}

impl Pooled {
    /// `changes` are settings of PgBouncer that differ from the documents', `cluster` further lines of the cluster's.
    pub(crate) async fn open(changes: &[(&str, &str)], cluster: &str) -> Self {
        Self::before(Own::start(false, &[]).await, changes, cluster).await
    }

    pub(crate) async fn before(own: Own, changes: &[(&str, &str)], cluster: &str) -> Self {
        let port = free_port();
        let bouncer = PgBouncer::start(&own.cluster, port, changes).await;
        let cluster = format!("pgbouncer = {{ host = \"localhost\", port = {port} }}\n{cluster}");
        let options = SiteOptions { cluster, backups: true, ..SiteOptions::on(own.place()).await };
        Self { shop: Shop::of(Plane::start(options).await), bouncer, own, port }
    }

    fn document(&self, tier: &str) -> Value {
        let file = Credential::file(&self.shop.plane.site.secrets, &self.shop.namespace, "data", tier);
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    /// The credential of `data` as it is good at PgBouncer, from what is stored.
    pub(crate) fn pooled(&self, tier: &str) -> Credential {
        Credential::pooled(&self.shop.plane.site.secrets, &self.shop.namespace, "data", tier)
    }

    /// Any login, at PgBouncer.
    fn at_pool(&self, direct: &Credential) -> Credential {
        Credential { port: self.port, ..direct.clone() }
    }

    /// The first column of a query of a superuser.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        rows(&self.own.cluster.superuser(), None, sql).await
    }

    /// Server sessions of a login.
    pub(crate) async fn sessions(&self, login: &str) -> usize {
        let sql = format!("select count(*)::text from pg_stat_activity where usename = '{login}'");
        self.rows(&sql).await[0].parse().unwrap()
    }
}

/// The answer of psql with a stored URI, as a person uses it.
fn psql(uri: &str, ca: &str, sql: &str) -> Result<String, String> {
    let mut command = Command::new("psql");
    let done = command.env("PGSSLROOTCERT", ca).args([uri, "--no-psqlrc", "-Atc", sql]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// Whether PgBouncer lets nobody in with it, and says only that: `Err` has what it did instead.
async fn is_refused(credential: &Credential) -> Result<(), String> {
    let error = match connect(credential).await {
        Ok(_) => return Err("it was let in".to_owned()),
        Err(error) => error,
    };
    let said = error.as_database_error().map(|error| error.message().to_owned());
    match said.as_deref() {
        // PgBouncer tells which of the two it is; names are no secret.
        Some("SASL authentication failed" | "no such user") => Ok(()),
        _ => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_has_the_poolers_address_and_it_works() {
    let pooled = Pooled::open(&[], "").await;
    pooled.shop.stock("data").await;
    let (read, write) = (pooled.pooled("read"), pooled.pooled("write"));
    let direct = pooled.shop.credential("data", "write");
    assert_eq!(write.uri, direct.uri.replace(&format!(":{}/", direct.port), &format!(":{}/", pooled.port)));
    let admin = pooled.document("admin");
    assert_eq!(KEYS.map(|key| admin.get(key)), [None; 3], "migrations need a session");

    // What is stored is enough, and both sides are TLS.
    let ca = pooled.own.cluster.ca_file().display().to_string();
    let psql = |uri: &str, sql: &str| psql(uri, &ca, sql);
    assert_eq!(psql(&read.uri, "select count(*) from orders"), Ok("500".to_owned()));
    let inserted = psql(&write.uri, "insert into orders (item) values ('pooled') returning item");
    assert!(inserted.as_deref().is_ok_and(|said| said.starts_with("pooled")), "{inserted:?}");
    let own =
        "select usename || ' ' || ssl from pg_stat_ssl join pg_stat_activity using (pid) where pid = pg_backend_pid()";
    assert_eq!(psql(&write.uri, own), Ok(format!("{} true", write.username)));
    let clear = psql(&write.uri.replace("sslmode=verify-full", "sslmode=disable"), "select 1").unwrap_err();
    assert!(clear.contains("SSL required"), "{clear}");
    let stranger = psql(&write.uri.replace("@localhost:", "@127.0.0.2:"), "select 1").unwrap_err();
    assert!(!stranger.is_empty(), "a name that its certificate does not have");

    // A tier may what it may.
    assert_eq!(try_sql(&read, "delete from orders").await, Err("42501".to_owned()));
    can(&write, "begin; update orders set item = 'x' where id = 1; commit").await;
    let wrong = Credential { password: "wrong".to_owned(), ..write.clone() };
    assert_eq!(is_refused(&wrong).await, Ok(()), "a wrong password");

    // A look puts right what somebody has changed, under the same password.
    let file = Credential::file(&pooled.shop.plane.site.secrets, &pooled.shop.namespace, "data", "write");
    let evil =
        fs::read_to_string(&file).unwrap().replace("\"poolEndpoint\": \"localhost\"", "\"poolEndpoint\": \"evil\"");
    fs::write(&file, evil).unwrap();
    soon("the document is as it was", || async {
        if pooled.pooled("write") == write { Ok(()) } else { Err(pooled.document("write")["poolEndpoint"].to_string()) }
    })
    .await;
    let shown = Cli::of(&pooled.shop.plane.serve.url, &pooled.shop.plane.site.token)
        .run(&["cluster", "get", "default"])
        .await
        .expect(0);
    assert!(shown.stdout.contains(&format!("localhost:{}", pooled.port)), "{}", shown.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_share_connections_and_prepared_statements() {
    const POOL: usize = 2;
    const CLIENTS: usize = 12;
    let pooled = Pooled::open(&[("default_pool_size", &POOL.to_string())], "").await;
    pooled.shop.stock("data").await;
    let write = pooled.pooled("write");
    let mut clients: Vec<PgConnection> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(&write).await.unwrap());
    }
    // sqlx prepares every statement, once for a connection of the client's.
    let work = clients.iter_mut().enumerate().map(async |(number, client)| {
        for round in 0_i64..20 {
            let mut transaction = client.begin().await?;
            let insert = "insert into orders (item) values ($1) returning pg_backend_pid()";
            let pid: i32 = sqlx::query_scalar(insert).bind(format!("{number}")).fetch_one(&mut *transaction).await?;
            let same = "select pg_backend_pid() = $1 and count(*) > $2 from orders";
            let same: bool = sqlx::query_scalar(same).bind(pid).bind(round).fetch_one(&mut *transaction).await?;
            assert!(same, "a transaction is on one connection");
            transaction.commit().await?;
        }
        Ok::<_, sqlx::Error>(())
    });
    for result in join_all(work).await {
        result.unwrap();
    }
    let sessions = pooled.sessions(&write.username).await;
    assert!((1..=POOL).contains(&sessions), "{CLIENTS} clients are connected on {sessions} connections");
    for client in &mut clients {
        let done: i64 =
            sqlx::query_scalar("select count(*) from orders where item ~ '^[0-9]+$'").fetch_one(client).await.unwrap();
        assert_eq!(done, 240);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_refuses_nobody_and_the_former_password_ends() {
    let changes = [("server_idle_timeout", "1")];
    let pooled = Pooled::open(&changes, "rotateOverlap = \"3s\"\nrotateGrace = \"1h\"").await;
    pooled.shop.stock("data").await;
    let former = pooled.pooled("write");
    let mut session = connect(&former).await.unwrap();
    let one = "select 1";
    sqlx::query(one).execute(&mut session).await.unwrap();
    let rotate = format!("{}/credentials/rotate", pooled.shop.path("data"));
    pooled.shop.api().ask(&rotate).await.expect(202);
    let new = eventually("there is a new credential", PATIENCE, || async {
        let now = pooled.pooled("write");
        if now.password == former.password { Err("the former one".to_owned()) } else { Ok(now) }
    })
    .await;
    assert_ne!(new.username, former.username);
    can(&new, "insert into orders (item) values ('new')").await;
    // Whoever has connected with the former one goes on, and so does who has read it a moment ago.
    sqlx::query(one).execute(&mut session).await.unwrap();

    // It ends by itself: PgBouncer keeps no connection of it that nobody uses, so that it is locked, and asks again at each login.
    session.close().await.ok();
    let locked = format!("select (not rolcanlogin)::text from pg_roles where rolname = '{}'", former.username);
    eventually("the former login is locked", PATIENCE, || async {
        if pooled.rows(&locked).await == ["true"] { Ok(()) } else { Err("it is open".to_owned()) }
    })
    .await;
    assert_eq!(is_refused(&former).await, Ok(()));
    can(&new, "insert into orders (item) values ('after')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_and_a_removal_go_through_with_clients_connected() {
    let pooled = Pooled::open(&[], "").await;
    let shop = &pooled.shop;
    shop.stock("data").await;
    shop.dump("data").await;
    let write = pooled.pooled("write");
    let mut session = connect(&write).await.unwrap();
    sqlx::query("delete from orders where id > 10 and not exists (select from lines where order_id = id)")
        .execute(&mut session)
        .await
        .unwrap();
    sqlx::query("delete from lines").execute(&mut session).await.unwrap();

    let done = shop.restored("data", json!({"from": {"latest": true}, "reason": "a mistake"})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    // The client of before is still connected. The server's connections of then were ended: none of the database that was put aside is
    // lent to it.
    let count = "select count(*) from lines";
    let lines: i64 = sqlx::query_scalar(count).fetch_one(&mut session).await.unwrap();
    assert_eq!(lines, 500, "the database that came back");
    can(&write, "insert into lines select 1, 1").await;
    assert_eq!(shop.count("data", "lines").await, Ok(501));

    // With the client still there: its connections are ended, the database is dropped, and nobody comes in.
    shop.api().delete(&shop.path("data")).await.expect(202);
    shop.api().is_gone(&shop.namespace, "data").await;
    sqlx::query(count).execute(&mut session).await.unwrap_err();
    assert_eq!(is_refused(&write).await, Ok(()));
    let left = pooled.rows(&format!("select datname from pg_database where datname like '{}%'", shop.namespace)).await;
    assert_eq!(left, [""; 0]);

    // The next claim of that name is another database with other passwords, through the same PgBouncer.
    shop.stock("data").await;
    let again = pooled.pooled("write");
    assert_ne!(again.password, write.password);
    // A login that a server has refused is not tried again for each client: the first one of the new claim may be told so.
    soon("the new claim's login works", || async {
        let mut session = connect(&again).await.map_err(|error| error.to_string())?;
        let insert = sqlx::query("insert into orders (item) values ('again')").execute(&mut session);
        insert.await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(is_refused(&write).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_connected_through_a_failover() {
    // What was committed is on the standby too.
    let synchronous = [("synchronous_standby_names", "*"), ("synchronous_commit", "remote_apply")];
    let mut pooled = Pooled::before(Own::start(true, &synchronous).await, &[], "").await;
    pooled.shop.stock("data").await;
    let write = pooled.pooled("write");
    let mut session = connect(&write).await.unwrap();
    let insert = "insert into orders (item) values ('x')";
    sqlx::query(insert).execute(&mut session).await.unwrap();
    let first = pooled.own.cluster.primary().port();
    pooled.own.cluster.promote_standby().await.unwrap();
    // Nobody is left for a commit to wait for.
    superuser_sql(&pooled.own.cluster.superuser(), None, "alter system set synchronous_standby_names = ''").await;
    superuser_sql(&pooled.own.cluster.superuser(), None, "select pg_reload_conf()").await;

    // It waits for the new primary's address, which comes meanwhile, and is never told that there was another one.
    let waits = async { sqlx::query(insert).execute(&mut session).await.map(drop).map_err(|error| error.to_string()) };
    let second = pooled.own.cluster.primary().port();
    assert_ne!(first, second);
    let comes = async { pooled.bouncer.change(("*", &format!("host=localhost port={second}"))) };
    let (went_on, ()) = futures::future::join(waits, comes).await;
    assert_eq!(went_on, Ok(()));
    let there = |db: &Value| db["state"] == "Ready" && db["endpoint"]["port"] == second;
    pooled.shop.api().comes_to(&pooled.shop.namespace, "data", "Ready on the new primary", there).await;
    assert_eq!(pooled.pooled("write").uri, write.uri, "the pooler's address is the same");
    can(&write, insert).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_more_through_the_pooler_than_is_theirs() {
    let mut pooled = Pooled::open(&[], "").await;
    let shop = &pooled.shop;
    shop.stock("data").await;
    shop.api().ready("victim", "data").await;
    let victim = Credential::read(&shop.plane.site.secrets, "victim", "data", "write");
    let (write, admin) = (pooled.pooled("write"), shop.credential("data", "admin"));
    can(&write, "select 1").await;

    // Those whom PgBouncer does not serve, each with the right password.
    let superuser = pooled.own.cluster.superuser();
    let word = secrecy::ExposeSecret::expose_secret(pooled.own.cluster.superuser_password()).to_owned();
    let login = |username: &str, password: &str| Credential {
        username: username.to_owned(),
        password: password.to_owned(),
        ..pooled.at_pool(&admin)
    };
    let site = &shop.plane.site;
    for (who, outsider) in [
        ("admin", login(&admin.username, &admin.password)),
        ("superuser", login(superuser.get_username(), &word)),
        ("provisioner", login(&site.provisioner, &site.provisioner_password)),
        ("nobody", login("nobody", "x")),
    ] {
        assert_eq!(is_refused(&outsider).await, Ok(()), "{who}");
    }

    // A tenant is let into its own database alone, and never to where the function is or to PgBouncer's console.
    for database in [victim.database.as_str(), "pgtenant_pgbouncer", "pgbouncer"] {
        for door in [write.clone(), shop.credential("data", "write"), admin.clone()] {
            let there = Credential { database: database.to_owned(), ..door };
            let refused = try_sql(&there, "select 1").await;
            assert!(refused.is_err(), "{} at {} in {database}", there.username, there.port);
        }
    }
    let lookup = "select * from pgbouncer.user_lookup('x')";
    assert_eq!(try_sql(&write, lookup).await, Err("3F000".to_owned()), "there is no such schema");
    // Nor can it make itself another login, or say so of itself.
    for sql in [
        "create role \"victim-data-write-b\" login password 'x'",
        "comment on role \"victim-data-write\" is 'x'",
        &format!("comment on role \"{}\" is 'pgtenant: victim/data write'", admin.username),
        "select rolpassword from pg_authid",
    ] {
        assert_eq!(try_sql(&admin, sql).await, Err("42501".to_owned()), "{sql}");
    }
    // A schema or a function of a tenant's that is called like PgBouncer's is not what PgBouncer asks.
    can(
        &admin,
        "create schema pgbouncer; create function pgbouncer.user_lookup(text) returns table (uname text, phash text)
         language sql as $$ select 'postgres', 'md5' $$",
    )
    .await;
    assert_eq!(is_refused(&login("postgres", "x")).await, Ok(()));
    let stays = PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .port(pooled.port)
        .username(&write.username)
        .password(&write.password)
        .database(&write.database)
        .ssl_mode(sqlx::postgres::PgSslMode::Require)
        .options([("search_path", "pgbouncer,public")]);
    let refused = stays.connect().await.map(drop).map_err(|error| error.to_string());
    assert!(refused.is_err(), "a search_path at login is not taken");

    // PgBouncer's own login has the function and nothing else.
    let bouncer = Credential {
        username: "pgbouncer".to_owned(),
        password: secrecy::ExposeSecret::expose_secret(&pooled.bouncer.password).to_owned(),
        database: "pgtenant_pgbouncer".to_owned(),
        ..admin.clone()
    };
    can(&bouncer, lookup).await;
    for sql in ["select * from pg_authid", "create table public.x ()", "create temporary table x ()", "create schema x"]
    {
        assert_eq!(try_sql(&bouncer, sql).await, Err("42501".to_owned()), "{sql}");
    }
    let inside = Credential { database: victim.database.clone(), ..bouncer };
    assert_eq!(try_sql(&inside, "select 1").await, Err("42501".to_owned()));

    // What a database administrator lets expire is refused at the next login; the control plane would put it back.
    pooled.shop.plane.serve.stop().await;
    let login = &write.username;
    superuser_sql(&superuser, None, &format!("alter role \"{login}\" valid until '2020-01-01'")).await;
    assert_eq!(is_refused(&write).await, Ok(()));
}
