//! What claims will need of a cluster, tried without a trace.

use std::fs;
use std::time::{Duration, Instant};

use pgtenant_tests::{Api, Cli, Own, Relay, Site, SiteOptions, files_below, rows, soon, superuser_sql, unique};
use serde_json::{Value, json};

use crate::shared::Plane;

const PATH: &str = "/v1/clusters/default/preflight";

/// What was tried: check, result, message.
#[derive(Debug)]
pub(crate) struct Tried(bool, Vec<[String; 3]>);

impl Tried {
    pub(crate) async fn now(api: &Api) -> Self {
        let answer = api.ask(PATH).await.expect(200).json;
        let line = |check: &Value| ["check", "result", "message"].map(|key| check[key].as_str().unwrap().to_owned());
        Self(answer["ok"].as_bool().unwrap(), answer["checks"].as_array().unwrap().iter().map(line).collect())
    }

    /// Result and message of a check that was made once.
    pub(crate) fn of(&self, check: &str) -> (&str, &str) {
        let found: Vec<_> = self.1.iter().filter(|[name, ..]| name == check).collect();
        let [[_, result, message]] = found[..] else { panic!("not one {check} in {self:#?}") };
        (result, message)
    }

    /// Whether there is such a line.
    pub(crate) fn has(&self, check: &str, result: &str, part: &str) -> bool {
        self.1.iter().any(|[name, found, message]| name == check && found == result && message.contains(part))
    }

    pub(crate) fn all_passed(&self, checks: &[&str]) {
        for check in checks {
            assert_eq!(self.of(check).0, "Passed", "{check}: {self:#?}");
        }
    }

    pub(crate) fn failed(&self, check: &str, parts: &[&str]) {
        let (result, message) = self.of(check);
        assert_eq!(result, "Failed", "{check}: {message}");
        for part in parts {
            assert!(message.contains(part), "no {part} in {check}: {message}");
        }
    }
}

/// Everything that a preflight may have left behind.
async fn traces(site: &Site) -> Vec<String> {
    let sql = "select 'database ' || datname from pg_database where datname like 'pgtenant_preflight%'
               union all select 'role ' || rolname from pg_roles where rolname like 'pgtenant_preflight%'";
    let mut left = rows(&site.superuser, None, sql).await;
    left.extend(files_below(&site.secrets));
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_capability_is_tried_and_leaves_no_trace() {
    let own = Own::start(true, &[]).await;
    let plane = Plane::start(SiteOptions::on(own.place()).await).await;
    let (site, api) = (&plane.site, plane.api());
    // Two at once wait for each other.
    let (one, other) = tokio::join!(Tried::now(&api), Tried::now(&api));
    for tried in [&one, &other] {
        tried.all_passed(&[
            "login",
            "primary",
            "tls",
            "clock",
            "roles",
            "database",
            "extensions",
            "removal",
            "standbys",
        ]);
        tried.all_passed(&["store file"]);
        assert!(!tried.0, "there are warnings");
    }
    assert_eq!(one.of("tls").1, "the certificate names localhost and is from the cluster's CA");
    assert_eq!(one.of("extensions").1, "pgcrypto, pg_trgm can be created");
    assert_eq!(traces(site).await, Vec::<String>::new());

    // PUBLIC may connect to other databases: reported as it is, with the statement that ends it.
    let warned = |database: &str| {
        let told = format!("REVOKE CONNECT ON DATABASE \"{database}\" FROM PUBLIC");
        one.1.iter().any(|[_, result, message]| result == "Warning" && message.contains(&told))
    };
    assert!(warned("postgres") && warned("template1"), "{one:#?}");
    let tenant = plane.api_of("tenant", &["one"]).await;
    tenant.ask(PATH).await.problem(403, "forbidden");

    let cli = Cli::of(&plane.serve.url, &site.token);
    let shown = cli.run(&["cluster", "preflight", "default"]).await.expect(1).stdout;
    let line = shown.lines().find(|line| line.starts_with("store file")).unwrap();
    let expected =
        ["Passed", "customer/pgtenant-preflight/pgtenant-preflight-trial-read.json was written, read and removed"];
    assert!(expected.iter().all(|part| line.contains(part)), "{shown}");
    let machine = cli.run(&["cluster", "preflight", "default", "--allow-warnings", "--output", "json"]).await.expect(0);
    assert_eq!(machine.json()["ok"], false, "{}", machine.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_with_what_mends_it() {
    let own = Own::start(false, &[]).await;
    let site = Site::new(SiteOptions::on(own.place()).await).await;
    let text = fs::read_to_string(&site.config).unwrap();
    let text = text.replace("[\"pgcrypto\", \"pg_trgm\"]", "[\"pgcrypto\", \"dblink\", \"no_such\"]");
    fs::write(&site.config, text.replace("tls = { ", "tls = { sslmode = \"require\", ")).unwrap();
    let attributes = |words: &str| format!("alter role \"{}\" {words}", site.provisioner);
    superuser_sql(&site.superuser, None, &attributes("nocreaterole nocreatedb")).await;
    fs::write(&site.secrets, "").unwrap();
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let api = serve.api();
    let tried = Tried::now(&api).await;
    assert!(!tried.0);
    let mend = |word: &str| format!("ALTER ROLE \"{}\" {word};", site.provisioner);
    let (createrole, createdb) = (mend("CREATEROLE"), mend("CREATEDB"));
    tried.failed("roles", &["CREATE ROLE", "permission denied", &createrole]);
    tried.failed("database", &["CREATE DATABASE", "permission denied", &createdb]);
    tried.failed("store file", &["can not write", "move away what is in the place"]);
    let (result, message) = tried.of("tls");
    assert!(result == "Warning" && message.contains("set tls.sslmode to verify-full"), "{message}");
    assert_eq!(tried.of("standbys").0, "Warning");
    // The extensions are told of by the inspection too, which creates nothing.
    soon("the inspection tells of them", || async {
        let seen = api.get(PATH).await.expect(200).text;
        if seen.contains("no_such is not on the server") { Ok(()) } else { Err(seen) }
    })
    .await;

    fs::remove_file(&site.secrets).unwrap();
    superuser_sql(&site.superuser, None, &createrole).await;
    superuser_sql(&site.superuser, None, &createdb).await;
    let tried = Tried::now(&api).await;
    tried.all_passed(&["roles", "database", "removal", "store file"]);
    let missing = ["only a superuser may create dblink", "no_such is not on the server: install its package"];
    tried.failed("extensions", &missing);
    assert!(!tried.of("extensions").1.contains("pgcrypto"), "{tried:#?}");
    assert_eq!(traces(&site).await, Vec::<String>::new());
    let cli = Cli::of(&serve.url, &site.token);
    cli.run(&["cluster", "preflight", "default", "--allow-warnings"]).await.expect(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_a_line_and_no_hanging_request() {
    let own = Own::start(false, &[]).await;
    let relay = Relay::start(&own.place().hosts[0]).await;
    let place = own.place().with_hosts(&[format!("localhost:{}", relay.address().port())]);
    let further = "[api]\nrequest_timeout = \"6s\"\n".to_owned();
    let plane = Plane::start(SiteOptions { further, ..SiteOptions::on(place).await }).await;
    let api = plane.api();
    Tried::now(&api).await.all_passed(&["primary", "roles", "database"]);
    relay.cut(true);
    let began = Instant::now();
    let tried = Tried::now(&api).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let late: Vec<_> = tried.1.iter().filter(|[.., message]| message.starts_with("no answer within 5 s")).collect();
    assert!(late.len() == 1 && late[0][1] == "Failed", "{tried:#?}");
    // What has nothing to do with it was tried all the same.
    tried.all_passed(&["login", "store file"]);
    // It is still under way, and nobody piles up behind it.
    let waiting = api.ask(PATH).await;
    assert!([200, 503].contains(&waiting.status), "{}", waiting.text);
    relay.cut(false);
    soon("it works again", || async {
        let answer = api.ask(PATH).await;
        let works = answer.text.contains("a database was made and entered");
        if works { Ok(()) } else { Err(answer.text) }
    })
    .await;
    soon("nothing is left", || async {
        let left = traces(&plane.site).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_described_a_moment_ago_is_taken_up_first() {
    let plane = Plane::start(SiteOptions::shared().await).await;
    let (site, api) = (&plane.site, plane.api());
    // Nobody announces it, so that it would be seen by chance within half a minute.
    let describe = async |name: &str, spec: &str| {
        let from = "from clusters where name = 'default' returning name";
        site.ledger_rows(&format!("insert into clusters (name, spec) select '{name}', {spec} {from}")).await;
    };
    describe("tried", "spec").await;
    let tried = api.ask("/v1/clusters/tried/preflight").await.expect(200);
    assert!(tried.text.contains("a database was made and entered"), "{}", tried.text);
    describe("listed", "spec").await;
    assert!(api.list("/v1/clusters/listed/snapshots").await.is_empty());
    describe("planned", "spec").await;
    let claim = json!({"namespace": unique("plan"), "name": "db", "cluster": "planned"});
    let plan = api.post("/v1/plan", json!({"claims": [claim]})).await.expect(200).json;
    assert_eq!(plan["claims"][0]["action"], "create", "{plan}");
    // A store that there is none of here: known after a look, and waited for no longer.
    describe("faulty", r#"jsonb_set(spec, '{stores}', '[{"kubernetes": {}}]')"#).await;
    let began = Instant::now();
    let refused = api.ask("/v1/clusters/faulty/preflight").await.problem(503, "cluster-unreachable");
    assert!(refused.contains("its description can not be used here"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let problem = api.get("/v1/clusters/faulty").await.expect(200).json["problem"].to_string();
    assert!(problem.contains("stores"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dumps_need_is_tried() {
    let plane = Plane::start(SiteOptions { backups: true, ..SiteOptions::shared().await }).await;
    let (site, api) = (&plane.site, plane.api());
    api.ready(&unique("dumps"), "data").await;
    let tried = Tried::now(&api).await;
    tried.all_passed(&["dumps", "backups.dumps.identityFile", "pg_dump"]);
    assert!(tried.of("backups.dumps.identityFile").1.contains("the only recipient"), "{tried:#?}");
    assert_eq!(files_below(&site.path().join("backups")), Vec::<String>::new());

    // Another's key, then none that can be read, and a place that is none.
    let key = site.path().join("backup.key");
    let other = "AGE-SECRET-KEY-1TFD95KJ6TFD95KJ6TFD95KJ6TFD95KJ6TFD95KJ6TFD95KJ6TFDQZJ8MMH\n";
    fs::write(&key, other).unwrap();
    let tried = Tried::now(&api).await;
    let (result, message) = tried.of("backups.dumps.identityFile");
    assert!(result == "Warning" && message.contains("none of which is a recipient"), "{message}");
    fs::remove_file(&key).unwrap();
    let backups = site.path().join("backups");
    fs::remove_dir_all(&backups).unwrap();
    fs::write(&backups, "").unwrap();
    let tried = Tried::now(&api).await;
    tried.failed("backups.dumps.identityFile", &["backup.key"]);
    tried.failed("dumps", &["backups"]);
    fs::remove_file(&backups).unwrap();
}
