//! Changes that the monitor of pg_auto_failover tells, and that nobody waits for a look to find: here none is due within an hour.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pgtenant_lab::LabKind;
use pgtenant_tests::{Serve, Site, SiteOptions, eventually, measured, rows, superuser_sql};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::topologies::{Cluster, PATIENCE, seen};

/// The control plane's connections to the monitor's database: while nothing is asked, the one that listens.
const LISTENERS: &str = "select pid::text from pg_stat_activity
     where application_name = 'pgtenant topology' and datname = 'pg_auto_failover' and query like 'LISTEN %'";

struct Monitor<'a> {
    site: &'a Site,
    serve: &'a Serve,
    /// A superuser, in the monitor's database.
    login: PgConnectOptions,
    /// The primary that was seen last.
    primary: String,
}

impl Monitor<'_> {
    async fn sql(&self, sql: &str) {
        superuser_sql(&self.login, None, sql).await;
    }

    async fn listeners(&self) -> Vec<String> {
        rows(&self.login, None, LISTENERS).await
    }

    /// Another connection than these listens.
    async fn is_heard_anew(&self, former: &[String]) {
        eventually("the monitor is heard", PATIENCE, || async {
            let found = try_rows(&self.login, LISTENERS).await.map_err(|error| error.to_string())?;
            let connected = self.serve.metric("pgtenant_cluster_push_connected").await;
            let anew = found.len() == 1 && !former.contains(&found[0]);
            if anew && connected == 1.0 { Ok(()) } else { Err(format!("{found:?}, {connected}")) }
        })
        .await;
    }

    /// All members are well, so that no look is due.
    async fn all_well(&self) {
        let api = self.serve.api();
        let follows = |member: &Value| {
            member["role"] == "standby" && !member["message"].as_str().unwrap_or_default().contains("not streaming")
        };
        let well = |told: &Value, members: &[Value]| {
            told["primary"].is_string() && members.len() == 2 && members.iter().any(follows)
        };
        seen(&api, "both are well", well).await;
    }

    /// Another primary is seen; how long after it had told the monitor so.
    async fn follows(&mut self) -> Duration {
        let api = self.serve.api();
        let another =
            |told: &Value, _: &[Value]| told["primary"].is_string() && told["primary"] != self.primary.as_str();
        let told = seen(&api, "another primary", another).await;
        told["primary"].as_str().unwrap().clone_into(&mut self.primary);
        let primary = &self.primary;
        let port = primary.rsplit(':').next().unwrap();
        let reported = format!(
            "select extract(epoch from max(eventtime))::text from pgautofailover.event
              where nodeport = {port} and description like 'New state is reported by %\"wait_primary\"'"
        );
        let found = format!(
            "select extract(epoch from max(at))::text from events where kind = 'ClusterChanged'
                and (message like '%the primary is {primary},%' or message like '%: {primary} is the primary%')"
        );
        let reported: f64 = rows(&self.login, None, &reported).await[0].parse().unwrap();
        let found: f64 = self.site.ledger_rows(&found).await[0].parse().unwrap();
        Duration::from_secs_f64((found - reported).max(0.0))
    }
}

/// Where the monitor is down, why.
async fn try_rows(login: &PgConnectOptions, sql: &'static str) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = login.connect().await?;
    sqlx::query_scalar(sql).fetch_all(&mut connection).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_monitor_tells_is_looked_at_at_once() {
    let mut cluster = Cluster::up(LabKind::PgAutoFailover).await;
    let site = cluster.site_with(SiteOptions { look: "1h".to_owned(), ..SiteOptions::shared().await }).await;
    let serve = site.serve_with("serve", &[("PGTENANT_WORK_WATCH", "1h")]).await;
    serve.is_ready().await;
    let uri = cluster.lab.monitor_uri().unwrap();
    let port = uri.split(['/', '?']).nth(2).and_then(|address| address.rsplit(':').next()).unwrap().parse().unwrap();
    let login = cluster.lab.login(port).database("pg_auto_failover");
    let killed = cluster.lab.primary().await.unwrap();
    let mut monitor = Monitor { site: &site, serve: &serve, login, primary: cluster.host(&killed) };
    monitor.is_heard_anew(&[]).await;
    monitor.all_well().await;
    one_look_for_many(&monitor).await;

    cluster.lab.kill(&killed).await.unwrap();
    let begun = Instant::now();
    let late = monitor.follows().await;
    measured(&format!(
        "pg_auto_failover: the new primary is seen {:.1} s after the kill, {:.2} s after it had told the monitor",
        begun.elapsed().as_secs_f64(),
        late.as_secs_f64()
    ));
    cluster.lab.start(&killed, |_| {}).await.unwrap();
    monitor.all_well().await;

    // The connection is lost: there is another one, and it hears.
    let listeners = monitor.listeners().await;
    monitor.sql(&format!("select pg_terminate_backend({})", listeners[0])).await;
    monitor.is_heard_anew(&listeners).await;
    switches_over(&mut monitor).await;

    // The whole monitor is.
    let listeners = monitor.listeners().await;
    crash(&cluster.lab.dir().join("nodes/monitor/data"));
    monitor.is_heard_anew(&listeners).await;
    switches_over(&mut monitor).await;
    let log = serve.running.stderr();
    assert!(log.contains("are not told, and found by looks alone") && log.contains("are told again"), "{log}");
    cluster.lab.down(|_| {}).await.unwrap();
}

/// Of a thousand changes, and none of what concerns another formation.
async fn one_look_for_many(monitor: &Monitor<'_>) {
    let heard = || monitor.serve.metric("pgtenant_cluster_pushes_total");
    let sessions = async || {
        let sql = "select sessions::text from pg_stat_database where datname = 'pg_auto_failover'";
        rows(&monitor.login, None, sql).await[0].parse::<u64>().unwrap()
    };
    let (before, connected) = (heard().await, sessions().await);
    let tell = |formation: &str, times: u16| {
        format!(
            "select pg_notify('state', json_build_object('formation', '{formation}', 'n', n)::text) from generate_series(1, {times}) n"
        )
    };
    monitor.sql(&tell("other", 1000)).await;
    monitor.sql(&tell("default", 1000)).await;
    eventually("it is heard", PATIENCE, || async {
        let more = heard().await - before;
        if more >= 1.0 { Ok(()) } else { Err(more.to_string()) }
    })
    .await;
    monitor.all_well().await;
    let (heard, connected) = (heard().await - before, sessions().await - connected);
    measured(&format!("a thousand notifications: {heard} heard, {connected} connections to the monitor by all"));
    assert!(heard <= 1010.0 && connected < 100, "{heard} heard, {connected} connections");
}

async fn switches_over(monitor: &mut Monitor<'_>) {
    let before = monitor.serve.metric("pgtenant_cluster_pushes_total").await;
    // It refuses for as long as it has not seen both after its start, or after the last time.
    eventually("the monitor takes it", PATIENCE, || async {
        let asked = try_rows(&monitor.login, "select pgautofailover.perform_failover('default', 0)::text").await;
        asked.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let late = monitor.follows().await;
    measured(&format!("pg_auto_failover: seen {:.2} s after the new primary had told the monitor", late.as_secs_f64()));
    assert!(monitor.serve.metric("pgtenant_cluster_pushes_total").await > before);
    monitor.all_well().await;
}

/// Its keeper starts it again.
fn crash(data: &Path) {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let pid = file.lines().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::QUIT).unwrap();
}
