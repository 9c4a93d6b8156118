//! Replicas that are killed, a ledger that stops, a Slack that is down.

use pgtenant_testkit::SlackDisturbance;
use pgtenant_tests::{Own, SiteOptions, eventually, soon};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

use super::{BOB, CAROL, PATIENCE, PLATFORM, SHOP, Workspace, key_of, phase, root};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_in_the_middle_of_something_repeat_nothing() {
    let work = Workspace::open(SiteOptions::shared().await).await;
    let (mut one, mut two) = (work.serve("one").await, work.serve("two").await);
    work.stock(&one.api()).await;
    work.settled().await;

    // While it writes the wish down: everybody waits for this lock.
    let view = work.window(&one.api(), BOB).await;
    let sent = work.slack.submit(BOB, &view, &[("reason", json!("x"))]);
    let mut holder = PgConnection::connect_with(&work.site.ledger).await.unwrap();
    let mut lock = holder.begin().await.unwrap();
    sqlx::raw_sql("lock table restores in share row exclusive mode").execute(&mut *lock).await.unwrap();
    let api = one.api();
    let cut_off = async {
        let waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                     and query like 'insert into restores%'";
        soon("the wish is being written", || async {
            if work.site.ledger_rows(&waits.replace("select 1", "select '1'::text")).await.is_empty() {
                Err("not yet".to_owned())
            } else {
                Ok(())
            }
        })
        .await;
        one.running.kill();
    };
    let (answer, ()) = tokio::join!(work.try_send(&api, &sent), cut_off);
    answer.expect_err("it was killed before it could answer");
    lock.rollback().await.unwrap();
    // Slack sends it again, and the other one takes it; once more, and nothing happens.
    let api = two.api();
    for _ in 0..2 {
        let answer = work.send(&api, &sent.clone().retried()).await;
        assert_eq!(answer, json!({"response_action": "clear"}).to_string());
    }
    let all = api.list("/v1/restores").await;
    assert_eq!(all.len(), 1, "{all:#?}");
    let id = all[0]["id"].as_str().unwrap().to_owned();
    work.settled().await;

    // While it sends messages: Slack has them, and nobody has heard so.
    one = work.serve("three").await;
    let before = work.slack.count("chat.postMessage");
    work.slack.disturb("chat.postMessage", SlackDisturbance::Slow(Duration::from_secs(8)), 2);
    work.press(&api, CAROL, PLATFORM, &id, "restore_reject").await;
    soon("a message is on its way", || async {
        let now = work.slack.count("chat.postMessage");
        if now > before { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    one.running.kill();
    two.running.kill();
    let last = work.serve("last").await;
    work.settled().await;
    assert_eq!(phase(&last.api(), &id).await, "Rejected");
    work.in_order(&[&one, &two, &last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_ledger_everybody_is_answered_in_time() {
    let mut own = Own::start(false, &[]).await;
    let work = Workspace::open(SiteOptions { ledger: own.place(), ..SiteOptions::shared().await }).await;
    let serve = work.serve("serve").await;
    let api = serve.api();
    work.stock(&api).await;
    let view = work.window(&api, BOB).await;
    let data = format!("{}/data", work.namespace);
    own.cluster.stop().await.unwrap();
    for round in 0..2 {
        for typed in ["list", "status", "status data", "snapshots data", "restore data", "help"] {
            let told = work.send(&api, &work.slack.command(BOB, SHOP, typed)).await;
            assert!(told.contains("try again"), "{round} {typed}: {told}");
        }
        let submit = work.slack.submit(BOB, &view, &[("reason", json!("x"))]);
        assert!(work.send(&api, &submit).await.contains("errors"));
        assert_eq!(work.send(&api, &work.slack.choose(BOB, &view, "database", &data)).await, "");
        assert!(work.send(&api, &work.slack.suggest(BOB, &view, "database", "x")).await.contains("options"));
        let id = "00000000-0000-0000-0000-000000000000";
        assert_eq!(work.send(&api, &work.slack.press_forged(BOB, SHOP, "restore_cancel", id)).await, "");
    }
    own.cluster.start(|_| {}).await.unwrap();
    serve.is_ready().await;
    let submit = work.slack.submit(BOB, &view, &[("reason", json!("x"))]);
    eventually("it goes on by itself", PATIENCE, || async {
        let told = work.send(&api, &submit.clone().retried()).await;
        if told.contains("clear") { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(api.list("/v1/restores").await.len(), 1);
    work.settled().await;
    work.in_order(&[&serve]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_slack_was_down_is_told_in_its_order() {
    let work = Workspace::open(SiteOptions::shared().await).await;
    let serve = work.serve("serve").await;
    let api = serve.api();
    work.stock(&api).await;
    work.settled().await;
    work.slack.set_down(true);
    let path = format!("/v1/namespaces/{}/databases/data/restores", work.namespace);
    let mut wanted = Vec::new();
    for _ in 0..3 {
        let asked = api.post(&path, json!({"from": {"latest": true}})).await.expect(202).json;
        let id = asked["id"].as_str().unwrap().to_owned();
        api.ask(&format!("/v1/restores/{id}/reject")).await.expect(200);
        let root = root(&id, SHOP);
        let report = format!("{root}:report");
        soon("it is to be told", || async {
            let found = work.site.ledger_rows(&format!("select key from slack_messages where key = '{report}'")).await;
            if found.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
        })
        .await;
        wanted.extend([root, report]);
    }
    let tried = "select fault from slack_messages where fault is not null";
    soon("tries", || async {
        if work.site.ledger_rows(tried).await.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    work.slack.set_down(false);
    work.settled().await;
    let told: Vec<_> = work.slack.messages(SHOP).iter().map(key_of).filter(|key| key.starts_with("restore:")).collect();
    assert_eq!(told, wanted);
    for message in work.slack.messages(SHOP) {
        assert_eq!(message.edits, 0, "only how it is by then is told");
    }
    work.in_order(&[&serve]);
}
