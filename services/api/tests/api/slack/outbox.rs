//! Messages arrive once, whatever happens on the way.

use std::time::{Duration, Instant};

use pgtenant_testkit::SlackDisturbance;
use serde_json::json;

use super::{ALICE, BOB, Door, OTHER, PLATFORM, SHOP};
use crate::world::eventually;

impl Door {
    async fn asks_quietly(&self, database: &str) -> sqlx::types::Uuid {
        let path = format!("/v1/namespaces/{}/restores", database.replace('/', "/databases/"));
        let body = json!({"from": {"latest": true}});
        let reply = self.world.post(&self.world.platform, &path, body).await.expect(202);
        reply.json["id"].as_str().unwrap().parse().unwrap()
    }

    /// Every message of the ledger is in Slack once, with what it should hold.
    async fn once(&self) {
        self.settles().await;
        let expected = self.world.count("select count(*) from slack_messages").await;
        let all: Vec<_> = [PLATFORM, SHOP, OTHER].iter().flat_map(|channel| self.slack.messages(channel)).collect();
        let mut keys: Vec<_> =
            all.iter().map(|one| one.content["metadata"]["event_payload"]["key"].to_string()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), i64::try_from(all.len()).unwrap()), (all.len(), expected), "{keys:#?}");
    }
}

#[tokio::test]
async fn what_slack_could_not_take_arrives_later() {
    let door = Door::new().await;
    door.slack.set_down(true);
    let id = door.asks_quietly("shop/orders").await;
    door.world.post(&door.world.platform, &format!("/v1/restores/{id}/cancel"), json!({})).await.expect(200);
    let tried = "select coalesce(max(attempts), 0)::bigint from slack_messages";
    eventually("tries", || async { door.world.count(tried).await > 2 }).await;
    door.slack.set_down(false);
    let shown = door.sees(SHOP, id, |one| one.read().contains("*Cancelled*")).await;
    assert_eq!(shown.edits, 0, "what it was meanwhile is not told");
    door.once().await;
    door.in_order();
}

#[tokio::test]
async fn slack_says_how_long_a_channel_has_to_wait() {
    let door = Door::new().await;
    door.slack.disturb("chat.postMessage C0SHOP", SlackDisturbance::Limit(3), 1);
    let begun = Instant::now();
    door.asks_quietly("shop/orders").await;
    door.asks_quietly("other/secret").await;
    door.once().await;
    let calls = door.slack.calls();
    let at = |channel| calls.iter().filter(move |call| call.body["channel"] == channel).map(|call| call.at - begun);
    assert!(at(SHOP).all(|at| at >= Duration::from_secs(3)), "{:?}", at(SHOP).collect::<Vec<_>>());
    for other in [PLATFORM, OTHER] {
        assert!(at(other).all(|at| at < Duration::from_secs(3)), "{other}: {:?}", at(other).collect::<Vec<_>>());
    }
    assert_eq!(calls.len(), 4);
    door.in_order();
}

#[tokio::test]
async fn changes_of_messages_have_a_budget_of_the_whole_workspace() {
    let door = Door::with(|settings| settings.pace.updates = Duration::from_millis(300)).await;
    let other = door.another();
    let mut ids = Vec::new();
    for database in ["shop/orders", "other/secret"] {
        ids.push(door.asks_quietly(database).await);
    }
    door.once().await;
    for id in ids {
        door.world.post(&door.world.platform, &format!("/v1/restores/{id}/reject"), json!({})).await.expect(200);
    }
    eventually("changes", || async { door.slack.count("chat.update") == 4 }).await;
    door.once().await;
    let calls = door.slack.calls();
    let at: Vec<_> = calls.iter().filter(|call| call.method == "chat.update").map(|call| call.at).collect();
    let gaps: Vec<_> = at.windows(2).map(|two| two[1] - two[0]).collect();
    // They are counted when they are taken, a moment before they are sent.
    assert!(gaps.iter().sum::<Duration>() >= Duration::from_millis(800), "{gaps:?}");
    other.abort();
    door.in_order();
}

#[tokio::test]
async fn what_failed_is_waited_for_so_that_all_comes_in_its_order() {
    let door = Door::with(|settings| settings.pace.retry = Duration::from_millis(400)).await;
    door.slack.disturb("chat.postMessage C0SHOP", SlackDisturbance::Refuse("not_in_channel"), 1);
    for database in ["shop/orders", "shop/carts", "shop/play"] {
        door.asks_quietly(database).await;
    }
    door.once().await;
    let told: Vec<_> = door.slack.messages(SHOP).iter().map(|one| one.read()).collect();
    for (text, database) in told.iter().zip(["shop/orders", "shop/carts", "shop/play"]) {
        assert!(text.contains(database), "{database}: {told:#?}");
    }
    door.in_order();
}

#[tokio::test]
async fn a_message_that_slack_stumbles_over_holds_up_no_other_channel() {
    let slow = Duration::from_secs(90);
    let door = Door::with(|settings| (settings.pace.retry, settings.pace.longest_retry) = (slow, slow)).await;
    door.slack.disturb("chat.postMessage C0SHOP", SlackDisturbance::Break, 1000);
    door.asks_quietly("shop/orders").await;
    let stumbled = "select count(*) from slack_messages where channel = 'C0SHOP' and fault is not null";
    eventually("a failure", || async { door.world.count(stumbled).await == 1 }).await;
    door.asks_quietly("other/secret").await;
    eventually("the other tenant's", || async { door.slack.messages(OTHER).len() == 1 }).await;
    eventually("the platform's", || async { door.slack.messages(PLATFORM).len() == 2 }).await;
    door.in_order();
}

#[tokio::test]
async fn when_slack_is_away_it_is_asked_less_and_less_and_then_all_goes_on() {
    let door = Door::with(|settings| settings.pace.longest_quiet = Duration::from_millis(500)).await;
    door.slack.set_down(true);
    for database in ["shop/orders", "shop/carts", "other/secret"] {
        door.asks_quietly(database).await;
    }
    let failures = "select coalesce(max(failures), 0)::bigint from slack_channels";
    eventually("failures", || async { door.world.count(failures).await > 3 }).await;
    let quiet = "select count(*) from slack_channels where channel = '*' and quiet_until > now()";
    eventually("all is quiet", || async { door.world.count(quiet).await == 1 }).await;
    door.slack.set_down(false);
    door.once().await;
    assert_eq!(door.world.count(failures).await, 0);
    door.in_order();
}

#[tokio::test]
async fn a_message_is_found_on_a_later_page() {
    let door = Door::with(|settings| settings.pace.answer = Duration::from_millis(500)).await;
    door.slack.set_page(2);
    door.slack.disturb("chat.postMessage C0SHOP", SlackDisturbance::LoseAnswer, 1);
    door.asks_quietly("shop/orders").await;
    eventually("it is there", || async { !door.slack.messages(SHOP).is_empty() }).await;
    (0..5).for_each(|_| door.slack.chatter(SHOP));
    door.settles().await;
    assert_eq!(door.slack.messages(SHOP).len(), 6, "one of ours");
    assert!(door.slack.count("conversations.history") >= 3, "{}", door.slack.count("conversations.history"));
    door.in_order();
}

#[tokio::test]
async fn a_replica_that_is_told_to_stop_ends_what_it_has_begun() {
    let mut door = Door::new().await;
    door.slack.disturb("chat.postMessage", SlackDisturbance::Slow(Duration::from_millis(800)), 1);
    let id = door.asks_quietly("shop/orders").await;
    eventually("a call", || async { door.slack.count("chat.postMessage") == 1 }).await;
    door.world.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), &mut door.running).await.expect("it ends").unwrap();
    assert_eq!(door.world.count("select count(*) from slack_messages where sent = wanted").await, 1);
    assert_eq!(door.world.count("select count(*) from slack_messages where doubt_since is not null").await, 0);
    let other = door.another();
    door.sees(SHOP, id, |_| true).await;
    door.sees(PLATFORM, id, |_| true).await;
    door.once().await;
    assert_eq!(door.slack.count("conversations.history"), 0, "nothing has to be looked for");
    other.abort();
}

#[tokio::test]
async fn messages_of_a_channel_come_at_slacks_pace() {
    let door = Door::with(|settings| settings.pace.rest = Duration::from_millis(400)).await;
    for database in ["shop/orders", "shop/carts", "shop/play"] {
        door.asks_quietly(database).await;
    }
    door.once().await;
    let calls = door.slack.calls();
    for channel in [SHOP, PLATFORM] {
        let of: Vec<_> = calls.iter().filter(|call| call.body["channel"] == channel).map(|call| call.at).collect();
        let gaps: Vec<_> = of.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(gaps.len() >= 2 && gaps.iter().all(|gap| *gap >= Duration::from_millis(400)), "{channel}: {gaps:?}");
    }
    door.in_order();
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_message() {
    let door = Door::with(|settings| settings.pace.answer = Duration::from_millis(300)).await;
    door.slack.disturb("chat.postMessage", SlackDisturbance::LoseAnswer, 2);
    let id = door.asks_quietly("shop/orders").await;
    door.once().await;
    assert!(door.slack.count("conversations.history") >= 2);
    // In a thread as well.
    door.slack.disturb("chat.postMessage", SlackDisturbance::LoseAnswer, 2);
    door.world.post(&door.world.platform, &format!("/v1/restores/{id}/reject"), json!({})).await.expect(200);
    door.sees_part(SHOP, &format!("restore:{id}:{SHOP}:report"), |_| true).await;
    door.once().await;
    assert!(door.slack.count("conversations.replies") >= 1);
    door.in_order();
}

#[tokio::test]
async fn a_channel_that_can_not_be_read_may_see_a_message_twice() {
    let door = Door::with(|settings| settings.pace.answer = Duration::from_millis(300)).await;
    door.slack.disturb("chat.postMessage", SlackDisturbance::LoseAnswer, 1);
    door.slack.disturb("conversations.history", SlackDisturbance::Refuse("missing_scope"), 1);
    door.asks_quietly("shop/orders").await;
    door.settles().await;
    let all = door.slack.messages(SHOP).len() + door.slack.messages(PLATFORM).len();
    assert_eq!(all, 3, "the honest limit: told late and twice rather than never");
    door.in_order();
}

#[tokio::test]
async fn a_replica_that_ends_in_the_middle_repeats_nothing() {
    // The lease of a message is three answers and 5 s.
    let door = Door::with(|settings| settings.pace.answer = Duration::from_millis(200)).await;
    door.slack.disturb("chat.postMessage", SlackDisturbance::Slow(Duration::from_millis(150)), 1);
    let id = door.asks_quietly("shop/orders").await;
    eventually("a call", || async { door.slack.count("chat.postMessage") == 1 }).await;
    door.kill();
    assert_eq!(door.world.count("select count(*) from slack_messages where doubt_since is not null").await, 1);
    let other = door.another();
    for channel in [SHOP, PLATFORM] {
        door.sees(channel, id, |_| true).await;
    }
    door.once().await;
    assert_eq!(door.slack.count("chat.postMessage"), 2);
    // What happens while nobody is there is told by whoever comes next.
    other.abort();
    let _ = other.await;
    door.world.post(&door.world.platform, &format!("/v1/restores/{id}/cancel"), json!({})).await.expect(200);
    let last = door.another();
    door.sees(SHOP, id, |one| one.read().contains("*Cancelled*")).await;
    door.once().await;
    last.abort();
    door.in_order();
}

#[tokio::test]
async fn several_replicas_tell_everything_once() {
    let door = Door::new().await;
    let others = [door.another(), door.another()];
    let mut ids = Vec::new();
    for database in ["shop/orders", "shop/carts", "shop/play", "other/secret"] {
        ids.push(door.asks_quietly(database).await);
    }
    for id in &ids {
        door.world.post(&door.world.platform, &format!("/v1/restores/{id}/reject"), json!({})).await.expect(200);
    }
    door.once().await;
    assert_eq!(door.slack.count("chat.postMessage"), 16);
    others.iter().for_each(tokio::task::JoinHandle::abort);
    door.in_order();
}

#[tokio::test]
async fn a_channel_without_the_app_holds_no_other_up() {
    let door = Door::with(|settings| settings.channels[0].id = "C0GONE".to_owned()).await;
    let id = door.asks_quietly("shop/orders").await;
    door.sees(PLATFORM, id, |_| true).await;
    door.asks_quietly("other/secret").await;
    eventually("the other tenant's", || async { door.slack.messages(OTHER).len() == 1 }).await;
    let fault = "select count(*) from slack_messages where channel = 'C0GONE' and fault like '%channel_not_found%'";
    eventually("a fault that can be read", || async { door.world.count(fault).await == 1 }).await;
    assert!(door.slack.faults().iter().all(|fault| fault.contains("channel_not_found")));
}

#[tokio::test]
async fn what_can_never_be_sent_is_given_up_with_its_thread() {
    let door = Door::with(|settings| settings.pace.give_up = Duration::from_secs(4)).await;
    door.slack.disturb("chat.postMessage", SlackDisturbance::Refuse("invalid_blocks"), 2);
    let id = door.asks_quietly("shop/orders").await;
    let given_up = "select count(*) from slack_messages where given_up";
    eventually("given up", || async { door.world.count(given_up).await == 2 }).await;
    // A change of it is another try.
    door.presses_by_rest(&format!("/v1/restores/{id}/reject")).await;
    door.sees(SHOP, id, |one| one.read().contains("*Rejected*")).await;
    door.once().await;
    // After too long a time as well.
    door.slack.disturb("chat.postMessage", SlackDisturbance::Refuse("not_in_channel"), 1000);
    door.asks_quietly("shop/carts").await;
    eventually("given up", || async { door.world.count(given_up).await == 2 }).await;
    door.in_order();
}

#[tokio::test]
async fn a_message_that_somebody_deleted_is_let_go() {
    let door = Door::new().await;
    let id = door.asks(BOB, "orders").await.view.id;
    let message = door.sees(SHOP, id, |_| true).await;
    door.slack.delete(SHOP, &message.ts);
    door.presses(ALICE, PLATFORM, id, "restore_approve").await;
    door.sees(PLATFORM, id, |one| one.read().contains("approved by")).await;
    eventually("let go", || async {
        door.world
            .count("select count(*) from slack_messages where given_up and fault like '%message_not_found%'")
            .await
            == 1
    })
    .await;
}

impl Door {
    async fn presses_by_rest(&self, path: &str) {
        self.world.post(&self.world.platform, path, json!({})).await.expect(200);
    }
}
