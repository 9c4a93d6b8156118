//! What the Slack door remembers.

use std::time::Duration;

use pgtenant_ledger::{
    NewToken, SlackEnd, SlackMessage, SlackQuiet, TokenRole, count_by_namespace, create_token, end_slack_message,
    next_slack_message, put_slack_message, request_restore, slack_channels_wanted, take_slack_message, token_named,
    update,
};
use pgtenant_model::{ClaimSpec, DatabaseState, RestoreSpec, Source};
use serde_json::json;
use uuid::Uuid;

use crate::world::{LEASE, World, actor};

#[tokio::test]
async fn messages_of_restores_that_are_not_over_are_kept() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let spec: RestoreSpec = serde_json::from_value(json!({"from": {"latest": true}})).unwrap();
    let mut ids = Vec::new();
    for name in ["open", "kept", "over"] {
        let key = world.create(name).await.claim.key;
        ids.push(request_restore(&mut db, &key, &spec, &actor()).await.unwrap().view.id);
    }
    let content = json!({});
    for (key, restore) in [("open", Some(ids[0])), ("kept", Some(ids[1])), ("over", Some(ids[2])), ("news", None)] {
        let message = SlackMessage { key, channel: "C0", parent: None, restore, content: &content };
        put_slack_message(&mut db, &message, Duration::ZERO).await.unwrap();
    }
    for sql in [
        "update restores set finished_at = now() where name <> 'open'",
        "update restores set before_name = 'x', before_until = now() + interval '1 day' where name = 'kept'",
        "update slack_messages set created_at = now() - interval '91 days'",
    ] {
        sqlx::query(sql).execute(&mut *db).await.unwrap();
    }
    world.ledger.prune().await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("select key from slack_messages order by 1").fetch_all(&mut *db).await.unwrap();
    assert_eq!(left, ["kept", "open"]);
}

#[tokio::test]
async fn a_token_is_found_by_its_name_only_where_it_is_one() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let new = |name: &str| NewToken {
        name: name.to_owned(),
        role: TokenRole::Platform,
        namespaces: Vec::new(),
        expires_at: None,
    };
    let (first, _) = create_token(&mut db, new("alice")).await.unwrap();
    assert_eq!(token_named(&mut db, "alice").await.unwrap().map(|token| token.id), Some(first.id));
    let (second, _) = create_token(&mut db, new("alice")).await.unwrap();
    assert_eq!(token_named(&mut db, "alice").await.unwrap(), None);
    pgtenant_ledger::revoke_token(&mut db, first.id).await.unwrap();
    assert_eq!(token_named(&mut db, "alice").await.unwrap().map(|token| token.id), Some(second.id));
    assert_eq!(token_named(&mut db, "bob").await.unwrap(), None);
}

#[tokio::test]
async fn new_messages_of_a_channel_wait_for_the_one_before() {
    let world = World::new().await;
    let mut db = world.ledger.acquire().await.unwrap();
    let (holder, content) = (Uuid::now_v7(), json!({}));
    for (key, channel, parent) in [
        ("a", "C0", None),
        ("a:thread", "C0", Some("a")),
        ("b", "C0", None),
        ("orphan", "C1", Some("gone")),
        ("c", "C1", None),
    ] {
        let message = SlackMessage { key, channel, parent, restore: None, content: &content };
        put_slack_message(&mut db, &message, Duration::ZERO).await.unwrap();
    }
    let mut told = Vec::new();
    let again = SlackEnd::Again {
        after: Duration::from_millis(1),
        quiet: SlackQuiet::Channel,
        doubt: false,
        why: "not_in_channel".to_owned(),
    };
    let mut ends = [again, SlackEnd::GivenUp("invalid_blocks".to_owned())].into_iter();
    while let Some(due) = next_slack_message(&mut db).await.unwrap() {
        let Some(post) = take_slack_message(&mut db, holder, LEASE, Duration::ZERO).await.unwrap() else {
            tokio::time::sleep(due).await;
            continue;
        };
        let end = if post.key == "a" { ends.next() } else { None }.unwrap_or(SlackEnd::Sent("1.1".to_owned()));
        end_slack_message(&mut db, holder, &post, &end, Duration::ZERO).await.unwrap();
        told.push(post.key);
    }
    let of = |keys: &[&str]| told.iter().filter(|key| keys.contains(&key.as_str())).cloned().collect::<Vec<_>>();
    assert_eq!(of(&["a", "a:thread", "b"]), ["a", "a", "b"], "the thread of what is given up is given up with it");
    assert_eq!(of(&["orphan", "c"]), ["c"], "what can never be sent holds nothing up");
}

#[tokio::test]
async fn only_claims_that_name_a_channel_have_one() {
    let world = World::new().await;
    for name in ["a", "b"] {
        let key = world.create(name).await.claim.key;
        let channel = (name == "a").then(|| "#orders".to_owned());
        let change = |spec: &ClaimSpec| ClaimSpec { slack_channel: channel, ..spec.clone() };
        let mut tx = world.begin().await;
        update(&mut tx, &key, change, Source::Api, None, &actor()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.claim(&key).await.unwrap().generation, if name == "a" { 2 } else { 1 });
    }
    let mut db = world.ledger.acquire().await.unwrap();
    let wanted = slack_channels_wanted(&mut db, &[("team", "a"), ("team", "b"), ("other", "a")]).await.unwrap();
    assert_eq!(wanted.into_iter().collect::<Vec<_>>(), [("team/a".to_owned(), "#orders".to_owned())]);
    assert!(slack_channels_wanted(&mut db, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn claims_are_counted_where_they_are() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.create(name).await;
    }
    let mut db = world.ledger.acquire().await.unwrap();
    sqlx::query("update claims set state = 'Ready' where name <> 'c'").execute(&mut *db).await.unwrap();
    sqlx::query("update claims set namespace = 'other' where name = 'a'").execute(&mut *db).await.unwrap();
    let other = ("other".to_owned(), DatabaseState::Ready, 1);
    let team = |state| ("team".to_owned(), state, 1);
    let all = [other.clone(), team(DatabaseState::Pending), team(DatabaseState::Ready)];
    assert_eq!(count_by_namespace(&mut db, None).await.unwrap(), all);
    assert_eq!(count_by_namespace(&mut db, Some(&["other".to_owned()])).await.unwrap(), [other]);
    assert_eq!(count_by_namespace(&mut db, Some(&[])).await.unwrap(), []);
}
