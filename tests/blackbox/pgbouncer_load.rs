//! What applications at PgBouncer see while their database is restored or moved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgtenant_tests::{
    Cli, Credential, Own, PgBouncer, SiteOptions, can, connect, eventually, free_port, measured, rows, superuser_sql,
};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::pgbouncer::Pooled;
use crate::shared::Plane;
use crate::shop::{PATIENCE, Shop};

/// Clients of the pool, more than it has connections.
const CLIENTS: usize = 12;
const TICKS: &str = "create table ticks (n bigint primary key)";
/// What a client writes.
const TICK: &str = "insert into ticks (n) values ($1)";

/// To those in the middle of something.
const CUT_OFF: [&str; 2] = ["terminating connection due to administrator command", "server connection closed"];
/// To those who come while nobody is let in; the first ones have the server's own words alone.
const CLOSED: [&str; 3] =
    ["is not currently accepting connections", "permission denied for database", "does not exist"];
const THE_END: &str = "the end";

/// Clients that write one row after the other with the credential that is stored, at the pool, and connect again when they were cut off.
struct Load {
    next: Arc<AtomicI64>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Rows that were acknowledged, with the time of that.
    written: Vec<(i64, Instant)>,
    /// What was said instead, and how often.
    errors: BTreeMap<String, usize>,
    connected: usize,
}

impl Load {
    fn start(secrets: &Path, namespace: &str) -> Self {
        // Two of them write different rows.
        let first = i64::from(rand::random::<u32>()) << 20;
        let (next, seen) = (Arc::new(AtomicI64::new(first)), Arc::new(Mutex::new(Seen::default())));
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (next, seen, stop) = (Arc::clone(&next), Arc::clone(&seen), Arc::clone(&stop));
            let (secrets, namespace): (PathBuf, String) = (secrets.to_owned(), namespace.to_owned());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let told = work(&secrets, &namespace, &next, &seen, &stop).await;
                    *seen.lock().unwrap().errors.entry(told).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        let tasks = (0..CLIENTS).map(client).collect();
        Self { next, seen, stop, tasks }
    }

    /// Waits until each client has written, begun from now on.
    async fn writes_more(&self) {
        let from = self.next.load(Ordering::SeqCst);
        eventually("applications write", PATIENCE, || async {
            let seen = self.seen.lock().unwrap();
            let since = seen.written.iter().filter(|(n, _)| *n > from).count();
            if since > CLIENTS * 5 { Ok(()) } else { Err(format!("{since}; {:#?}", seen.errors)) }
        })
        .await;
    }

    async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Until it is cut off; returns why.
async fn work(secrets: &Path, namespace: &str, next: &AtomicI64, seen: &Mutex<Seen>, stop: &AtomicBool) -> String {
    // While it is written anew it may be none.
    let credential = Credential::pooled(secrets, namespace, "data", "write");
    let mut db = match connect(&credential).await {
        Ok(db) => db,
        Err(error) => return format!("connect: {error}"),
    };
    seen.lock().unwrap().connected += 1;
    while !stop.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(error) = sqlx::query(TICK).bind(n).execute(&mut db).await {
            return error.to_string();
        }
        seen.lock().unwrap().written.push((n, Instant::now()));
    }
    THE_END.to_owned()
}

impl Seen {
    /// The longest time without a write.
    fn gap(&self) -> Duration {
        let mut times: Vec<Instant> = self.written.iter().map(|(_, at)| *at).collect();
        times.sort_unstable();
        times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }

    fn tell(&self, what: &str) {
        let written = self.written.len();
        measured(&format!(
            "{what}: the longest gap was {:?}, of {written} writes; {} logins, {:?}",
            self.gap(),
            self.connected,
            self.errors
        ));
    }

    /// Whoever tries once more is served: nothing else was said.
    fn was_only_told_to_try_again(&self) {
        let known = |error: &String| CUT_OFF.iter().chain(&CLOSED).any(|known| error.contains(known));
        assert!(self.errors.keys().all(|error| error == THE_END || known(error)), "{:#?}", self.errors);
    }

    /// Every row that was acknowledged after this is there.
    async fn is_kept_since(&self, at: Instant, direct: &Credential) {
        let mut db = connect(direct).await.unwrap();
        let there: Vec<i64> = sqlx::query_scalar("select n from ticks").fetch_all(&mut db).await.unwrap();
        let there: BTreeSet<i64> = there.into_iter().collect();
        let lost: Vec<i64> =
            self.written.iter().filter(|(n, when)| *when > at && !there.contains(n)).map(|(n, _)| *n).collect();
        assert_eq!(lost, [0_i64; 0], "acknowledged, and not there");
    }
}

impl Pooled {
    /// Databases of the namespace in which tenants' logins have sessions.
    async fn entered(&self) -> Vec<String> {
        let sql = format!(
            "select distinct datname::text from pg_stat_activity where starts_with(datname, '{0}-') and starts_with(usename, '{0}-')",
            self.shop.namespace
        );
        self.rows(&sql).await
    }
}

async fn lines(session: &mut PgConnection) -> Result<i64, String> {
    sqlx::query_scalar("select count(*) from lines").fetch_one(session).await.map_err(|error| error.to_string())
}

/// A database with a snapshot, and a mistake that was made after it.
async fn with_a_mistake(changes: &[(&str, &str)]) -> Pooled {
    let pooled = Pooled::open(changes, "").await;
    pooled.shop.stock("data").await;
    let admin = pooled.shop.credential("data", "admin");
    can(&admin, TICKS).await;
    pooled.shop.dump("data").await;
    can(&pooled.shop.credential("data", "write"), "delete from lines").await;
    pooled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_under_load_leads_everybody_to_what_came_back() {
    let pooled = with_a_mistake(&[]).await;
    let shop = &pooled.shop;
    let write = pooled.pooled("write");
    let mut idle = connect(&write).await.unwrap();
    assert_eq!(lines(&mut idle).await, Ok(0));
    let load = Load::start(&shop.plane.site.secrets, &shop.namespace);
    load.writes_more().await;
    let done = shop.restored("data", json!({"from": {"latest": true}, "reason": "a mistake"})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    let at = Instant::now();
    load.writes_more().await;
    assert_eq!(lines(&mut idle).await, Ok(500), "the one that stayed connected, and has prepared this before");
    assert_eq!(pooled.entered().await, [shop.database("data")], "nobody is where it was");
    let seen = load.stop().await;
    seen.tell("swap under load of the pool");
    seen.is_kept_since(at, &shop.credential("data", "write")).await;
    seen.was_only_told_to_try_again();

    // And back again.
    let load = Load::start(&shop.plane.site.secrets, &shop.namespace);
    load.writes_more().await;
    let undo = format!("/v1/restores/{}/undo", done["id"].as_str().unwrap());
    shop.api().ask(&undo).await.expect(200);
    eventually("it is undone", PATIENCE, || async {
        match shop.count("data", "lines").await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    load.writes_more().await;
    assert_eq!(lines(&mut idle).await, Ok(0));
    assert_eq!(pooled.entered().await, [shop.database("data")]);
    let seen = load.stop().await;
    seen.tell("undo under load of the pool");
    seen.was_only_told_to_try_again();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_under_load_lets_nobody_in_until_it_is_whole() {
    let mut pooled = with_a_mistake(&[]).await;
    pooled.shop.again("stalled", Some("stall=3s@after:emptied")).await;
    let shop = &pooled.shop;
    let write = pooled.pooled("write");
    let mut idle = connect(&write).await.unwrap();
    assert_eq!(lines(&mut idle).await, Ok(0));
    let mut silent = connect(&write).await.unwrap();
    assert_eq!(lines(&mut silent).await, Ok(0));
    let load = Load::start(&shop.plane.site.secrets, &shop.namespace);
    load.writes_more().await;
    let restore =
        shop.request("data", json!({"from": {"latest": true}, "strategy": "replace", "reason": "a mistake"})).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    assert_eq!(pooled.entered().await, [""; 0], "nobody is inside, and nothing comes back in");
    // Who asks meanwhile is told at once, in the server's words, and loses the connection.
    let told = lines(&mut idle).await.unwrap_err();
    assert!(told.contains("permission denied for database"), "{told}");
    lines(&mut idle).await.unwrap_err();
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    let at = Instant::now();
    load.writes_more().await;
    assert_eq!(lines(&mut silent).await, Ok(500), "who asks nothing meanwhile keeps its connection");
    let seen = load.stop().await;
    seen.tell("replace under load of the pool");
    seen.was_only_told_to_try_again();
    seen.is_kept_since(at, &shop.credential("data", "write")).await;
}

/// A cluster and the pooler in front of it.
async fn pooler() -> (Own, PgBouncer, u16) {
    let (own, port) = (Own::start(false, &[]).await, free_port());
    let bouncer = PgBouncer::start(&own.cluster, port, &[]).await;
    (own, bouncer, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_under_load_leads_everybody_to_the_other_clusters_pooler() {
    let (here, there) = tokio::join!(pooler(), pooler());
    let stores = |cluster: &str, port: u16| {
        let list =
            format!("[{{ file = {{ directory = \"DIR\" }} }}]\npgbouncer = {{ host = \"localhost\", port = {port} }}");
        (cluster.to_owned(), list)
    };
    let options = SiteOptions {
        clusters: vec![("default".to_owned(), here.0.place()), ("other".to_owned(), there.0.place())],
        stores: vec![stores("default", here.2), stores("other", there.2)],
        ..SiteOptions::shared().await
    };
    let shop = Shop::of(Plane::start(options).await);
    shop.stock("data").await;
    can(&shop.credential("data", "admin"), TICKS).await;
    let (secrets, namespace) = (shop.plane.site.secrets.clone(), shop.namespace.clone());
    let pooled = || Credential::pooled(&secrets, &namespace, "data", "write");
    let first = pooled();
    assert_eq!(first.port, here.2);
    let mut idle = connect(&first).await.unwrap();
    assert_eq!(lines(&mut idle).await, Ok(500));
    let mut silent = connect(&first).await.unwrap();
    assert_eq!(lines(&mut silent).await, Ok(500));
    let load = Load::start(&secrets, &namespace);
    load.writes_more().await;
    let began = Instant::now();
    let target = format!("{namespace}/data");
    let cli = || Cli::of(&shop.plane.serve.url, &shop.plane.site.token);
    let moved = async |to: &str| {
        let said = cli().run(&["cluster", "move", &target, "--to", to, "--yes"]).await.expect(0).stdout;
        assert!(said.contains(&format!("it is on {to}; nobody could connect for")), "{said}");
        measured(&format!("a move under load of the pool: {}", said.lines().last().unwrap_or_default()));
    };
    moved("other").await;
    load.writes_more().await;
    assert_eq!(pooled().port, there.2);
    // Whoever has stayed at the former pooler is told, and never shown what was put aside.
    let told = lines(&mut idle).await.unwrap_err();
    let again = match connect(&first).await {
        Ok(mut db) => lines(&mut db).await.unwrap_err(),
        Err(error) => error.to_string(),
    };
    measured(&format!("the former pooler says after a move: {told}; to a new login: {again}"));
    let left = rows(
        &here.0.cluster.superuser(),
        None,
        &format!("select usename::text from pg_stat_activity where starts_with(usename, '{namespace}-')"),
    )
    .await;
    assert_eq!(left, [""; 0], "connections to the former cluster");

    moved("default").await;
    load.writes_more().await;
    assert_eq!(pooled(), first, "the same pooler, login and password as before");
    let seen = load.stop().await;
    seen.tell("two moves under load of the pool");
    seen.was_only_told_to_try_again();
    assert_eq!(lines(&mut silent).await, Ok(500), "a client that has slept through both of them");
    seen.is_kept_since(began, &shop.credential("data", "write")).await;
    let found: Value = shop.api().get(&shop.path("data")).await.expect(200).json;
    assert_eq!((found["cluster"].as_str(), found["state"].as_str()), (Some("default"), Some("Ready")), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_above_the_connection_limit_makes_clients_wait_and_refuses_them_where_it_has_none() {
    const LIMIT: usize = 3;
    let pooled = Pooled::open(&[], "").await;
    let shop = &pooled.shop;
    shop.stock("data").await;
    shop.api().patch(&shop.path("data"), json!({"connectionLimit": LIMIT})).await;
    let write = pooled.pooled("write");
    let limited = format!("select rolconnlimit::text from pg_roles where rolname = '{}'", write.username);
    eventually("the limit is there", PATIENCE, || async {
        let found = pooled.rows(&limited).await;
        if found == [LIMIT.to_string()] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    // The documents' pool has 10 for each login, and the server gives 3.
    let work = async || {
        let clients = (0..CLIENTS).map(async |_| {
            let mut db = connect(&write).await?;
            for _ in 0..10 {
                sqlx::query("select pg_sleep(0.02)").execute(&mut db).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
        futures::future::join_all(clients).await
    };
    let ended = work().await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    assert_eq!(pooled.sessions(&write.username).await, LIMIT);

    // Direct clients count as well. Where they have all, none is left for the pool.
    let direct = shop.credential("data", "write");
    superuser_sql(
        &pooled.own.cluster.superuser(),
        None,
        &format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'", write.username),
    )
    .await;
    let mut holding = Vec::new();
    while holding.len() < LIMIT {
        holding.extend(connect(&direct).await.ok());
    }
    let told: Vec<String> =
        work().await.into_iter().filter_map(|ended| ended.err().map(|error| error.to_string())).collect();
    assert!(
        told.len() == CLIENTS && told.iter().all(|told| told.contains("too many connections for role")),
        "{told:?}"
    );
}
