//! What becomes of claims.

use axum::http::Method;
use pgtenant_ledger::{Actor, NewEvent, StepDone, append_event, ask_test, end_restore, step_done, take_restore};
use pgtenant_model::{EventKind, RestorePhase};
use pgtenant_testkit::SlackText;
use serde_json::{Value, json};

use super::{BOB, Door, OTHER, PLATFORM, QUIET, SHOP};
use crate::world::eventually;

impl Door {
    async fn happens(&self, kind: EventKind, namespace: Option<&str>, name: &str, message: &str, detail: Value) {
        let mut tx = self.world.ledger.begin().await.unwrap();
        let event = NewEvent { kind, namespace, name, message: message.to_owned(), detail };
        append_event(&mut tx, event).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn fails(&self, name: &str, reason: &str) {
        let message = format!("shop/{name}: at step roles: <b>{reason}</b>. What to do: make room & wait");
        let detail = json!({"step": "roles", "reason": reason});
        self.happens(EventKind::Failed, Some("shop"), name, &message, detail).await;
    }

    async fn news(&self, channel: &str, count: usize) -> Vec<SlackText> {
        eventually(&format!("{count} news in {channel}"), || async { self.slack.messages(channel).len() >= count })
            .await;
        self.settles().await;
        let all = self.slack.messages(channel);
        assert_eq!(all.len(), count, "{all:#?}");
        all
    }
}

#[tokio::test]
async fn what_happens_together_is_told_together_and_to_those_whom_it_concerns() {
    let door = Door::new().await;
    for name in ["orders", "carts"] {
        door.happens(EventKind::Ready, Some("shop"), name, "is Ready", json!({})).await;
    }
    door.fails("play", "Full").await;
    for tier in ["read", "write"] {
        let detail = json!({"tier": tier, "reason": "somebody asked"});
        door.happens(EventKind::CredentialRotated, Some("shop"), "orders", "x", detail).await;
    }
    door.happens(EventKind::Updated, Some("shop"), "orders", "is no news", json!({})).await;
    let text = door.news(SHOP, 1).await[0].read();
    for said in [
        "*shop/orders* is Ready",
        "*shop/carts* is Ready",
        "&lt;b&gt;Full&lt;/b&gt;. What to do: make room &amp; wait",
        "new passwords for read, write",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("no news"), "{text}");
    for silent in [OTHER, QUIET, PLATFORM] {
        assert!(door.slack.messages(silent).is_empty(), "{silent}");
    }
    door.in_order();
}

#[tokio::test]
async fn nothing_is_told_twice() {
    let door = Door::new().await;
    door.fails("orders", "Full").await;
    door.news(SHOP, 1).await;
    door.fails("orders", "Full").await;
    door.fails("orders", "Full").await;
    door.settles().await;
    door.fails("orders", "Refused").await;
    door.news(SHOP, 2).await;
    door.happens(EventKind::Ready, Some("shop"), "orders", "", json!({})).await;
    door.happens(EventKind::Ready, Some("shop"), "orders", "", json!({})).await;
    let all = door.news(SHOP, 3).await;
    assert!(all[2].read().contains("is Ready, after it had failed"));
    door.happens(EventKind::Retained, Some("shop"), "orders", "shop/orders is kept, and not managed", json!({})).await;
    door.happens(EventKind::Retained, Some("shop"), "orders", "shop/orders is kept", json!({})).await;
    assert!(door.news(SHOP, 4).await[3].read().contains("adopt it"));
    door.in_order();
}

#[tokio::test]
async fn the_platform_team_hears_of_clusters_and_backups() {
    let door = Door::new().await;
    door.happens(EventKind::ClusterChanged, None, "default", "db2 is the primary now", json!({})).await;
    door.happens(EventKind::BackupFailed, Some("shop"), "orders", "shop/orders: no dump could be made: x", json!({}))
        .await;
    door.happens(EventKind::BackupFailed, Some("shop"), "orders", "shop/orders: no dump could be made: y", json!({}))
        .await;
    let platform = door.news(PLATFORM, 1).await[0].read();
    assert!(platform.contains("db2 is the primary now") && platform.contains("no dump could be made: y"), "{platform}");
    assert!(door.news(SHOP, 1).await[0].read().contains("no dump could be made"));
    door.happens(EventKind::BackupFailed, Some("shop"), "orders", "shop/orders: no dump could be made: z", json!({}))
        .await;
    door.settles().await;
    assert_eq!(door.slack.messages(SHOP).len(), 1);
    door.in_order();
}

#[tokio::test]
async fn a_thousand_news_are_few_messages() {
    let door = Door::new().await;
    let mut tx = door.world.ledger.begin().await.unwrap();
    for n in 0..1000 {
        let message = format!("shop/db-{n}: {}", "because <x> ".repeat(100));
        let (name, detail) = (format!("db-{n}"), json!({"step": "roles", "reason": "Full"}));
        let event = NewEvent { kind: EventKind::Failed, namespace: Some("shop"), name: &name, message, detail };
        append_event(&mut tx, event).await.unwrap();
    }
    tx.commit().await.unwrap();
    eventually("news", || async { !door.slack.messages(SHOP).is_empty() }).await;
    door.settles().await;
    let all = door.slack.messages(SHOP);
    assert!(all.len() <= 2 && all.iter().all(|one| one.read().contains(" more")), "{}", all.len());
    door.in_order();
}

/// A claim of `shop` says which channel is to hear of it.
async fn wants(door: &Door, name: &str, channel: Option<&str>) {
    let path = format!("/v1/namespaces/shop/databases/{name}");
    let patch = json!({"slackChannel": channel});
    door.world.ask(&door.world.platform, Method::PATCH, &path, Some(patch)).await.expect(200);
}

fn with_names(settings: &mut pgtenant_api::SlackSettings) {
    for (channel, name) in [(QUIET, "orders"), (OTHER, "other")] {
        settings.channels.iter_mut().find(|one| one.id == channel).unwrap().name = Some(name.to_owned());
    }
}

#[tokio::test]
async fn a_claim_names_the_channel_that_hears_of_it() {
    let door = Door::with(with_names).await;
    wants(&door, "orders", Some("#orders")).await;
    door.fails("orders", "Full").await;
    door.happens(EventKind::Ready, Some("shop"), "carts", "is Ready", json!({})).await;
    let own = door.news(QUIET, 1).await[0].read();
    assert!(own.contains("orders: at step roles") && !own.contains("carts"), "{own}");
    let linked = door.news(SHOP, 1).await[0].read();
    assert!(linked.contains("*shop/carts* is Ready") && !linked.contains("orders"), "{linked}");

    wants(&door, "orders", None).await;
    door.fails("orders", "Full").await;
    assert!(door.news(SHOP, 2).await[1].read().contains("orders: at step roles"), "this channel was not told yet");
    door.happens(EventKind::Ready, Some("shop"), "orders", "is Ready", json!({})).await;
    door.news(SHOP, 3).await;
    wants(&door, "orders", Some(QUIET)).await;
    door.fails("orders", "Full").await;
    assert_eq!(door.news(QUIET, 2).await.len(), 2, "what was told here before it was told elsewhere is no measure");
    door.in_order();
}

#[tokio::test]
async fn nobody_writes_in_the_channels_of_others_by_naming_them() {
    let door = Door::with(with_names).await;
    for (name, foreign) in [("orders", "#other"), ("carts", OTHER), ("play", PLATFORM)] {
        wants(&door, name, Some(foreign)).await;
        door.fails(name, "Full").await;
    }
    let text = door.news(SHOP, 1).await[0].read();
    for foreign in ["#other", OTHER, PLATFORM] {
        let finding = format!("`{foreign}` is not a channel that the platform team has linked to `shop`");
        assert!(text.contains(&finding), "{text}");
    }
    door.fails("orders", "Refused").await;
    let again = door.news(SHOP, 2).await[1].read();
    assert!(again.contains("Refused") && !again.contains("linked"), "it is said once: {again}");
    let status = door.types(BOB, SHOP, "status orders").await.text;
    assert!(status.contains("#other` is not a channel") && status.contains("<#C0SHOP>"), "{status}");
    wants(&door, "orders", Some("orders")).await;
    let status = door.types(BOB, SHOP, "status orders").await.text;
    assert!(status.contains("<#C0QUIET>") && !status.contains("not a channel"), "{status}");
    for silent in [OTHER, PLATFORM, QUIET] {
        assert!(door.slack.messages(silent).is_empty(), "{silent}");
    }
    door.in_order();
}

#[tokio::test]
async fn a_database_that_is_made_again_is_news_in_its_channel() {
    let door = Door::with(with_names).await;
    wants(&door, "orders", Some("#orders")).await;
    door.happens(EventKind::Ready, Some("shop"), "orders", "is Ready", json!({})).await;
    door.news(QUIET, 1).await;
    door.world.execute("delete from claims where name = 'orders'").await;
    door.happens(EventKind::Deleted, Some("shop"), "orders", "is gone", json!({})).await;
    door.settles().await;
    super::claim(&door.world.ledger, "shop", "orders", "default").await;
    wants(&door, "orders", Some("#orders")).await;
    door.happens(EventKind::Ready, Some("shop"), "orders", "is Ready", json!({})).await;
    door.news(QUIET, 2).await;
    door.in_order();
}

#[tokio::test]
async fn a_test_by_the_schedule_is_no_restore_to_follow() {
    let door = Door::new().await;
    let mut tx = door.world.ledger.begin().await.unwrap();
    let role = json!({"role": "r", "login": "r", "setAt": null, "stores": []});
    let usable = "update claims set state = 'Ready', roles = $1 where namespace = 'shop'";
    let roles = json!({"read": role, "write": role, "admin": role});
    sqlx::query(usable).bind(roles).execute(&mut *tx).await.unwrap();
    let (snapshot, actor) = ("rds:nightly".parse().unwrap(), Actor::new("schedule"));
    ask_test(&mut tx, "default", &snapshot, chrono::Utc::now(), &actor).await.unwrap().expect("a claim to test");
    tx.commit().await.unwrap();
    let mut db = door.world.ledger.acquire().await.unwrap();
    let length = std::time::Duration::from_secs(60);
    let work = take_restore(&mut db, "default", uuid::Uuid::now_v7(), length, 1).await.unwrap().expect("the test");
    step_done(&mut db, &work, &StepDone::new(RestorePhase::Copying, "copies")).await.unwrap();
    end_restore(&mut db, &work, RestorePhase::Succeeded, "is good").await.unwrap();
    // What is told after it has come, so it would have.
    door.happens(EventKind::Ready, Some("shop"), "orders", "is Ready", json!({})).await;
    let told = door.news(SHOP, 1).await[0].read();
    assert!(told.contains("is Ready") && !told.contains("schedule"), "{told}");
    assert!(door.slack.messages(PLATFORM).is_empty(), "{:?}", door.slack.messages(PLATFORM));
}
