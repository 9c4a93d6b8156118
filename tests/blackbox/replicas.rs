//! Several replicas on one ledger share the work, and one that stalls is fenced.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use pgtenant_tests::{
    Api, Serve, Site, SiteOptions, eventually, files_below, measured, never, rows, unique, works_for_an_application,
};
use rustix::process::Signal;
use serde_json::json;

const CLAIMS: usize = 60;
/// How many claims a replica has made Ready.
const MADE: &str = "pgtenant_time_to_ready_seconds_count";

async fn site() -> Site {
    let level = "info,pgtenant=debug,sqlx=debug".to_owned();
    let (look, lease) = ("10m".to_owned(), "5s".to_owned());
    Site::new(SiteOptions { look, lease, level, ..SiteOptions::shared().await }).await
}

/// The claim that a replica holds at its fault point.
async fn stalled(serve: &Serve) -> String {
    let line = serve
        .running
        .find("a claim at the fault point", Duration::from_secs(30), |_, log| {
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.into_iter().find(|line| line["message"] == "fault point")
        })
        .await;
    let claim = line["span"]["claim"].as_str().or(line["claim"].as_str()).unwrap_or_else(|| panic!("{line}"));
    claim.split_once('/').expect("namespace/name").1.to_owned()
}

/// Makes claims until the replica has made so many of all Ready: which one takes which is left to chance.
async fn has_made(serve: &Serve, least: f64, api: &Api, namespace: &str) {
    eventually("the replica has made its share", Duration::from_secs(120), || async {
        let made = serve.metric(MADE).await;
        if made >= least {
            return Ok(());
        }
        let more: Vec<String> = (0..12).map(|_| unique("more")).collect();
        join_all(more.iter().map(|name| api.ready(namespace, name))).await;
        Err(format!("{made} of {least}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_share_the_claims_and_one_that_was_stopped_breaks_nothing_when_it_wakes() {
    let site = site().await;
    let namespace = unique("share");
    // Longer than it takes to be seen and stopped there, and over when the others have done the rest.
    let fault = [("PGTENANT_FAULT", "stall=5s@after:store")];
    let (first, second) = (site.serve("first").await, site.serve("second").await);
    let third = site.serve_with("third", &fault).await;
    for serve in [&first, &second, &third] {
        serve.is_ready().await;
    }
    let apis = [first.api(), second.api()];
    let mut names: Vec<String> = (0..CLAIMS).map(|number| format!("db-{number:02}")).collect();
    let (begun, stopped) = (Instant::now(), Cell::new(false));
    let asked = async {
        let create = async |(number, name): (usize, &String)| drop(apis[number % 2].create(&namespace, name).await);
        stream::iter(names.iter().enumerate()).for_each_concurrent(12, create).await;
        // The third one may have come too late for all of them.
        let mut late = 0;
        while !stopped.get() {
            apis[0].ready(&namespace, &format!("late-{late}")).await;
            late += 1;
        }
        late
    };
    let stop = async {
        let name = stalled(&third).await;
        third.running.signal(Signal::STOP);
        stopped.set(true);
        name
    };
    let (late, held) = futures::join!(asked, stop);
    names.extend((0..late).map(|number| format!("late-{number}")));

    // The two others do all the rest at once, and what the third one held when its leases have run out.
    for name in &names {
        apis[0].is_ready(&namespace, name).await;
    }
    measured(&format!(
        "replicas: {} claims Ready after {:.1} s with a third replica stopped",
        names.len(),
        begun.elapsed().as_secs_f64()
    ));
    for serve in [&first, &second] {
        has_made(serve, 5.0, &apis[0], &namespace).await;
    }

    // What it held is gone by the time it wakes; it must not come back.
    let database = format!("{namespace}-{held}");
    first.api().delete(&format!("/v1/namespaces/{namespace}/databases/{held}")).await.expect(202);
    first.api().is_gone(&namespace, &held).await;
    third.running.signal(Signal::CONT);
    let untouched = || async {
        let sql = format!(
            "select datname::text from pg_database where datname = '{database}' union all
             select rolname from pg_roles where rolname like '{database}-%'"
        );
        let found = rows(&site.superuser, None, &sql).await;
        let files: Vec<_> =
            files_below(&site.secrets).into_iter().filter(|file| file.contains(&format!("{database}-"))).collect();
        if found.is_empty() && files.is_empty() { Ok(()) } else { Err(format!("{found:?} {files:?}")) }
    };
    never("the replica that woke up has done something", Duration::from_secs(5), untouched).await;
    assert!(third.running.is_running(), "{}", third.running.said());
    eventually("it says that it was fenced", Duration::from_secs(20), || async {
        let fenced = third.metric("pgtenant_fenced_total").await;
        if fenced >= 1.0 { Ok(()) } else { Err(third.running.said()) }
    })
    .await;
    untouched().await.expect("what it held is still gone");
    // It works on, as one of three.
    let made = third.metric(MADE).await;
    has_made(&third, made + 1.0, &apis[0], &namespace).await;
    for name in names.iter().filter(|name| **name != held).step_by(6) {
        works_for_an_application(&site.secrets, &namespace, name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_stopped_in_a_rotation_does_not_set_its_old_idea_of_the_password() {
    let site = site().await;
    let namespace = unique("stale");
    let first = site.serve("first").await;
    first.is_ready().await;
    first.api().ready(&namespace, "db").await;
    drop(first);
    let stalling = site.serve_with("stalling", &[("PGTENANT_FAULT", "stall=1s@after:store")]).await;
    let path = format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate");
    stalling.api().ask(&path).await.expect(202);
    assert_eq!(stalled(&stalling).await, "db");
    stalling.running.signal(Signal::STOP);
    let second = site.serve("second").await;
    second.api().is_ready(&namespace, "db").await;
    // A rotation after it: whatever the stopped one knows is old now.
    second.api().post(&path, json!({"tiers": ["read", "write", "admin"]})).await.expect(202);
    second.api().is_ready(&namespace, "db").await;
    let passwords = pgtenant_tests::Credential::of(&site.secrets, &namespace, "db");
    stalling.running.signal(Signal::CONT);
    never("a password was changed", Duration::from_secs(5), || async {
        for (tier, known) in pgtenant_tests::TIERS.iter().zip(&passwords) {
            if pgtenant_tests::Credential::try_read(&site.secrets, &namespace, "db", tier)? != *known {
                return Err(format!("{tier}: another password is stored"));
            }
            pgtenant_tests::try_sql(known, "select 1").await.map_err(|state| format!("{tier}: {state}"))?;
        }
        Ok(())
    })
    .await;
    works_for_an_application(&site.secrets, &namespace, "db").await;
}
