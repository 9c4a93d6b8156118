//! Messages for Slack, as they should be there, and who sends them.
//!
//! A message is a row under a key: to put it again with another content changes the message that is there. One message of a
//! channel is under way at a time, and new ones come in the order of their rows: one that failed is waited for, so that an answer
//! comes after what it answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// The channel on which it is announced that Slack is to be told something.
pub const SLACK_CHANNEL: &str = "pgtenant_slack";

/// A message as it should be.
#[derive(Debug, Clone, Copy)]
pub struct SlackMessage<'a> {
    /// What it tells of; the same key is the same message.
    pub key: &'a str,
    /// Slack's id of the channel.
    pub channel: &'a str,
    /// The key of the message in whose thread it stands.
    pub parent: Option<&'a str>,
    /// The restore that it shows.
    pub restore: Option<Uuid>,
    /// `text` and `blocks`.
    pub content: &'a Value,
}

/// Wants a message to be there. One that is there already is changed no sooner than `pace` after the last time.
///
/// # Errors
/// The ledger did not answer.
pub async fn put_slack_message(db: &mut PgConnection, message: &SlackMessage<'_>, pace: Duration) -> Result<()> {
    sqlx::query(
        "with channel as (insert into slack_channels (channel) values ($2) on conflict do nothing),
              put as (
             insert into slack_messages as m (key, channel, parent, restore, content) values ($1, $2, $3, $4, $5)
             on conflict (key) do update
                set content = excluded.content, wanted = m.wanted + 1, wanted_at = now(), attempts = 0, given_up = false,
                    due_at = greatest(now(), m.sent_at + $6 * interval '1 second')
              where m.content is distinct from excluded.content returning 1)
         select pg_notify($7, '') from put",
    )
    .bind(message.key)
    .bind(message.channel)
    .bind(message.parent)
    .bind(message.restore)
    .bind(message.content)
    .bind(pace.as_secs_f64())
    .bind(SLACK_CHANNEL)
    .execute(db)
    .await?;
    Ok(())
}

/// News of a channel that nobody was told yet, and whose telling nobody has begun: the key and the content, held until the end of the
/// transaction. None that are older than `max_age`.
///
/// # Errors
/// The ledger did not answer.
pub async fn untold_slack_news(
    db: &mut PgConnection,
    channel: &str,
    max_age: Duration,
) -> Result<Option<(String, Value)>> {
    Ok(sqlx::query_as(
        "select key, content from slack_messages
         where channel = $1 and content ? 'news' and ts is null and doubt_since is null and wanted > sent and not given_up
           and wanted_at > now() - $2 * interval '1 second'
         order by id desc limit 1 for update",
    )
    .bind(channel)
    .bind(max_age.as_secs_f64())
    .fetch_optional(db)
    .await?)
}

/// A message that this replica is to send.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SlackPost {
    /// Of the row.
    pub id: i64,
    /// What it tells of.
    pub key: String,
    /// Slack's id of the channel.
    pub channel: String,
    /// The restore that it shows.
    pub restore: Option<Uuid>,
    /// Slack's name for the message in whose thread it stands.
    pub thread_ts: Option<String>,
    /// Slack's name for it, where it is there and is to be changed.
    pub ts: Option<String>,
    /// `text` and `blocks`.
    pub content: Value,
    /// Which content this is.
    pub wanted: i32,
    /// Failed tries.
    pub attempts: i32,
    /// Since when it may be there without our having heard so.
    pub doubt_since: Option<DateTime<Utc>>,
    /// Since when it should be as it is.
    pub wanted_at: DateTime<Utc>,
}

/// The row of [`take_slack_message`]'s budget of changes.
const UPDATES: &str = "*updates";
/// The row in which it is said that nothing comes through to Slack.
const ALL: &str = "*";

/// What is to be sent, as soon as it is due: `m` is a message.
macro_rules! sendable {
    () => {
        "m.wanted > m.sent and not m.given_up
         and (m.parent is null or exists (select from slack_messages p where p.key = m.parent and p.ts is not null))
         and (m.ts is not null or not exists (
                 select from slack_messages e
                 where e.channel = m.channel and e.id < m.id and e.ts is null and e.wanted > e.sent and not e.given_up
                   and (e.parent is null or exists (select from slack_messages p where p.key = e.parent))))"
    };
}

/// Takes the next message of a channel that nobody else sends to, within a transaction. New ones come before changes, of which
/// there is one in `updates` in all channels together.
///
/// # Errors
/// The ledger did not answer.
pub async fn take_slack_message(
    db: &mut PgConnection,
    holder: Uuid,
    lease: Duration,
    updates: Duration,
) -> Result<Option<SlackPost>> {
    let channel: Option<String> = sqlx::query_scalar(concat!(
        "select c.channel from slack_channels c
         where c.quiet_until <= now() and (c.lease_until is null or c.lease_until < now())
           and not exists (select from slack_channels where channel = $1 and quiet_until > now())
           and exists (select from slack_messages m where m.channel = c.channel and m.due_at <= now()
                 and (m.ts is null or not exists (select from slack_channels where channel = $2 and quiet_until > now()))
                 and ",
        sendable!(),
        ") order by c.quiet_until limit 1 for update skip locked"
    ))
    .bind(ALL)
    .bind(UPDATES)
    .fetch_optional(&mut *db)
    .await?;
    let Some(channel) = channel else { return Ok(None) };
    // A statement of its own: it sees what whoever held the channel a moment ago has sent.
    let post: Option<SlackPost> = sqlx::query_as(concat!(
        "select m.id, m.key, m.channel, m.restore, p.ts as thread_ts, m.ts, m.content, m.wanted, m.attempts, m.doubt_since,
                m.wanted_at
         from slack_messages m left join slack_messages p on p.key = m.parent
         where m.channel = $1 and m.due_at <= now() and ",
        sendable!(),
        " order by m.ts is not null, m.due_at, m.id limit 1 for update of m"
    ))
    .bind(&channel)
    .fetch_optional(&mut *db)
    .await?;
    let Some(post) = post else { return Ok(None) };
    if post.ts.is_some() && !within_budget(db, updates).await? {
        return Ok(None);
    }
    sqlx::query(
        "with held as (update slack_channels set lease_holder = $2, lease_until = now() + $3 * interval '1 second'
                       where channel = $1)
         update slack_messages set doubt_since = case when ts is null then coalesce(doubt_since, now()) end where id = $4",
    )
    .bind(channel)
    .bind(holder)
    .bind(lease.as_secs_f64())
    .bind(post.id)
    .execute(db)
    .await?;
    Ok(Some(post))
}

/// Whether a change may be sent now; the next one may after `updates`.
async fn within_budget(db: &mut PgConnection, updates: Duration) -> Result<bool> {
    let taken = sqlx::query(
        "insert into slack_channels as c (channel, quiet_until) values ($1, now() + $2 * interval '1 second')
         on conflict (channel) do update set quiet_until = excluded.quiet_until where c.quiet_until <= now()",
    )
    .bind(UPDATES)
    .bind(updates.as_secs_f64())
    .execute(db)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// What came of a try to send a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlackEnd {
    /// Slack has it, as it was taken, under this name.
    Sent(String),
    /// Slack had it already, under this name; as which content is not known.
    Found(String),
    /// Another try after this time.
    Again {
        /// Until then the message waits, and what comes after it in its channel.
        after: Duration,
        /// What else waits.
        quiet: SlackQuiet,
        /// Whether it may have been done.
        doubt: bool,
        /// For whoever looks for it.
        why: String,
    },
    /// It is not tried any more; nor is what was to stand in its thread.
    GivenUp(String),
}

/// What waits because of a message that could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlackQuiet {
    /// Its channel.
    Channel,
    /// Changes of messages, in all channels.
    Updates,
    /// Everything, for longer with each failure after the first one of a row of them, and never longer than this.
    All(Duration),
}

/// Writes down what came of it, and lets the channel rest for `rest`; within a transaction.
///
/// # Errors
/// The ledger did not answer.
pub async fn end_slack_message(
    db: &mut PgConnection,
    holder: Uuid,
    post: &SlackPost,
    end: &SlackEnd,
    rest: Duration,
) -> Result<()> {
    write_end(db, post, end).await?;
    let rest = match end {
        SlackEnd::Again { after, quiet: SlackQuiet::Channel, .. } => rest.max(*after),
        _ => rest,
    };
    sqlx::query(
        "update slack_channels set lease_holder = null, lease_until = null,
                quiet_until = greatest(quiet_until, clock_timestamp() + $3 * interval '1 second')
         where channel = $1 and lease_holder = $2",
    )
    .bind(&post.channel)
    .bind(holder)
    .bind(rest.as_secs_f64())
    .execute(&mut *db)
    .await?;
    match end {
        SlackEnd::Again { quiet: SlackQuiet::All(longest), .. } => note_failure(db, rest, *longest).await,
        SlackEnd::Again { after, quiet: SlackQuiet::Updates, .. } => quiet_updates(db, *after).await,
        SlackEnd::Sent(_) | SlackEnd::Found(_) => note_success(db).await,
        SlackEnd::Again { .. } | SlackEnd::GivenUp(_) => Ok(()),
    }
}

/// One message that Slack stumbles over is no outage: the first failure holds up nobody else.
async fn note_failure(db: &mut PgConnection, first: Duration, longest: Duration) -> Result<()> {
    sqlx::query(
        "insert into slack_channels as c (channel, failures) values ($1, 1)
         on conflict (channel) do update set failures = least(c.failures + 1, 30),
             quiet_until = greatest(c.quiet_until,
                 clock_timestamp() + least($2 * power(2, least(c.failures, 30) - 1), $3) * interval '1 second')",
    )
    .bind(ALL)
    .bind(first.as_secs_f64())
    .bind(longest.as_secs_f64())
    .execute(db)
    .await?;
    Ok(())
}

async fn note_success(db: &mut PgConnection) -> Result<()> {
    sqlx::query("update slack_channels set failures = 0, quiet_until = now() where channel = $1 and failures > 0")
        .bind(ALL)
        .execute(db)
        .await?;
    Ok(())
}

async fn quiet_updates(db: &mut PgConnection, after: Duration) -> Result<()> {
    sqlx::query(
        "update slack_channels set quiet_until = greatest(quiet_until, clock_timestamp() + $2 * interval '1 second')
         where channel = $1",
    )
    .bind(UPDATES)
    .bind(after.as_secs_f64())
    .execute(db)
    .await?;
    Ok(())
}

async fn write_end(db: &mut PgConnection, post: &SlackPost, end: &SlackEnd) -> Result<()> {
    let query = match end {
        SlackEnd::Sent(ts) => sqlx::query(
            "update slack_messages set ts = coalesce(ts, $2), sent = greatest(sent, $3), sent_at = now(), attempts = 0,
                    doubt_since = null, fault = null
             where id = $1",
        )
        .bind(post.id)
        .bind(ts)
        .bind(post.wanted),
        SlackEnd::Found(ts) => sqlx::query(
            "update slack_messages set ts = coalesce(ts, $2), sent_at = now(), doubt_since = null, fault = null
             where id = $1",
        )
        .bind(post.id)
        .bind(ts),
        SlackEnd::Again { after, doubt, why, .. } => sqlx::query(
            "update slack_messages set attempts = attempts + 1, fault = $2, due_at = now() + $3 * interval '1 second',
                    doubt_since = case when $4 then doubt_since end
             where id = $1",
        )
        .bind(post.id)
        .bind(why)
        .bind(after.as_secs_f64())
        .bind(doubt),
        // What nobody was told of is news again.
        SlackEnd::GivenUp(why) => sqlx::query(
            "with forgotten as (
                 delete from slack_told where topic in (
                     select line->>'topic' from slack_messages,
                            jsonb_array_elements(case when sent = 0 then content->'news' else '[]' end) line where id = $1))
             update slack_messages set given_up = true, fault = $2, doubt_since = null
             where id = $1 or parent = $3 and $4",
        )
        .bind(post.id)
        .bind(why)
        .bind(&post.key)
        .bind(post.ts.is_none()),
    };
    query.execute(db).await?;
    Ok(())
}

/// When the next message can be sent.
///
/// # Errors
/// The ledger did not answer.
pub async fn next_slack_message(db: &mut PgConnection) -> Result<Option<Duration>> {
    let due: Option<f64> = sqlx::query_scalar(concat!(
        "select extract(epoch from min(greatest(m.due_at, c.quiet_until, c.lease_until,
                    (select quiet_until from slack_channels where channel = $1),
                    (select quiet_until from slack_channels where channel = $2 and m.ts is not null))) - now())::float8
         from slack_messages m join slack_channels c using (channel) where ",
        sendable!()
    ))
    .bind(ALL)
    .bind(UPDATES)
    .fetch_one(db)
    .await?;
    Ok(due.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// How many messages are not as they should be yet.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_queue_length(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from slack_messages where wanted > sent and not given_up")
        .fetch_one(db)
        .await?)
}
