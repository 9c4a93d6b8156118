//! No password is anywhere but in its store: everything that is written anywhere is searched for every one of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgtenant_tests::{
    Cli, Credential, Dev, Folder, Own, Running, SiteOptions, Stream, TIERS, files_below, processes_in, read_proc, rows,
    superuser_sql,
};
use serde_json::json;

use crate::shared::Plane;

/// Every password and URI that was ever in a store, looked for all the time.
struct Collector {
    found: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Collector {
    fn start(secrets: PathBuf) -> Self {
        let (found, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let (to, until) = (Arc::clone(&found), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                collect(&secrets, &mut to.lock().unwrap());
                std::thread::sleep(Duration::from_millis(3));
            }
            collect(&secrets, &mut to.lock().unwrap());
        });
        Self { found, stop, thread: Some(thread) }
    }

    fn finish(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.found.lock().unwrap().clone()
    }
}

fn collect(secrets: &Path, found: &mut BTreeSet<String>) {
    for file in files_below(secrets) {
        let text = std::fs::read_to_string(secrets.join(file)).unwrap_or_default();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(password) = document["password"].as_str().filter(|password| password.len() >= 8) {
            found.insert(password.to_owned());
        }
    }
}

/// Where something was written, and what.
type Written = Vec<(String, String)>;

fn processes(folder: &Path, into: &mut Written) {
    for (pid, command) in processes_in(folder) {
        for file in ["cmdline", "environ"] {
            into.push((format!("/proc of `{command}`: {file}"), read_proc(pid, file)));
        }
    }
}

async fn every_row(options: &sqlx::postgres::PgConnectOptions, into: &mut Written) {
    let tables =
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname !~ '^(pg_|information_schema)'";
    for table in rows(options, None, tables).await {
        let text = rows(options, None, &format!("select t::text from {table} t")).await.join("\n");
        into.push((format!("ledger table {table}"), text));
    }
}

#[tokio::test]
async fn no_password_is_in_any_log_table_answer_metric_process_list_or_statement() {
    let conf = [
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_connections", "on"),
        ("log_replication_commands", "on"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track", "all"),
        ("pg_stat_statements.max", "20000"),
    ];
    let own = Own::start(false, &conf).await;
    let place = own.place();
    superuser_sql(&place.superuser, None, "create extension pg_stat_statements").await;
    let options = SiteOptions {
        cluster: "rotateOverlap = \"1s\"".to_owned(),
        // The ledger's statements are looked at as well.
        ledger: place.clone(),
        level: "trace".to_owned(),
        ..SiteOptions::on(place.clone()).await
    };
    let mut plane = Plane::start(options).await;
    let collector = Collector::start(plane.site.secrets.clone());
    let (api, secrets) = (plane.api(), plane.site.secrets.clone());
    let mut written: Written = Vec::new();
    let mut stream = Stream::open(&api, "/v1/events?after=0").await;

    // Everything that handles a password.
    let tokens = ["tenant", "viewer"].map(|role| json!({"name": role, "role": role, "namespaces": ["leak"]}));
    let mut secret_texts =
        vec![plane.site.provisioner_password.clone(), plane.site.ledger_password.clone(), plane.site.token.clone()];
    for body in tokens {
        let made =
            api.send("POST", "/v1/tokens", &[("idempotency-key", body["name"].as_str().unwrap())], Some(&body)).await;
        secret_texts.push(made.expect(201).json["secret"].as_str().unwrap().to_owned());
    }
    for name in ["one", "two", "gone"] {
        written.push((
            "POST".into(),
            api.ready_with("leak", json!({"name": name, "schemas": ["extra"]})).await.to_string(),
        ));
    }
    let path = |name: &str| format!("/v1/namespaces/leak/databases/{name}");
    api.ask(&format!("{}/credentials/rotate", path("one"))).await.expect(202);
    api.is_ready("leak", "one").await;
    std::fs::remove_file(Credential::file(&secrets, "leak", "two", "read")).unwrap();
    superuser_sql(&place.superuser, None, "alter role \"leak-two-write\" password 'by hand'").await;
    api.comes_to("leak", "two", "a new password of read", |db| {
        db["roles"]["read"]["setAt"].as_str() > db["roles"]["write"]["setAt"].as_str()
    })
    .await;
    api.delete(&path("gone")).await.expect(202);
    api.is_gone("leak", "gone").await;
    // What fails: a store that can not be written, a server that refuses, a database that is not ours.
    superuser_sql(&place.superuser, None, "create database \"leak-foreign\"").await;
    api.create("leak", "foreign").await;
    written.push(("failed claim".into(), api.is_in("leak", "foreign", "Failed").await.to_string()));
    superuser_sql(&place.superuser, None, &format!("alter role \"{}\" nocreatedb", plane.site.provisioner)).await;
    api.create("leak", "refused").await;
    let refused = api.comes_to("leak", "refused", "a reason", |db| db.to_string().contains("\"False\"")).await;
    written.push(("refused claim".into(), refused.to_string()));
    superuser_sql(&place.superuser, None, &format!("alter role \"{}\" createdb", plane.site.provisioner)).await;
    api.ask(&format!("{}/credentials/rotate", path("one"))).await.expect(202);
    api.is_ready("leak", "one").await;
    processes(plane.site.path(), &mut written);

    // Commands that hold one.
    let cli = Cli::of(&plane.serve.url, &plane.site.token).env("PGTENANT_SECRETS_DIR", &secrets);
    let psql = cli.command(&["db", "connect", "leak/one", "--tier", "write", "--", "-Atc", "select pg_sleep(1.5)"]);
    let running = Running::spawn(&psql, plane.site.path(), "connect");
    pgtenant_tests::soon("psql is at work", || async {
        let busy = "select count(*)::text from pg_stat_activity where query like 'select pg_sleep(1.5)%'";
        let count = rows(&place.superuser, None, busy).await;
        if count == ["1"] { Ok(()) } else { Err(running.said()) }
    })
    .await;
    let connected: Vec<_> = TIERS.iter().map(|tier| Credential::read(&secrets, "leak", "one", tier).password).collect();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let seen = read_proc(pid, "cmdline") + &read_proc(pid, "environ");
        assert!(connected.iter().all(|password| !seen.contains(password)), "a password in /proc/{pid}");
    }
    drop(running);
    for args in [
        &["db", "get", "leak/one"][..],
        &["db", "list", "--output", "json"],
        &["audit", "--limit", "1000", "--output", "json"],
        &["events", "--output", "json"],
        &["token", "list"],
    ] {
        let done = cli.run(args).await.expect(0);
        written.push((format!("{args:?}"), done.stdout + &done.stderr));
    }
    let config = plane.site.config.to_string_lossy().into_owned();
    let check = plane.site.cli().run(&["config", "check", "--config", &config, "--output", "json"]).await;
    written.push(("config check".into(), check.stdout + &check.stderr));
    for path in [
        "/v1/databases",
        "/v1/audit",
        "/v1/clusters",
        "/v1/clusters/default",
        "/metrics",
        "/readyz",
        "/v1/tokens",
        "/v1/apps/problems",
        "/v1/clusters/default/preflight",
        "/v1/namespaces/leak/databases/one/credentials",
    ] {
        written.push((format!("GET {path}"), api.get(path).await.expect(200).text));
    }
    let plan = json!({"claims": [{"namespace": "leak", "name": "planned"}, {"namespace": "leak", "name": "one"}]});
    written.push(("plan".into(), api.post("/v1/plan", plan).await.expect(200).text));
    while let Some(event) = stream.next(Duration::from_millis(500)).await {
        written.push(("an event".into(), event.to_string()));
    }
    let limits = read_proc(plane.serve.running.pid(), "limits");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().rev().nth(2), Some("0"), "a core dump would hold passwords: {cores}");

    every_row(&plane.site.ledger, &mut written).await;
    let statements = rows(&place.superuser, None, "select query from pg_stat_statements").await.join("\n");
    assert!(statements.contains("CREATE ROLE"), "pg_stat_statements has what was done");
    written.push(("pg_stat_statements".into(), statements));
    plane.serve.stop().await;
    let log = plane.serve.running.stderr();
    assert!(log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""), "the log tells all");
    written.push(("the log of pgtenant".into(), log));
    let server = own.logs();
    assert!(server.contains("CREATE ROLE"), "the server's log tells all");
    written.push(("the log of PostgreSQL".into(), server));

    let passwords = collector.finish();
    // Three databases of three tiers; of one twice and of another twice again all three; and a lost one.
    assert!(passwords.len() > 9 + 3 + 3, "{} passwords were seen", passwords.len());
    secret_texts.extend(passwords);
    for (place, text) in &written {
        for secret in &secret_texts {
            assert!(!text.contains(secret.as_str()), "a secret ({}…) is in {place}", &secret[..4]);
        }
    }
    pgtenant_tests::measured(&format!("leaks: {} secrets looked for in {} places", secret_texts.len(), written.len()));
}

#[tokio::test]
async fn dev_logs_no_secret_of_its_folder_even_when_it_logs_all() {
    let folder = Folder::new("dev-trace");
    let dir = folder.join("data");
    let mut command = Dev::command(&dir, 0);
    command.env("RUST_LOG", "trace");
    let mut dev = Dev::up(Running::spawn(&command, folder.path(), "dev"), &dir).await;
    dev.api().is_ready("demo", "orders").await;
    dev.interrupt().await;

    let mut secrets = BTreeSet::from([dev.token.clone()]);
    collect(&dev.secrets(), &mut secrets);
    let files = files_below(&dir);
    for file in files.iter().filter(|file| file.ends_with(".password")) {
        secrets.insert(std::fs::read_to_string(dir.join(file)).unwrap().trim().to_owned());
    }
    // The token, three tiers, the ledger's login, the provisioner, and the superusers of both.
    assert!(secrets.len() >= 8, "{} secrets", secrets.len());
    let log = std::fs::read_to_string(dir.join("pgtenant.log")).unwrap();
    assert!(log.contains(" TRACE ") && log.contains("sqlx"), "the log tells all");
    let mut written = vec![("pgtenant.log".to_owned(), log), ("its output".into(), dev.running.stdout())];
    written.push(("its errors".into(), dev.running.stderr()));
    for file in files.iter().filter(|file| file.contains("/log/")) {
        written.push((file.clone(), String::from_utf8_lossy(&std::fs::read(dir.join(file)).unwrap()).into_owned()));
    }
    assert!(written.len() >= 3 + 3, "logs of three servers: {}", written.len());
    for (place, text) in &written {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret ({}…) is in {place}", &secret[..4]);
        }
    }
}
