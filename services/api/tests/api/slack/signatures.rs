//! Only what Slack signed, and only once.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use pgtenant_api::ApiSettings;
use serde_json::json;

use super::{BOB, Door, SHOP};
use crate::world::World;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn only_what_slack_has_signed_just_now_is_answered() {
    let door = Door::new().await;
    let good = || door.slack.command(BOB, SHOP, "list");
    door.send(&good()).await.expect(200);
    door.send(&good().signed_at(now() - 290)).await.expect(200);
    let mut changed = good();
    changed.body = changed.body.replace("list", "help");
    let mut doubled = good();
    doubled.headers.push(("x-slack-signature", "v0=00".to_owned()));
    let bare = |name: &str| {
        let mut request = good();
        request.headers.retain(|(header, _)| *header != name);
        request
    };
    for request in [
        changed,
        doubled,
        bare("x-slack-signature"),
        bare("x-slack-request-timestamp"),
        good().signed_at(now() - 310),
        good().signed_at(now() + 310),
        good().with("x-slack-request-timestamp", &(now() - 1).to_string()),
        good().with("x-slack-signature", "v0="),
        good().with("x-slack-signature", &format!("v0={}", "0".repeat(64))),
        good().with("x-slack-signature", "ü"),
    ] {
        let reply = door.send(&request).await.expect_problem(401, "invalid-signature");
        assert!(!reply.text.contains("shop"), "{reply:?}");
    }
    let mut large = good();
    large.body.push_str(&"x".repeat(110_000));
    door.send(&large.signed_at(now())).await.expect_problem(413, "body-too-large");
    door.send(&door.slack.command(BOB, SHOP, "list").retried()).await.expect(200);
    door.in_order();
}

#[tokio::test]
async fn a_replay_is_refused_and_a_retry_does_nothing_again() {
    let door = Door::new().await;
    let list = door.slack.command(BOB, SHOP, "list");
    assert!(door.send(&list).await.expect(200).text.contains("orders"));
    door.send(&list).await.expect_problem(401, "invalid-signature");
    assert_eq!(door.send(&list.clone().retried()).await.expect(200).text, "");

    let view = door.opens(BOB, SHOP, "orders").await;
    let asked = door.slack.submit(BOB, &view.id, &[("reason", json!("x"))]);
    let retried = asked.clone().retried();
    let (first, second) = tokio::join!(door.send(&retried), door.send(&retried));
    for reply in [first, second] {
        assert_eq!(reply.expect(200).json, json!({"response_action": "clear"}));
    }
    door.send(&asked).await.expect_problem(401, "invalid-signature");
    // Slack signs a retry anew.
    let anew = asked.clone().signed_at(now() - 5).retried();
    assert_eq!(door.send(&anew).await.expect(200).json, json!({"response_action": "clear"}));
    assert_eq!(door.world.count("select count(*) from restores").await, 1);
    assert_eq!(door.world.count("select count(*) from audit where action = 'restore.request'").await, 1);
    door.in_order();
}

#[tokio::test]
async fn a_replay_is_known_however_it_is_written_and_wherever_it_is_sent() {
    let door = Door::new().await;
    let (other, running) = door.another_with(|_| {});
    let list = door.slack.command(BOB, SHOP, "list");
    door.send(&list).await.expect(200);
    door.send_to(&other, &list).await.expect_problem(401, "invalid-signature");
    let (_, signature) = list.headers.iter().find(|(name, _)| *name == "x-slack-signature").unwrap().clone();
    let upper = format!("v0={}", signature[3..].to_uppercase());
    let (_, at) = list.headers.iter().find(|(name, _)| *name == "x-slack-request-timestamp").unwrap().clone();
    for (header, value) in [
        ("x-slack-signature", upper),
        ("x-slack-signature", format!(" {signature}")),
        ("x-slack-request-timestamp", format!("+{at}")),
        ("x-slack-request-timestamp", format!("0{at}")),
    ] {
        door.send(&list.clone().with(header, &value)).await.expect_problem(401, "invalid-signature");
    }
    running.abort();
    door.in_order();
}

#[tokio::test]
async fn what_was_refused_is_not_forgotten() {
    let door = Door::new().await;
    let id = door.asks(BOB, "orders").await.view.id;
    let approve = door.slack.press_forged(BOB, SHOP, "restore_approve", &id.to_string());
    let stranger = door.slack.press_forged(BOB, "C0NOWHERE", "restore_approve", &id.to_string());
    let view = door.opens(BOB, SHOP, "carts").await;
    let foreign = door.slack.submit(BOB, &view.id, &[("reason", json!("x")), ("database", json!("other/secret"))]);
    for (count, refused) in [&approve, &stranger].into_iter().enumerate() {
        door.send(refused).await.expect(200);
        door.told(count + 1).await;
    }
    assert!(door.send(&foreign).await.expect(200).text.contains("There is no database"));
    // Whoever has kept them sends them at a better time.
    door.world.execute("update clusters set spec = jsonb_set(spec, '{environment}', '\"dev\"')").await;
    door.world.execute("update claims set namespace = 'shop' where name = 'secret'").await;
    for kept in [&approve, &stranger, &foreign] {
        door.send(kept).await.expect_problem(401, "invalid-signature");
    }
    assert!(door.send(&foreign.retried()).await.expect(200).text.contains("It was not taken before"));
    assert_eq!(door.phase(id).await, pgtenant_model::RestorePhase::Requested);
    assert_eq!(door.world.count("select count(*) from restores").await, 1);
    // The window itself can be mended and sent again.
    let mended = door.slack.submit(BOB, &view.id, &[("database", json!("shop/carts"))]);
    assert_eq!(door.send(&mended).await.expect(200).json, json!({"response_action": "clear"}));
    door.in_order();
}

#[tokio::test]
async fn a_ledger_that_is_slow_keeps_nobody_waiting_for_longer_than_slack_does() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let mut tx = door.world.ledger.begin().await.unwrap();
    sqlx::query("lock table slack_seen").execute(&mut *tx).await.unwrap();
    let submit = door.slack.submit(BOB, &view.id, &[("reason", json!("x"))]);
    let choose = door.slack.choose(BOB, &view.id, "database", "shop/carts");
    let suggest = door.slack.suggest(BOB, &view.id, "database", "x");
    let press = door.slack.press_forged(BOB, SHOP, "restore_cancel", "x");
    let list = door.slack.command(BOB, SHOP, "list");
    let in_time = async |request: &pgtenant_testkit::SlackRequest, said: &str| {
        let begun = std::time::Instant::now();
        let reply = door.send(request).await.expect(200);
        assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{said}: {:?}", begun.elapsed());
        assert!(reply.text.contains(said), "{reply:?}");
    };
    tokio::join!(
        in_time(&list, "slow to answer"),
        in_time(&submit, "slow to answer"),
        in_time(&choose, ""),
        in_time(&suggest, "options"),
        in_time(&press, ""),
    );
    assert!(door.told(1).await.contains("slow to answer"));
    tx.rollback().await.unwrap();
    // Nothing of it was taken for done.
    assert_eq!(door.send(&submit).await.expect(200).json, json!({"response_action": "clear"}));
    door.in_order();
}

#[tokio::test]
async fn those_who_have_not_proven_anything_take_no_place_of_others() {
    let door = Door::new().await;
    let settings = ApiSettings { max_in_flight: 2, failures_burst: 3, ..door.world.state_settings() };
    let world = World::over(door.world.ledger.clone(), settings, std::array::from_fn(|_| String::new()));
    let signed = door.slack.command(BOB, SHOP, "list");
    let slow = |headers: bool| {
        let mut request = Request::builder().method("POST").uri("/slack/commands");
        for (name, value) in signed.headers.iter().filter(|_| headers) {
            request = request.header(*name, value);
        }
        // A body that never comes.
        request.body(Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())).unwrap()
    };
    // Without the headers nobody waits for a body.
    for _ in 0..3 {
        world.send(slow(false)).await.expect_problem(401, "invalid-signature");
    }
    world.send(slow(false)).await.expect_problem(429, "too-many-requests");
    let many = futures::future::join_all((0..40).map(|_| world.send(slow(true))));
    let meanwhile = async {
        for _ in 0..20 {
            world.get(&door.world.platform, "/v1/databases").await.expect(200);
        }
    };
    let (replies, ()) = tokio::join!(many, meanwhile);
    let of = |slug: &str| replies.iter().filter(|reply| reply.problem() == slug).count();
    assert_eq!((of("request-timeout"), of("overloaded")), (32, 8));
    door.send_to(&world, &signed).await.expect(200);
}

#[tokio::test]
async fn what_could_not_be_done_may_be_sent_again() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let asked = door.slack.submit(BOB, &view.id, &[("reason", json!("x"))]);
    door.world.execute("alter table restores rename to away").await;
    let reply = door.send(&asked).await.expect(200);
    assert_eq!(reply.json["response_action"], "errors");
    assert!(!reply.text.contains("relation"), "{reply:?}");
    door.world.execute("alter table away rename to restores").await;
    let reply = door.send(&asked.retried()).await.expect(200);
    assert_eq!(reply.json, json!({"response_action": "clear"}));
    assert_eq!(door.world.count("select count(*) from restores").await, 1);
    door.in_order();
}

#[tokio::test]
async fn a_button_that_is_pressed_twice_does_one_thing() {
    let door = Door::new().await;
    let id = door.asks(BOB, "play").await.view.id;
    let pressed = door.slack.press_forged(BOB, SHOP, "restore_approve", &id.to_string());
    door.send(&pressed).await.expect(200);
    door.send(&pressed.clone().retried()).await.expect(200);
    door.send(&pressed.signed_at(now() - 3).retried()).await.expect(200);
    assert_eq!(door.world.count("select count(*) from audit where action = 'restore.approve'").await, 1);
    assert!(door.slack.responses().is_empty());
    door.in_order();
}

#[tokio::test]
async fn what_is_no_interaction_is_refused() {
    let door = Door::new().await;
    for body in ["", "payload=", "payload=%7B", "payload=%7B%22type%22%3A%22block_actions%22%7D", "x=y"] {
        let mut request = door.slack.press_forged(BOB, SHOP, "restore_cancel", "x");
        request.body = body.to_owned();
        door.send(&request.signed_at(now())).await.expect_problem(400, "bad-request");
    }
    let mut other = door.slack.press_forged(BOB, SHOP, "x", "x");
    other.body = "payload=%7B%22type%22%3A%22shortcut%22%7D".to_owned();
    assert_eq!(door.send(&other.signed_at(now())).await.expect(200).text, "");
    let mut check = door.slack.command(BOB, SHOP, "list");
    check.body = "ssl_check=1&token=x".to_owned();
    assert_eq!(door.send(&check.signed_at(now())).await.expect(200).text, "");
    door.in_order();
}

#[tokio::test]
async fn without_slack_there_is_no_such_path() {
    let world = World::new().await;
    for path in ["/slack/commands", "/slack/interactions"] {
        let request = Request::builder().method("POST").uri(path).body(Body::from("x=y")).unwrap();
        world.send(request).await.expect_problem(404, "no-such-route");
    }
    pgtenant_api::run_slack(world.state.clone()).await;
}
