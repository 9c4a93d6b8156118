//! A lab whose HAProxies are behind an address that Keepalived moves: network namespaces, which take root.

use std::process::Command;
use std::time::Instant;

use pgtenant_lab::{LabKind, LabStatus};
use pgtenant_tests::{
    Cli, Credential, Folder, can, eventually, measured, processes_in, run, run_within, skipped, unique,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::topologies::{Cluster, PATIENCE};

async fn makes_namespaces() -> bool {
    let name = unique("pgt-try");
    let ip = async |word: &str| {
        let mut ip = Command::new("ip");
        ip.args(["netns", word, &name]);
        run(ip).await.status == 0
    };
    ip("add").await && ip("delete").await
}

/// Namespaces and links that a lab has made.
async fn networks() -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ip netns list; ip -brief link"]);
    run(shell).await.expect(0).stdout
}

/// Who has the address that moves.
fn holder(status: &LabStatus) -> Vec<&str> {
    let holds = status.services.iter().filter(|service| service.holds.is_some());
    holds.map(|service| service.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_follow_the_address_that_moves() {
    if !rustix::process::geteuid().is_root() || !makes_namespaces().await {
        skipped("a lab with Keepalived: network namespaces can not be made here");
        return;
    }
    let mut cluster = Cluster::detached_with(LabKind::Haproxy, &["--nodes", "2", "--keepalived", "--pgbouncer"]).await;
    assert_eq!(holder(&cluster.lab.status().await), ["balancer-1"]);
    let site = cluster.site().await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let (api, namespace) = (serve.api(), unique("moves"));
    api.ready(&namespace, "data").await;
    let admin = Credential::read(&site.secrets, &namespace, "data", "admin");
    assert!(cluster.lab.endpoints().write.iter().all(|address| admin.uri.contains(address)), "{}", admin.uri);
    can(&admin, "create table papers (n int primary key)").await;
    let write = Credential::read(&site.secrets, &namespace, "data", "write");
    let pooled = Credential::pooled(&site.secrets, &namespace, "data", "write");
    let insert = |n: i32| format!("insert into papers values ({n}) on conflict do nothing");

    // The machine with the address loses power.
    let began = Instant::now();
    cluster.lab.kill("balancer-1").await.unwrap();
    eventually("tenants write", PATIENCE, async || cluster.psql(&write, &insert(1)).await).await;
    let moved = began.elapsed();
    eventually("through the pool as well", PATIENCE, async || cluster.psql(&pooled, &insert(2)).await).await;
    measured(&format!("a tenant wrote {moved:?} after a balancer was killed, through PgBouncer {:?}", began.elapsed()));
    let status = cluster.lab.status().await;
    assert_eq!(holder(&status), ["balancer-2"]);
    assert!(!status.services.iter().any(|service| service.name == "balancer-1" && service.running));
    cluster.lab.start("balancer-1", |_| {}).await.unwrap();
    eventually("the first one has it again", PATIENCE, async || match holder(&cluster.lab.status().await)[..] {
        ["balancer-1"] => Ok(()),
        ref other => Err(format!("{other:?}")),
    })
    .await;

    // Its HAProxy alone.
    let home = cluster.lab.dir().join("nodes/balancer-1");
    let found = processes_in(&home).into_iter().find(|(_, command)| command.contains("haproxy.cfg"));
    let (pid, _) = found.expect("its HAProxy");
    let began = Instant::now();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("the address is at the other one", PATIENCE, async || match holder(&cluster.lab.status().await)[..] {
        ["balancer-2"] => Ok(()),
        ref other => Err(format!("{other:?}")),
    })
    .await;
    eventually("tenants write", PATIENCE, async || cluster.psql(&write, &insert(5)).await).await;
    measured(&format!("and {:?} after its HAProxy was killed", began.elapsed()));
    cluster.lab.start("balancer-1", |_| {}).await.unwrap();

    // And a primary.
    let primary = cluster.lab.primary().await.unwrap();
    let began = Instant::now();
    cluster.lab.kill(&primary).await.unwrap();
    eventually("tenants write", PATIENCE, async || cluster.psql(&write, &insert(3)).await).await;
    eventually("through the pool as well", PATIENCE, async || cluster.psql(&pooled, &insert(4)).await).await;
    measured(&format!("and {:?} after the primary was killed", began.elapsed()));

    let dir = cluster.lab.dir().display().to_string();
    let down = run_within(Cli::new().command(&["lab", "down", "--dir", &dir]), PATIENCE).await.expect(0);
    assert!(down.stderr.contains("balancer-1, balancer-2"), "{}", down.stderr);
    let id: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(cluster.lab.dir().join("lab.json")).unwrap()).unwrap();
    let left = networks().await;
    assert!(!left.contains(&format!("pgt-{}", id["id"].as_str().unwrap())), "{left}");
}

#[tokio::test]
async fn keepalived_is_chosen_at_the_beginning_and_for_haproxy_alone() {
    let folder = Folder::new("lab-keepalived");
    let dir = folder.join("lab").display().to_string();
    let lab = async |args: &[&str]| {
        run_within(Cli::new().command(&[&["lab"], args, &["--dir", &dir]].concat()), PATIENCE).await
    };
    let said = lab(&["up", "--topology", "patroni", "--keepalived"]).await.expect(1).stderr;
    assert!(said.contains("Keepalived is for a lab of kind haproxy"), "{said}");
    assert!(!folder.join("lab/lab.json").exists(), "nothing is made");
    if !rustix::process::geteuid().is_root() {
        let said = lab(&["up", "--topology", "haproxy", "--keepalived"]).await.expect(1).stderr;
        assert!(said.contains("which only root can make"), "{said}");
        return;
    }
    lab(&["up", "--topology", "haproxy", "--nodes", "1"]).await.expect(0);
    let said = lab(&["up", "--keepalived"]).await.expect(1).stderr;
    assert!(said.contains("was made without Keepalived"), "{said}");
    lab(&["down", "--remove", "--yes"]).await.expect(0);
}
