//! Brings to Slack what the ledger says is to be there.
//!
//! A message that was sent and whose answer was not heard, as when this process ended in between, is looked for in its channel
//! before it is sent again: each carries its key as metadata. Only where the app may not read the channel can it be there twice.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge};
use pgtenant_ledger::{
    LedgerError, SlackEnd, SlackPost, SlackQuiet, end_slack_message, next_slack_message, slack_queue_length,
    take_slack_message, within_deadline,
};
use rand::RngExt as _;
use serde_json::{Value, json};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::client::CallError;
use super::{Slack, news};
use crate::ApiState;
use crate::observe::chain;

/// A look without having been woken.
const SLOW_LOOK: Duration = Duration::from_secs(30);
/// Pages of a channel in which a message is looked for.
const PAGES: u32 = 5;
/// What marks our messages.
const EVENT_TYPE: &str = "pgtenant_message";
/// Reasons of Slack's that no later try can change.
const FINAL: &[&str] = &[
    "invalid_blocks",
    "invalid_blocks_format",
    "msg_too_long",
    "msg_blocks_too_long",
    "no_text",
    "invalid_arguments",
    "invalid_metadata_format",
    "metadata_too_large",
    "cant_update_message",
    "edit_window_closed",
    "message_not_found",
    "thread_not_found",
];

/// Reasons that are no message's and no channel's.
const OF_ALL: &[&str] = &[
    "invalid_auth",
    "not_authed",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "org_login_required",
    "team_access_not_granted",
];

/// Sends until the control plane stops, and the message that is on its way then.
pub(super) async fn send(state: &ApiState, slack: &Slack) {
    let holder = Uuid::now_v7();
    let shutdown = &state.parts.shutdown;
    while !shutdown.is_cancelled() {
        let pause = match send_all(state, slack, holder).await {
            Ok(next) => next.unwrap_or(SLOW_LOOK).min(SLOW_LOOK),
            Err(error) => {
                warn!(error = %chain(&error), "messages for Slack are late");
                Duration::from_secs(1)
            }
        };
        let woken = tokio::time::timeout(pause.max(Duration::from_millis(10)), slack.wake.notified());
        shutdown.run_until_cancelled(woken).await;
    }
}

/// Sends what is due; says when the next message is.
async fn send_all(state: &ApiState, slack: &Slack, holder: Uuid) -> Result<Option<Duration>, LedgerError> {
    let ledger = state.ledger();
    while !state.parts.shutdown.is_cancelled()
        && let Some(post) = take(state, slack, holder).await?
    {
        let end = transmit(slack, &post).await;
        tell(&post, &end);
        within_deadline(async {
            let mut tx = ledger.begin().await?;
            end_slack_message(&mut tx, holder, &post, &end, slack.settings.pace.rest).await?;
            Ok(tx.commit().await?)
        })
        .await?;
    }
    let (queue, next) = within_deadline(async {
        let mut db = ledger.acquire().await?;
        Ok((slack_queue_length(&mut db).await?, next_slack_message(&mut db).await?))
    })
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of messages")]
    gauge!("pgtenant_slack_queue_length").set(queue as f64);
    Ok(next)
}

async fn take(state: &ApiState, slack: &Slack, holder: Uuid) -> Result<Option<SlackPost>, LedgerError> {
    // A message may have to be looked for before it is sent.
    let lease = slack.settings.pace.answer * 3 + Duration::from_secs(5);
    let updates = slack.settings.pace.updates;
    within_deadline(async {
        let mut tx = state.ledger().begin().await?;
        let post = take_slack_message(&mut tx, holder, lease, updates).await?;
        tx.commit().await?;
        Ok(post)
    })
    .await
}

/// What becomes of a message when it is sent now.
async fn transmit(slack: &Slack, post: &SlackPost) -> SlackEnd {
    let limit = slack.settings.pace.answer;
    if post.ts.is_none() && age(post) > slack.settings.pace.give_up {
        return SlackEnd::GivenUp("it is too old to be news".to_owned());
    }
    if let Some(since) = post.doubt_since {
        let late = || Err(CallError::Unheard("its channel could not be read in time".to_owned()));
        match tokio::time::timeout(limit * 2, find(slack, post, since)).await.unwrap_or_else(|_| late()) {
            Ok(Some(ts)) => return SlackEnd::Found(ts),
            Ok(None) => {}
            Err(CallError::Refused(why)) => {
                warn!(key = post.key, why, "a message may be there twice: its channel can not be read");
            }
            Err(error) => return later(slack, post, &error, true),
        }
    }
    let body = body(post);
    let answer = match &post.ts {
        Some(_) => slack.client.write("chat.update", &body, limit).await,
        None => slack.client.write("chat.postMessage", &body, limit).await,
    };
    match (answer, &post.ts) {
        (Ok(_), Some(ts)) => SlackEnd::Sent(ts.clone()),
        (Ok(answer), None) => match answer["ts"].as_str() {
            Some(ts) => SlackEnd::Sent(ts.to_owned()),
            None => SlackEnd::GivenUp("Slack did not say where the message is".to_owned()),
        },
        (Err(error), _) => {
            let doubt = matches!(error, CallError::Unheard(_));
            later(slack, post, &error, doubt)
        }
    }
}

fn body(post: &SlackPost) -> Value {
    let mut body = news::rendered(&post.content).unwrap_or_else(|| post.content.clone());
    body["channel"] = json!(post.channel);
    body["metadata"] = json!({"event_type": EVENT_TYPE, "event_payload": {"key": post.key}});
    if let Some(ts) = &post.ts {
        body["ts"] = json!(ts);
        return body;
    }
    // What tenants write must not fetch anything.
    body["unfurl_links"] = json!(false);
    body["unfurl_media"] = json!(false);
    if let Some(ts) = &post.thread_ts {
        body["thread_ts"] = json!(ts);
    }
    body
}

/// Looks for a message among those that came to its channel, or its thread, since it may have been sent.
async fn find(slack: &Slack, post: &SlackPost, since: DateTime<Utc>) -> Result<Option<String>, CallError> {
    // Slack's clock is not ours.
    let oldest = format!("{}.000000", since.timestamp() - 120);
    let mut form =
        vec![("channel", &*post.channel), ("oldest", &*oldest), ("include_all_metadata", "true"), ("limit", "200")];
    let method = match &post.thread_ts {
        Some(ts) => {
            form.push(("ts", ts));
            "conversations.replies"
        }
        None => "conversations.history",
    };
    let ours = |message: &&Value| {
        message.pointer("/metadata/event_type").is_some_and(|kind| kind == EVENT_TYPE)
            && message.pointer("/metadata/event_payload/key").is_some_and(|key| *key == *post.key)
    };
    let mut cursor = String::new();
    for _ in 0..PAGES {
        let mut form = form.clone();
        if !cursor.is_empty() {
            form.push(("cursor", &cursor));
        }
        let answer = slack.client.read(method, &form, slack.settings.pace.answer).await?;
        if let Some(found) = answer["messages"].as_array().into_iter().flatten().find(ours) {
            return Ok(found["ts"].as_str().map(str::to_owned));
        }
        cursor =
            answer.pointer("/response_metadata/next_cursor").and_then(Value::as_str).unwrap_or_default().to_owned();
        if cursor.is_empty() {
            return Ok(None);
        }
    }
    warn!(key = post.key, "a message may be there twice: too much was said in its channel meanwhile");
    Ok(None)
}

fn age(post: &SlackPost) -> Duration {
    (Utc::now() - post.wanted_at).to_std().unwrap_or_default()
}

/// Another try, or none.
fn later(slack: &Slack, post: &SlackPost, error: &CallError, doubt: bool) -> SlackEnd {
    let pace = &slack.settings.pace;
    let why = error.to_string();
    if age(post) > pace.give_up || error.word().is_some_and(|word| FINAL.contains(&word)) {
        return SlackEnd::GivenUp(why);
    }
    let doubled = pace.retry * 2_u32.saturating_pow(u32::try_from(post.attempts).unwrap_or_default().min(16));
    let after = doubled.min(pace.longest_retry).mul_f64(rand::rng().random_range(0.8..1.2));
    let all = SlackQuiet::All(pace.longest_quiet);
    let (after, quiet) = match error {
        // Messages are counted by channel, changes by workspace.
        CallError::Limited(wait) if post.ts.is_some() => (*wait, SlackQuiet::Updates),
        CallError::Limited(wait) => (*wait, SlackQuiet::Channel),
        // What Slack refuses concerns the channel, unless it is the token; either somebody mends.
        CallError::Refused(_) if error.word().is_some_and(|word| OF_ALL.contains(&word)) => (after, all),
        CallError::Refused(_) => (after, SlackQuiet::Channel),
        CallError::Unsent(_) | CallError::Unheard(_) => (after, all),
    };
    SlackEnd::Again { after, quiet, doubt, why }
}

fn tell(post: &SlackPost, end: &SlackEnd) {
    let (key, channel) = (&*post.key, &*post.channel);
    let result = match end {
        SlackEnd::Sent(_) | SlackEnd::Found(_) => "sent",
        SlackEnd::Again { after, why, .. } => {
            let first = post.attempts == 0;
            if first {
                warn!(key, channel, why, "a message for Slack was not sent; it is tried again in {after:?}");
            } else {
                debug!(key, channel, why, "a message for Slack was not sent; it is tried again in {after:?}");
            }
            "failed"
        }
        SlackEnd::GivenUp(why) => {
            error!(key, channel, why, "a message for Slack is given up");
            "given_up"
        }
    };
    counter!("pgtenant_slack_messages_total", "result" => result).increment(1);
}
