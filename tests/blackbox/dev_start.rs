//! `pgtenant dev`: from nothing to a database that an application can use, and on from where it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pgtenant_tests::{
    Api, Credential, Dev, Folder, Running, TIERS, eventually, listens, measured, processes_in, run, skipped, try_sql,
    unique, user_of, works_for_an_application,
};
use rustix::process::Signal;

use crate::shared;

#[tokio::test]
async fn a_fresh_folder_comes_to_ready_and_says_where_everything_is() {
    let dev = shared::dev().await;
    assert!(dev.greeting.starts_with(&format!("ready {}", dev.url)), "{}", dev.greeting);
    for part in ["token", "credentials", "apps folder", "log", "psql", "Ctrl-C", &*dev.secrets().to_string_lossy()] {
        assert!(dev.greeting.contains(part), "no {part} in {}", dev.greeting);
    }
    let ready = dev.greeting.lines().filter(|line| line.starts_with("ready")).count();
    assert_eq!(ready, 1, "one line begins with `ready`: {}", dev.greeting);
    let progress = dev.running.stderr();
    assert!(progress.contains("cluster: ") && progress.contains("ledger: "), "progress is shown: {progress}");
    for private in ["env", "token", "pgtenant.log", "pgpass"] {
        assert_eq!(mode(&dev.dir.join(private)), 0o600, "{private}");
    }
    assert_eq!(mode(&dev.secrets()), 0o700);
    assert!(fs::read_to_string(&dev.ca).unwrap().contains("BEGIN CERTIFICATE"));
    let example = dev.api().is_ready("demo", "orders").await;
    assert_eq!(example["source"], "apps");
}

#[tokio::test]
async fn the_psql_line_works_when_it_is_pasted() {
    let dev = shared::dev().await;
    let line = dev.greeting.lines().find_map(|line| line.trim().strip_prefix("try")).expect("a line to paste").trim();
    let (folder, table) = (Folder::new("paste"), unique("pasted").replace('-', "_"));
    let typed = folder.join("typed");
    fs::write(
        &typed,
        format!("create table {table} (n int);\nselect current_user;\n\\conninfo\ndrop table {table};\n"),
    )
    .unwrap();
    let mut bash = Command::new("bash");
    bash.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", folder.path());
    bash.args(["-c", &format!("{line} < {}", typed.display())]);
    let done = run(bash).await.expect(0);
    for part in ["CREATE TABLE", "demo-orders-admin", "SSL connection", "DROP TABLE"] {
        assert!(done.stdout.contains(part), "no {part}: {} {}", done.stdout, done.stderr);
    }
}

#[tokio::test]
async fn the_example_can_be_used_by_each_tier_as_it_should() {
    let dev = shared::dev().await;
    dev.api().is_ready("demo", "orders").await;
    works_for_an_application(&dev.secrets(), "demo", "orders").await;
}

#[tokio::test]
async fn no_role_connects_to_the_database_of_another_tenant() {
    let dev = shared::dev().await;
    let (first, second) = (unique("tenant"), unique("tenant"));
    for namespace in [&first, &second] {
        dev.api().ready(namespace, "data").await;
    }
    for tier in TIERS {
        let own = Credential::read(&dev.secrets(), &first, "data", tier);
        let other = Credential { database: format!("{second}-data"), ..own.clone() };
        assert_eq!(try_sql(&own, "select 1").await, Ok(()));
        assert_eq!(try_sql(&other, "select 1").await, Err("42501".to_owned()), "{tier}");
    }
}

#[tokio::test]
async fn servers_do_not_run_as_root() {
    if !rustix::process::geteuid().is_root() {
        return skipped("servers_do_not_run_as_root: this is not root");
    }
    let dev = shared::dev().await;
    let servers: Vec<_> =
        processes_in(&dev.dir).into_iter().filter(|(_, command)| command.contains("postgres")).collect();
    assert!(servers.len() >= 3, "a ledger, a primary and a standby: {servers:?}");
    for (pid, command) in servers {
        // A backend may have ended since.
        assert_ne!(user_of(pid), Some(0), "{command}");
    }
}

/// Every claim's state, and every password.
async fn picture(dev: &Dev) -> (BTreeMap<String, String>, Vec<Credential>) {
    let databases = dev.api().list("/v1/databases").await;
    let claims: BTreeMap<String, String> = databases
        .iter()
        .map(|db| {
            let key = format!("{}/{}", db["namespace"].as_str().unwrap(), db["name"].as_str().unwrap());
            (key, format!("{} {} {}", db["state"], db["mode"], db["source"]))
        })
        .collect();
    let credentials = claims.keys().flat_map(|key| {
        let (namespace, name) = key.split_once('/').unwrap();
        Credential::of(&dev.secrets(), namespace, name)
    });
    (claims.clone(), credentials.collect())
}

async fn nothing_runs(dir: &Path, ports: &[u16]) {
    eventually("every process and port is gone", Duration::from_secs(20), || async {
        let running = processes_in(dir);
        let open: Vec<_> = ports.iter().filter(|port| listens(**port)).collect();
        if running.is_empty() && open.is_empty() { Ok(()) } else { Err(format!("{running:?} {open:?}")) }
    })
    .await;
}

#[tokio::test]
async fn after_ctrl_c_and_after_a_kill_the_next_start_goes_on_with_every_claim() {
    let folder = Folder::new("again");
    let dir = folder.join("it's a folder");
    let begun = Instant::now();
    let mut dev = Dev::start(&dir).await;
    measured(&format!("dev: {:.1} s from nothing to ready", begun.elapsed().as_secs_f64()));
    dev.api().ready("team", "one").await;
    dev.api().ready_with("team", serde_json::json!({"name": "kept", "mode": "protected"})).await;
    dev.apps().define("team/app", &["from-file"]);
    dev.api().is_ready("team", "from-file").await;
    dev.api().is_ready("demo", "orders").await;
    let before = picture(&dev).await;
    assert_eq!(before.0.len(), 4);
    let token = dev.token.clone();
    let ports: Vec<u16> = dev.server_ports().into_iter().chain([dev.port()]).collect();
    assert!(ports.iter().all(|port| listens(*port)));

    let status = dev.interrupt().await;
    assert_eq!(status.code(), Some(0), "Ctrl-C is a good end: {}", dev.running.said());
    assert_eq!(processes_in(&dir), [], "nothing is left when the command has ended");
    nothing_runs(&dir, &ports).await;

    let begun = Instant::now();
    let mut dev = Dev::start(&dir).await;
    measured(&format!("dev: {:.1} s from a stopped folder to ready", begun.elapsed().as_secs_f64()));
    assert_eq!(dev.token, token, "the token stays");
    still_there(&dev, &before).await;

    let ports: Vec<u16> = dev.server_ports().into_iter().chain([dev.port()]).collect();
    dev.running.kill();
    nothing_runs(&dir, &ports).await;
    let mut dev = Dev::start(&dir).await;
    assert_eq!(dev.token, token, "the token stays");
    still_there(&dev, &before).await;
    dev.interrupt().await;
}

async fn still_there(dev: &Dev, before: &(BTreeMap<String, String>, Vec<Credential>)) {
    for (namespace, name) in [("team", "one"), ("team", "kept"), ("team", "from-file"), ("demo", "orders")] {
        dev.api().is_ready(namespace, name).await;
        works_for_an_application(&dev.secrets(), namespace, name).await;
    }
    assert!(picture(dev).await == *before, "claims or passwords have changed");
}

#[tokio::test]
async fn a_start_that_is_interrupted_leaves_nothing_and_the_next_one_succeeds() {
    let folder = Folder::new("early");
    let dir = folder.join("data");
    for (round, sign) in ["ledger: ", "cluster: "].into_iter().enumerate() {
        let mut running = Running::spawn(&Dev::command(&dir, 0), folder.path(), &format!("round-{round}"));
        running.find(sign, Duration::from_secs(60), |_, err| err.contains(sign).then_some(())).await;
        running.signal(Signal::INT);
        running.end(Duration::from_secs(40)).await;
        nothing_runs(&dir, &[]).await;
    }
    let mut dev = Dev::start(&dir).await;
    dev.api().is_ready("demo", "orders").await;
    dev.interrupt().await;
}

#[tokio::test]
async fn a_folder_that_the_servers_user_can_not_reach_works_all_the_same() {
    let folder = Folder::new("hidden");
    let private = folder.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let dir = private.join("data");
    let running = Running::spawn(&Dev::command(&dir, 0), folder.path(), "dev");
    let mut dev = Dev::up(running, &dir).await;
    dev.api().is_ready("demo", "orders").await;
    works_for_an_application(&dev.secrets(), "demo", "orders").await;
    assert_eq!(mode(&private), 0o700, "a folder that is not ours is left as it is");
    let elsewhere: Vec<_> =
        ["ledger", "cluster"].iter().filter_map(|part| fs::read_link(dir.join(part).join("nodes")).ok()).collect();
    if rustix::process::geteuid().is_root() {
        assert_eq!(elsewhere.len(), 2);
        let said = dev.running.stderr();
        assert!(
            elsewhere.iter().all(|path| said.contains(&*path.to_string_lossy())),
            "it says where the data is: {said}"
        );
    }
    dev.interrupt().await;
    for path in elsewhere {
        fs::remove_dir_all(path).unwrap();
    }
}

#[tokio::test]
async fn a_strict_umask_of_root_keeps_the_servers_from_nothing() {
    if !rustix::process::geteuid().is_root() {
        return skipped("a_strict_umask_of_root_keeps_the_servers_from_nothing: this is not root");
    }
    let folder = Folder::new("umask");
    let dir = folder.join("made/too/data");
    let dev = Dev::command(&dir, 0);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(dev.get_program()).args(dev.get_args());
    command.envs(dev.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut dev = Dev::up(Running::spawn(&command, folder.path(), "dev"), &dir).await;
    dev.api().is_ready("demo", "orders").await;
    for made in ["made", "made/too"] {
        assert_eq!(mode(&folder.join(made)), 0o755, "{made}");
    }
    assert!(fs::read_link(dir.join("cluster/nodes")).is_err(), "the data is in the folder itself");
    dev.interrupt().await;
}

#[tokio::test]
async fn no_token_no_answer() {
    let dev = shared::dev().await;
    Api::new(&dev.url, None).get("/v1/databases").await.problem(401, "unauthenticated");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}
