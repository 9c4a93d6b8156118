//! A lab with PgBouncer in front, as a person types it.

use std::process::Command;

use pgtenant_tests::{Cli, Credential, Dev, Finished, Folder, eventually, processes_in, run, run_within};
use serde_json::Value;

use crate::topologies::PATIENCE;

async fn lab(dir: &std::path::Path, args: &[&str]) -> Finished {
    let mut command = Cli::new().command(&["lab"]);
    command.args(args).arg("--dir").arg(dir);
    run_within(command, PATIENCE).await
}

async fn psql(uri: &str, ca: &std::path::Path, sql: &str) -> Result<String, String> {
    let mut psql = Command::new("psql");
    psql.env("PGSSLROOTCERT", ca).env("PGCONNECT_TIMEOUT", "5").args([uri, "--no-psqlrc", "-qAtc", sql]);
    let ran = run(psql).await;
    if ran.status == 0 { Ok(ran.stdout.trim().to_owned()) } else { Err(ran.stderr) }
}

fn service<'a>(status: &'a Value, name: &str) -> &'a Value {
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_of_dev_come_through_the_pool_and_follow_the_primary() {
    let folder = Folder::new("dev-pool");
    let dir = folder.join("data");
    let mut dev = Dev::start_with(&dir, &["--topology", "haproxy", "--pgbouncer"]).await;
    dev.api().is_ready("demo", "orders").await;
    let pooled = Credential::pooled(&dev.secrets(), "demo", "orders", "write");
    assert!(dev.greeting.contains(&format!("PgBouncer    localhost:{}", pooled.port)), "{}", dev.greeting);
    let admin = Credential::read(&dev.secrets(), "demo", "orders", "admin");
    let made = psql(&admin.uri, &dev.ca, "create table papers (id int primary key)").await;
    assert_eq!(made, Ok(String::new()));
    let write = |id: i32| format!("insert into papers values ({id}) on conflict do nothing returning 'in'");
    assert_eq!(psql(&pooled.uri, &dev.ca, &write(1)).await, Ok("in".to_owned()));

    // Its own words, and PgBouncer by itself.
    let its = dir.join("lab");
    let status = lab(&its, &["status", "--output", "json"]).await.expect(0).json();
    assert_eq!(status["endpoints"]["pool"], format!("localhost:{}", pooled.port));
    assert_eq!(service(&status, "pgbouncer")["running"], true);
    let primary = status["nodes"].as_array().unwrap().iter().find(|node| node["role"] == "primary").unwrap();
    lab(&its, &["kill", "pgbouncer"]).await.expect(0);
    let refused = psql(&pooled.uri, &dev.ca, &write(2)).await.unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let shown = lab(&its, &["status"]).await.expect(0).stdout;
    assert!(shown.contains(&format!("pgbouncer localhost:{} (does not run)", pooled.port)), "{shown}");
    lab(&its, &["start", "pgbouncer"]).await.expect(0);
    assert_eq!(psql(&pooled.uri, &dev.ca, &write(2)).await, Ok("in".to_owned()));
    lab(&its, &["rotate", "pgbouncer"]).await.expect(0);

    lab(&its, &["kill", primary["name"].as_str().unwrap()]).await.expect(0);
    eventually("the application writes on", PATIENCE, async || psql(&pooled.uri, &dev.ca, &write(3)).await).await;
    dev.interrupt().await;
    assert_eq!(processes_in(&dir), []);

    // It stays without being asked for again.
    let mut again = Dev::start(&dir).await;
    eventually("the pool leads to the primary", PATIENCE, async || psql(&pooled.uri, &dev.ca, &write(4)).await).await;
    again.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_put_before_a_lab_that_is_there() {
    let folder = Folder::new("lab-pool");
    let dir = folder.join("lab");
    lab(&dir, &["up", "--topology", "streaming", "--nodes", "1"]).await.expect(0);
    let up = lab(&dir, &["up", "--pgbouncer"]).await.expect(0);
    for said in ["starting the health service of node-1", "starting HAProxy", "starting PgBouncer on port"] {
        assert!(up.stderr.contains(said), "{said}: {}", up.stderr);
    }
    let status = lab(&dir, &["status", "--output", "json"]).await.expect(0).json();
    assert_eq!(service(&status, "haproxy")["running"], true);
    // The function is there, and a superuser is nobody whom PgBouncer lets in.
    let admin = status["admin"]["uri"].as_str().unwrap();
    let ca = dir.join("ca.crt");
    let word = std::fs::read_to_string(dir.join("superuser.password")).unwrap();
    let at = |uri: &str, database: &str| {
        uri.replace("/postgres?", &format!("/{database}?")).replace("postgres@", &format!("postgres:{word}@"))
    };
    let looked =
        psql(&at(admin, "pgtenant_pgbouncer"), &ca, "select count(*) from pgbouncer.user_lookup('postgres')").await;
    assert_eq!(looked, Ok("0".to_owned()));
    let pool = status["endpoints"]["pool"].as_str().unwrap();
    let write = status["endpoints"]["write"][0].as_str().unwrap();
    let refused = psql(&at(&admin.replace(write, pool), "postgres"), &ca, "select 1").await.unwrap_err();
    assert!(refused.contains("SASL authentication failed") || refused.contains("no such user"), "{refused}");
    let said = lab(&dir, &["up"]).await.expect(0).stderr;
    assert!(!said.contains("starting"), "what runs is left alone: {said}");

    lab(&dir, &["down"]).await.expect(0);
    assert_eq!(processes_in(&dir), []);
    lab(&dir, &["down", "--remove", "--yes"]).await.expect(0);
}

#[tokio::test]
async fn a_machine_without_a_new_pgbouncer_is_told_what_to_install() {
    let folder = Folder::new("lab-pool-none");
    let old = folder.join("pgbouncer");
    std::fs::write(&old, "#!/bin/sh\necho PgBouncer 1.18.0\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if std::path::Path::new("/usr/sbin/pgbouncer").exists() {
        pgtenant_tests::skipped("the distribution's PgBouncer is there");
        return;
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Cli::new().command(&["lab", "up", "--topology", "streaming", "--pgbouncer", "--dir"]);
    command.arg(folder.join("lab")).env("PATH", path).env("XDG_CACHE_HOME", folder.path());
    let said = run(command).await.expect(1).stderr;
    assert!(said.contains("this machine has PgBouncer 1.18.0 in") && said.contains("hint: "), "{said}");
    assert!(!folder.join("lab/lab.json").exists(), "nothing is made");
}
