//! Drills: the primary of a lab is killed, and clients such as a tenant has measure what comes of it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgtenant_lab::{LabKind, LabRole};
use pgtenant_tests::{Cli, Credential, Finished, Serve, Site, eventually, measured, run_within};
use serde_json::Value;

use crate::topologies::Cluster;

const PATIENCE: Duration = Duration::from_secs(300);

async fn drill(cluster: &Cluster, site: &Site, serve: &Serve, more: &[&str]) -> Finished {
    let (lab, secrets) = (cluster.lab.dir().display().to_string(), site.secrets.display().to_string());
    let mut args = vec!["cluster", "drill", "default", "--lab", &lab, "--secrets-dir", &secrets, "--output", "json"];
    args.extend(more);
    let cli = Cli::of(&serve.url, &site.token);
    run_within(cli.command(&args), PATIENCE).await
}

/// What an operator would type to see it, without pgtenant: psql, again and again. The longest time from one answer to the next.
async fn psql_loop(cluster: &Cluster, credential: &Credential, ended: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !ended.load(Ordering::Relaxed) {
        let answered = cluster.psql(credential, "insert into beside default values").await.is_ok();
        longest = longest.max(last.elapsed());
        if answered {
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    longest
}

/// With nothing lost where replication is synchronous, and everybody back.
async fn passes(kind: LabKind) -> Value {
    let cluster = Cluster::detached(kind).await;
    let site = cluster.site().await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let picture = site.path().join("drill.svg");
    serve.api().ready("floor", "beside").await;
    let read = |tier| Credential::read(&site.secrets, "floor", "beside", tier);
    cluster.psql(&read("admin"), "create table beside (n serial)").await.unwrap();
    let (svg, writer, ended) = (picture.display().to_string(), read("write"), AtomicBool::new(false));
    let drilled = async {
        let ran = drill(&cluster, &site, &serve, &["--svg", &svg]).await;
        ended.store(true, Ordering::Relaxed);
        ran
    };
    let (ran, floor) = tokio::join!(drilled, psql_loop(&cluster, &writer, &ended));
    let report = ran.expect(0).json();
    let seconds = |value: &Value| value.as_f64().unwrap_or(f64::NAN) / 1000.0;
    let added = seconds(&report["claimsAgainMs"]) - floor.as_secs_f64();
    measured(&format!(
        "drill of {kind:?}: a psql loop {:.1} s, pgtenant {added:+.1} s beside it; writes {:.1} s, reads {:.1} s, databases {:.1} s, members {:.1} s, {} lost, synchronous {}",
        floor.as_secs_f64(),
        seconds(&report["writes"]["longestGapMs"]),
        seconds(&report["reads"]["longestGapMs"]),
        seconds(&report["claimsAgainMs"]),
        seconds(&report["recoveredMs"]),
        report["lost"],
        report["synchronous"],
    ));
    assert!(fs::read_to_string(picture).unwrap().contains("was stopped at"));
    report
}

/// What all have in common, whoever promotes.
fn is_good(report: &Value, synchronous: bool) {
    assert_eq!((&report["passed"], &report["means"]), (&true.into(), &"kill".into()), "{report}");
    assert_ne!(report["primary"], report["formerPrimary"], "{report}");
    assert_eq!(report["synchronous"], synchronous, "{report}");
    if synchronous {
        assert_eq!(report["lost"], 0, "{report}");
    }
    assert!(report["writes"]["answered"].as_u64() > Some(50) && report["reads"]["answered"].as_u64() > Some(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streaming() {
    is_good(&passes(LabKind::Streaming).await, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_patroni() {
    is_good(&passes(LabKind::Patroni).await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pg_auto_failover() {
    is_good(&passes(LabKind::PgAutoFailover).await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_repmgr() {
    is_good(&passes(LabKind::Repmgr).await, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_haproxy() {
    is_good(&passes(LabKind::Haproxy).await, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_exit_status_says_what_fell_short() {
    let mut cluster = Cluster::detached(LabKind::Streaming).await;
    let site = cluster.site().await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;

    // Nobody promotes within a millisecond: it is told as a failure, and kept as one.
    let over = drill(&cluster, &site, &serve, &["--rto", "1ms"]).await.expect(2).json();
    let problems = over["problems"].to_string();
    assert!(over["passed"] == false && problems.contains("no write was answered for"), "{over}");
    let api = serve.api();
    let kept = api.list("/v1/clusters/default/drills").await;
    assert_eq!(
        (kept.len(), &kept[0]["problems"], &kept[0]["requestedBy"]),
        (1, &over["problems"], &"token:tests".into())
    );
    assert!(serve.metric("pgtenant_cluster_drill_gap_seconds").await >= 0.0);
    let cli = Cli::of(&serve.url, &site.token);
    let listed = cli.run(&["cluster", "drills", "default"]).await.expect(0).stdout;
    assert!(listed.contains("failed") && listed.contains("no write was answered for"), "{listed}");

    // What is not a lab's is not stopped without a word of its own, and a command's failure is told.
    let stop = ["cluster", "drill", "default", "--stop-with", "exit 7"];
    let refused = cli.run(&stop).await.expect(2);
    assert!(refused.stderr.contains("--i-mean-it"), "{}", refused.stderr);
    let secrets = site.secrets.display().to_string();
    let failing = [&stop[..], &["--i-mean-it", "--yes", "--secrets-dir", &secrets]].concat();
    let failed = cli.run(&failing).await.expect(2);
    assert!(failed.stdout.contains("`exit 7` failed"), "{}", failed.stdout);

    // What no drill has made is not taken for its own.
    api.ready("theirs", "drill-default").await;
    let theirs = drill(&cluster, &site, &serve, &["--namespace", "theirs"]).await.expect(1);
    assert!(theirs.stderr.contains("no drill has made"), "{}", theirs.stderr);
    api.is_ready("theirs", "drill-default").await;

    // Nothing here can stop a server that is nobody's lab.
    let nobodys = Cli::of(&serve.url, &site.token).env("HOME", site.path()).env("XDG_DATA_HOME", site.path());
    let helpless = nobodys.run(&["cluster", "drill", "default"]).await.expect(3);
    assert!(helpless.stderr.contains("has no switchover of its own"), "{}", helpless.stderr);

    // A cluster that lacks a member is left alone.
    let standby = cluster.lab.status().await.nodes.into_iter().find(|node| node.role == LabRole::Standby).unwrap();
    cluster.lab.kill(&standby.name).await.unwrap();
    eventually("it is missed", PATIENCE, || async {
        let topology = api.get("/v1/clusters/default/topology").await.expect(200).text;
        if topology.contains("unreachable") { Ok(()) } else { Err(topology) }
    })
    .await;
    let unwell = drill(&cluster, &site, &serve, &[]).await.expect(1);
    assert!(
        unwell.stderr.contains("is not healthy") && unwell.stderr.contains("nothing was stopped"),
        "{}",
        unwell.stderr
    );
}
