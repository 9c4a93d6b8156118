//! From the command to the way back.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use pgtenant_ledger::{StepDone, aside_done, cancel_restore, end_restore, note_progress, restore};
use pgtenant_model::{LeftOut, PutAside, RestorePhase, RestoreProgress, RestoreStrategy, Verification};
use serde_json::json;

use super::{ALICE, BOB, CAROL, Door, PLATFORM, QUIET, SHOP};
use crate::world::eventually;

#[tokio::test]
async fn a_restore_is_asked_for_approved_followed_and_gone_back_from() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let text = view.view.to_string();
    assert!(text.contains("2026-11-02 02:14 UTC · dump · 1.2 GB") && text.contains("shop/carts"), "{text}");
    assert!(!text.contains("secret"), "{text}");

    let filled = [("reason", json!("rows <!channel> are gone")), ("snapshot", json!("dump:202611000002"))];
    let reply = door.send(&door.slack.submit(BOB, &view.id, &filled)).await.expect(200);
    assert_eq!(reply.json, json!({"response_action": "clear"}));
    let asked = door.newest().await.unwrap().view;
    let id = asked.id;
    assert_eq!((&*asked.requested_by, asked.phase), ("slack:U0BOB", RestorePhase::Requested));
    assert_eq!(asked.spec.from.snapshot.unwrap().to_string(), "dump:202611000002");
    assert_eq!(asked.spec.strategy, RestoreStrategy::Swap);

    let tenant = door.sees(SHOP, id, |_| true).await;
    assert_eq!(tenant.buttons(), ["restore_cancel"], "in production the tenant's channel has no Approve");
    assert!(tenant.read().contains("rows &lt;!channel&gt; are gone") && tenant.read().contains("<@U0BOB>"));
    let platform = door.sees(PLATFORM, id, |_| true).await;
    assert_eq!(platform.buttons(), ["restore_approve", "restore_reject", "restore_cancel"]);

    door.presses(ALICE, PLATFORM, id, "restore_approve").await;
    let approved = door.sees(PLATFORM, id, |one| one.read().contains("approved by <@U0ALICE>")).await;
    assert_eq!((approved.buttons(), &approved.ts), (vec!["restore_cancel".to_owned()], &platform.ts));

    let work = door.takes("default").await;
    door.steps(&work, StepDone::new(RestorePhase::Copying, "copying 14 tables")).await;
    let progress = RestoreProgress {
        bytes: 420_000_000,
        bytes_total: Some(1_000_000_000),
        tables: 6,
        tables_total: Some(14),
        estimated_end: None,
    };
    note_progress(&mut door.world.ledger.acquire().await.unwrap(), &work, &progress).await.unwrap();
    let bar = "▓▓▓▓░░░░░░ 42 % · 420.0 MB of 1.0 GB · 6 of 14 tables";
    let key = format!("restore:{id}:{SHOP}");
    let part = door.sees_part(SHOP, &format!("{key}:progress"), |one| one.read().contains(bar)).await;
    assert_eq!(part.thread_ts.as_ref(), Some(&tenant.ts));
    let above = door.sees(SHOP, id, |one| one.read().contains("*Copying*")).await;
    assert!(!above.read().contains("42 %"), "how much is copied is said once in a channel: {}", above.read());

    let left =
        LeftOut { object: "extension \"postgis\"".into(), reason: "not here".into(), remedy: "ask for it".into() };
    let report =
        Verification { tables: 14, rows: 12_345, objects: 90, left_out: vec![left], ..Verification::default() };
    let before = PutAside { database: "shop-orders-before".into(), until: Utc::now() + TimeDelta::days(7) };
    let done =
        StepDone { report: Some(report), before: Some(before), ..StepDone::new(RestorePhase::Switching, "switching") };
    door.steps(&work, done).await;
    let mut tx = door.world.ledger.begin().await.unwrap();
    end_restore(&mut tx, &work, RestorePhase::Succeeded, "orders is as it was").await.unwrap();
    tx.commit().await.unwrap();
    let report = door.sees_part(SHOP, &format!("{key}:report"), |_| true).await;
    for said in
        ["90 objects, 14 tables with 12,345 rows", "No differences", "postgis", "ask for it", "shop-orders-before"]
    {
        assert!(report.read().contains(said), "{said}: {}", report.read());
    }
    assert!(report.buttons().is_empty(), "in production it takes somebody who may approve");
    door.send(&door.slack.press_forged(BOB, SHOP, "restore_undo", &id.to_string())).await.expect(200);
    assert!(door.told(1).await.contains("does not approve it"));
    door.send(&door.slack.press_forged("U0DAVE", SHOP, "restore_undo", &id.to_string())).await.expect(200);
    assert!(door.told(2).await.contains("approved by the platform team"));
    door.presses(CAROL, PLATFORM, id, "restore_undo").await;
    door.sees(PLATFORM, id, |one| one.buttons().is_empty() && one.read().contains("as <@U0CAROL> asked")).await;
    let work = door.takes("default").await;
    let aside = PutAside { database: "shop-orders-after".into(), until: Utc::now() + TimeDelta::days(7) };
    let mut tx = door.world.ledger.begin().await.unwrap();
    aside_done(&mut tx, &work, pgtenant_ledger::Aside::Undone(&aside), "it is as it was before").await.unwrap();
    tx.commit().await.unwrap();
    door.sees_part(SHOP, &format!("{key}:report"), |one| one.read().contains("It went back")).await;
    door.settles().await;
    assert_eq!(door.slack.count("chat.postMessage"), 6, "three messages in two channels, whatever happened");
    assert!(door.slack.messages(QUIET).is_empty());
    door.in_order();
}

#[tokio::test]
async fn who_has_asked_does_not_approve_in_production() {
    let door = Door::new().await;
    let id = door.asks(ALICE, "orders").await.view.id;
    door.presses(ALICE, PLATFORM, id, "restore_approve").await;
    assert!(door.told(1).await.contains("who asks for a restore on this cluster does not approve it"));
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    // The tenants' channel has no such button; whoever makes one up is refused.
    let forged = door.slack.press_forged(BOB, SHOP, "restore_approve", &id.to_string());
    door.send(&forged).await.expect(200);
    assert!(door.told(2).await.contains("approved by the platform team"));
    door.presses(CAROL, PLATFORM, id, "restore_approve").await;
    assert_eq!(door.phase(id).await, RestorePhase::Approved);
    door.settles().await;
    door.in_order();
}

#[tokio::test]
async fn outside_of_production_the_tenants_channel_approves() {
    let door = Door::new().await;
    let id = door.asks(BOB, "play").await.view.id;
    door.presses(BOB, SHOP, id, "restore_approve").await;
    assert_eq!(door.phase(id).await, RestorePhase::Approved);
    door.sees(PLATFORM, id, |one| one.read().contains("approved by <@U0BOB>")).await;
    door.presses(BOB, SHOP, id, "restore_cancel").await;
    door.sees(SHOP, id, |one| one.read().contains("being cancelled")).await;
    door.in_order();
}

#[tokio::test]
async fn a_request_is_rejected_or_cancelled() {
    let door = Door::new().await;
    let id = door.asks(BOB, "orders").await.view.id;
    door.presses(ALICE, PLATFORM, id, "restore_reject").await;
    let shown = door.sees(SHOP, id, |one| one.read().contains("*Rejected* by <@U0ALICE>")).await;
    assert!(shown.buttons().is_empty());
    let key = format!("restore:{id}:{SHOP}:report");
    door.sees_part(SHOP, &key, |one| one.read().contains("is over: rejected")).await;
    let id = door.asks(BOB, "orders").await.view.id;
    door.presses(BOB, SHOP, id, "restore_cancel").await;
    door.sees(PLATFORM, id, |one| one.read().contains("*Cancelled*")).await;
    // A button of a message that is not up to date yet.
    door.send(&door.slack.press_forged(ALICE, PLATFORM, "restore_approve", &id.to_string())).await.expect(200);
    assert!(door.told(1).await.contains("too late"));
    door.in_order();
}

#[tokio::test]
async fn what_was_asked_for_by_rest_is_shown_too() {
    let door = Door::new().await;
    let path = "/v1/namespaces/shop/databases/orders/restores";
    let body = json!({"from": {"latest": true}, "strategy": "copy", "copyName": "orders-old", "reason": "why <not>"});
    let reply = door.world.post(&door.world.platform, path, body).await.expect(202);
    let id = reply.json["id"].as_str().unwrap().parse().unwrap();
    let shown = door.sees(SHOP, id, |_| true).await;
    assert!(shown.read().contains("`token:platform`") && shown.read().contains("why &lt;not&gt;"), "{}", shown.read());
    assert!(shown.read().contains("orders-old"));
    door.presses(ALICE, PLATFORM, id, "restore_approve").await;
    door.sees(SHOP, id, |one| one.read().contains("approved by <@U0ALICE>")).await;
    door.in_order();
}

#[tokio::test]
async fn a_channel_that_is_told_nothing_is_told_of_what_was_asked_for_there() {
    let door = Door::new().await;
    let view = door.opens(BOB, QUIET, "carts").await;
    door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await.expect(200);
    let id = door.newest().await.unwrap().view.id;
    for channel in [QUIET, SHOP, PLATFORM] {
        door.sees(channel, id, |_| true).await;
    }
    let mut tx = door.world.ledger.begin().await.unwrap();
    cancel_restore(&mut tx, id, &pgtenant_ledger::Actor::new("token:x")).await.unwrap();
    tx.commit().await.unwrap();
    door.sees(QUIET, id, |one| one.read().contains("*Cancelled*")).await;
    door.in_order();
}

#[tokio::test]
async fn a_window_says_what_is_wrong_with_it_and_stays() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let submit = async |filled: &[(&str, serde_json::Value)]| {
        let reply = door.send(&door.slack.submit(BOB, &view.id, filled)).await.expect(200).json;
        assert_eq!(reply["response_action"], "errors", "{reply}");
        reply["errors"].as_object().unwrap().iter().next().map(|(k, v)| format!("{k}: {v}")).unwrap()
    };
    let reason = ("reason", json!("x"));
    assert!(submit(&[]).await.starts_with("reason: \"Say why"));
    for strategy in ["swap", "replace", "copy"] {
        assert!(view.view.to_string().contains(&format!("\"value\":\"{strategy}\"")), "{strategy}");
    }
    // What was filled in stays in the window.
    let not_copied = [reason.clone(), ("strategy", json!("replace")), ("copy", json!("old"))];
    assert!(submit(&not_copied).await.starts_with("copy: \"Choose Copy"));
    assert!(submit(&[("strategy", json!("swap")), ("copy", json!("old"))]).await.starts_with("copy: \"Choose Copy"));
    let nameless = [("strategy", json!("copy")), ("copy", json!(null))];
    assert!(submit(&nameless).await.starts_with("copy: \"missing"));
    assert!(submit(&[("copy", json!("Old <b>"))]).await.starts_with("copy: "));
    let both = [("time", json!(1_795_000_000)), ("snapshot", json!("dump:202611000001"))];
    assert!(
        submit(&[both.as_slice(), &[("strategy", json!("swap")), ("copy", json!(null))]].concat())
            .await
            .starts_with("time: ")
    );
    let gone = [("time", json!(null)), ("snapshot", json!("dump:../../etc"))];
    assert!(submit(&gone).await.starts_with("snapshot:shop/orders: "));
    assert!(door.newest().await.is_none());
    let sent = door.slack.submit(BOB, &view.id, &[("snapshot", json!("latest")), ("time", json!(1_795_000_000))]);
    assert_eq!(door.send(&sent).await.json, json!({"response_action": "clear"}));
    assert_eq!(door.newest().await.unwrap().view.spec.from.time.unwrap().timestamp(), 1_795_000_000);
    // Another window of the same database.
    let view = door.opens(BOB, SHOP, "orders").await;
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[reason])).await;
    assert!(reply.text.contains("is under way"), "{reply:?}");
    door.in_order();
}

#[tokio::test]
async fn a_database_is_chosen_in_the_window() {
    let door = Door::new().await;
    let before = door.slack.views().len();
    assert_eq!(door.types(BOB, SHOP, "restore").await.text, "");
    eventually("a window", || async { door.slack.views().len() > before }).await;
    let view = door.slack.views().pop().unwrap();
    assert!(view.view.to_string().contains("Choose a database"));
    let shows = async |text: &str| {
        eventually(text, || async { door.slack.views()[0].view.to_string().contains(text) }).await;
    };
    door.send(&door.slack.choose(BOB, &view.id, "database", "shop/carts")).await.expect(200);
    shows("2026-11-02 02:14 UTC").await;
    shows("snapshot:shop/carts").await;
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await;
    assert_eq!(reply.json, json!({"response_action": "clear"}));
    let asked = door.newest().await.unwrap().view;
    assert_eq!((&*asked.name, asked.spec.from.latest), ("carts", true));
    door.in_order();
}

#[tokio::test]
async fn a_database_that_is_chosen_anew_has_none_of_the_snapshots_before() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let filled = [("reason", json!("x")), ("snapshot", json!("dump:202611000001"))];
    // Sent off before the choice of another database has come to us.
    let both = [filled.as_slice(), &[("database", json!("shop/carts"))]].concat();
    let reply = door.send(&door.slack.submit(BOB, &view.id, &both)).await;
    assert!(reply.text.contains("still being looked for"), "{reply:?}");
    // Its snapshots can not be found for a while; there are none of the other one meanwhile.
    door.knows(Some(vec![super::snapshot(3)]), Duration::from_secs(2));
    door.send(&door.slack.choose(BOB, &view.id, "database", "shop/carts")).await.expect(200);
    let shown = async |text: &str| {
        eventually(text, || async { door.slack.views()[0].view.to_string().contains(text) }).await;
    };
    shown("snapshot:shop/carts").await;
    let now = door.slack.views()[0].view.to_string();
    assert!(now.contains("are being looked for") && !now.contains("dump:"), "{now}");
    let looked = || door.world.planner.looked.lock().unwrap().iter().any(|key| key.name() == "carts");
    eventually("a look", || async { looked() }).await;
    // And another one: what is found for the first comes too late.
    door.knows(Some(vec![super::snapshot(4)]), Duration::ZERO);
    door.send(&door.slack.choose(BOB, &view.id, "database", "shop/play")).await.expect(200);
    shown("dump:202611000004").await;
    eventually("an attempt for the first", || async {
        door.slack.calls().iter().any(|call| call.body.to_string().contains("dump:202611000003"))
    })
    .await;
    let now = door.slack.views()[0].view.to_string();
    assert!(now.contains("snapshot:shop/play") && !now.contains("dump:202611000003"), "{now}");
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[("snapshot", json!("dump:202611000004"))])).await;
    assert_eq!(reply.json, json!({"response_action": "clear"}));
    assert_eq!(door.newest().await.unwrap().view.name, "play");
    door.in_order();
}

#[tokio::test]
async fn snapshots_that_are_slow_or_unknown_hold_nobody_up() {
    let door = Door::new().await;
    door.knows(None, Duration::ZERO);
    let view = door.opens(BOB, SHOP, "orders").await;
    assert!(view.view.to_string().contains("the bucket &lt;gone&gt; does not answer. The newest one can be asked for"));
    assert!(door.types(BOB, SHOP, "snapshots orders").await.text.contains("&lt;gone&gt;"));
    door.knows(Some(vec![super::snapshot(3)]), Duration::from_millis(2200));
    let begun = std::time::Instant::now();
    assert!(door.types(BOB, SHOP, "snapshots orders").await.text.contains("Looking for"));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(door.told(1).await.contains("dump:202611000003"));
    door.in_order();
}

#[tokio::test]
async fn people_are_told_how_their_databases_are() {
    let door = Door::new().await;
    let list = door.types(BOB, SHOP, "list").await;
    assert_eq!(list.json["response_type"], "ephemeral");
    assert!(list.text.contains("`shop/orders` Pending") && !list.text.contains("secret"), "{list:?}");
    assert!(door.types(BOB, SHOP, "status").await.text.contains("3 Pending"));
    let status = door.types(BOB, SHOP, "status `shop/orders`").await;
    assert!(status.text.contains("shop-orders") && status.text.contains("on cluster default"), "{status:?}");
    assert!(door.types(BOB, SHOP, "snapshots orders").await.text.contains("dump:202611000001"));
    for typed in ["", "help", "drop orders", "RESTORE-ALL", "snapshots"] {
        assert!(door.types(BOB, SHOP, typed).await.text.contains("ask for a restore"), "{typed}");
    }
    assert!(door.types(ALICE, PLATFORM, "list").await.text.contains("other/secret"));
    let id = door.asks(BOB, "orders").await.view.id;
    assert!(door.types(BOB, SHOP, "status").await.text.contains("shop/orders: Requested"));
    let mut db = door.world.ledger.acquire().await.unwrap();
    assert!(restore(&mut db, id).await.unwrap().is_some());
    door.in_order();
}
