//! From the mistake to the way back, in Slack alone.

use pgtenant_tests::{SiteOptions, TIERS, can, eventually};
use serde_json::json;

use super::{ALICE, BOB, CAROL, PATIENCE, PLATFORM, SHOP, Workspace, phase, root};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_is_back_and_so_is_what_was_there_before() {
    let work = Workspace::open(SiteOptions::shared().await).await;
    let serve = work.serve("serve").await;
    let api = serve.api();
    work.stock(&api).await;
    let before = TIERS.map(|tier| work.credential(tier));
    can(&work.credential("admin"), "drop table orders; create table after_it (n int)").await;
    assert_eq!(work.orders().await, None);

    assert!(work.send(&api, &work.slack.command(BOB, SHOP, "list")).await.contains("/data` Ready"));
    assert!(work.send(&api, &work.slack.command(BOB, SHOP, "status data")).await.contains("Ready"));
    assert!(work.send(&api, &work.slack.command(BOB, SHOP, "snapshots data")).await.contains("dump:"));
    let id = work.ask(&api, ALICE).await;
    work.press(&api, ALICE, PLATFORM, &id, "restore_approve").await;
    eventually("a refusal", PATIENCE, || async {
        let told = work.slack.responses().iter().any(|one| one.to_string().contains("does not approve it"));
        if told { Ok(()) } else { Err(format!("{:?}", work.slack.responses())) }
    })
    .await;
    assert_eq!(phase(&api, &id).await, "Requested", "who has asked does not approve");
    work.press(&api, CAROL, PLATFORM, &id, "restore_approve").await;

    let key = root(&id, SHOP);
    let report = work.sees(SHOP, &format!("{key}:report"), |one| one.read().contains("over: done")).await;
    assert!(report.read().contains("500 rows") && report.read().contains("No differences"), "{}", report.read());
    let message = work.sees(SHOP, &key, |one| one.read().contains("*Done*")).await;
    assert!(message.read().contains("approved by <@U0CAROL>"), "{}", message.read());
    let progress = work.sees(SHOP, &format!("{key}:progress"), |one| one.read().contains("Cleaning up")).await;
    for part in [&report, &progress] {
        assert_eq!(part.thread_ts.as_ref(), Some(&message.ts), "it stands in the thread");
    }
    assert_eq!(work.orders().await, Some(500));
    assert_eq!(TIERS.map(|tier| work.credential(tier)), before, "no new password");

    work.press(&api, CAROL, PLATFORM, &id, "restore_undo").await;
    work.sees(SHOP, &format!("{key}:report"), |one| one.read().contains("It went back")).await;
    assert_eq!(work.orders().await, None);
    can(&work.credential("admin"), "select from after_it").await;

    // What is asked for elsewhere is shown in the same way.
    let path = format!("/v1/namespaces/{}/databases/data/restores", work.namespace);
    let by_rest = api.post(&path, json!({"from": {"latest": true}})).await.expect(202).json;
    let id = by_rest["id"].as_str().unwrap();
    work.sees(SHOP, &root(id, SHOP), |one| one.read().contains("token:tests")).await;
    work.press(&api, ALICE, PLATFORM, id, "restore_reject").await;
    work.sees(SHOP, &root(id, SHOP), |one| one.read().contains("*Rejected* by <@U0ALICE>")).await;
    work.settled().await;
    work.in_order(&[&serve]);
}
