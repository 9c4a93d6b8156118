//! What the Slack door remembers: what it has dealt with, up to where it has read, and what it has told.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use pgtenant_model::ClaimKey;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{LedgerError, Result};

/// Notes in this transaction that something is dealt with; false where it was already. Whoever deals with the same at the same
/// moment waits here for the end of the other.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_first_sight(db: &mut PgConnection, id: &str) -> Result<bool> {
    let done =
        sqlx::query("insert into slack_seen (id) values ($1) on conflict do nothing").bind(id).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Whether something was dealt with.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_seen(db: &mut PgConnection, id: &str) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from slack_seen where id = $1)").bind(id).fetch_one(db).await?)
}

/// What is written from here on can be undone without what was written before.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_savepoint(db: &mut PgConnection) -> Result<()> {
    sqlx::query("savepoint slack").execute(db).await?;
    Ok(())
}

/// See [`slack_savepoint`].
///
/// # Errors
/// The ledger did not answer.
pub async fn undo_to_slack_savepoint(db: &mut PgConnection) -> Result<()> {
    sqlx::query("rollback to savepoint slack").execute(db).await?;
    Ok(())
}

/// A restore was asked for in this channel, and is shown there.
///
/// # Errors
/// The ledger did not answer.
pub async fn show_restore_in_slack(db: &mut PgConnection, restore: Uuid, channel: &str) -> Result<()> {
    sqlx::query("insert into slack_asked (restore, channel) values ($1, $2) on conflict do nothing")
        .bind(restore)
        .bind(channel)
        .execute(db)
        .await?;
    Ok(())
}

/// Channels in which a restore was asked for or is shown.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_channels_of(db: &mut PgConnection, restore: Uuid) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select channel from slack_asked where restore = $1 union select channel from slack_messages where restore = $1",
    )
    .bind(restore)
    .fetch_all(db)
    .await?)
}

/// The channels that these claims, each a namespace and a name, name for their news; by `namespace/name`, and only those that name
/// one.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_channels_wanted(db: &mut PgConnection, claims: &[(&str, &str)]) -> Result<HashMap<String, String>> {
    let (namespaces, names): (Vec<&str>, Vec<&str>) = claims.iter().copied().unzip();
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select namespace || '/' || name, slack_channel from claims
         join unnest($1::text[], $2::text[]) as wanted (namespace, name) using (namespace, name)
         where slack_channel is not null",
    )
    .bind(namespaces)
    .bind(names)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Lets a reader begin at the newest event; false where it has begun before.
///
/// # Errors
/// The ledger did not answer.
pub async fn begin_slack_cursor(db: &mut PgConnection, reader: &str) -> Result<bool> {
    let done = sqlx::query(
        "insert into slack_cursors (reader, position) select $1, coalesce(max(id), 0) from events on conflict do nothing",
    )
    .bind(reader)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Up to which event a reader has read, held until the end of the transaction. None: another replica reads.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_cursor(db: &mut PgConnection, reader: &str) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar("select position from slack_cursors where reader = $1 for update skip locked")
        .bind(reader)
        .fetch_optional(db)
        .await?)
}

/// A reader has read up to here.
///
/// # Errors
/// The ledger did not answer.
pub async fn move_slack_cursor(db: &mut PgConnection, reader: &str, position: i64) -> Result<()> {
    sqlx::query("update slack_cursors set position = $2 where reader = $1")
        .bind(reader)
        .bind(position)
        .execute(db)
        .await?;
    Ok(())
}

/// What was last told of each of these, and when.
///
/// # Errors
/// The ledger did not answer.
pub async fn slack_told(db: &mut PgConnection, topics: &[String]) -> Result<HashMap<String, (String, DateTime<Utc>)>> {
    let rows: Vec<(String, String, DateTime<Utc>)> =
        sqlx::query_as("select topic, said, at from slack_told where topic = any($1)")
            .bind(topics)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(|(topic, said, at)| (topic, (said, at))).collect())
}

/// Notes what is told of each of these topics now; none: it is forgotten.
///
/// # Errors
/// The ledger did not answer.
pub async fn tell_slack(db: &mut PgConnection, all: &[(String, Option<String>)]) -> Result<()> {
    let (topics, said): (Vec<&str>, Vec<Option<&str>>) =
        all.iter().map(|(topic, said)| (topic.as_str(), said.as_deref())).unzip();
    // One statement for a page of events: there may be a thousand of them.
    sqlx::query(
        "with now_said as (select * from unnest($1::text[], $2::text[]) as t (topic, said)),
              forgotten as (delete from slack_told where topic in (select topic from now_said where said is null))
         insert into slack_told (topic, said) select topic, said from now_said where said is not null
         on conflict (topic) do update set said = excluded.said, at = now()",
    )
    .bind(topics)
    .bind(said)
    .execute(db)
    .await?;
    Ok(())
}

/// Restores that are not over.
///
/// # Errors
/// The ledger did not answer.
pub async fn open_restores(db: &mut PgConnection) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar("select id from restores where finished_at is null order by id").fetch_all(db).await?)
}

/// Whoever shows a restore does so alone until the end of the transaction, and with what it is now: an older view never comes
/// after a newer one.
///
/// # Errors
/// The ledger did not answer.
pub async fn show_restore_alone(db: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 12))").bind(id.to_string()).execute(db).await?;
    Ok(())
}

/// Which claims are looked for by their names.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// Those of this name, in whichever namespace.
    Exactly(&'a str),
    /// Those whose `namespace/name` has this somewhere.
    Like(&'a str),
}

/// Claims of `namespaces`, or of all, that are managed and have such a name, in their order.
///
/// # Errors
/// The ledger did not answer.
pub async fn claims_named(
    db: &mut PgConnection,
    namespaces: Option<&[String]>,
    named: Named<'_>,
    limit: i64,
) -> Result<Vec<ClaimKey>> {
    let (name, part) = match named {
        Named::Exactly(name) => (Some(name), ""),
        Named::Like(part) => (None, part),
    };
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select namespace, name from claims
         where wish = 'present' and ($1::text[] is null or namespace = any($1)) and ($2::text is null or name = $2)
           and ($3 = '' or strpos(namespace || '/' || name, $3) > 0)
         order by namespace, name limit $4",
    )
    .bind(namespaces)
    .bind(name)
    .bind(part)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let key = |(namespace, name)| {
        ClaimKey::new(namespace, name).map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })
    };
    rows.into_iter().map(key).collect()
}
