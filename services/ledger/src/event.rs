//! The stream of events.

use chrono::{DateTime, Utc};
use pgtenant_model::{Event, EventKind};
use serde_json::Value;
use sqlx::PgConnection;

use crate::{EVENTS_CHANNEL, Result};

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// What kind of thing happened.
    pub kind: EventKind,
    /// The tenant.
    pub namespace: Option<&'a str>,
    /// The claim or the cluster.
    pub name: &'a str,
    /// For people.
    pub message: String,
    /// For machines.
    pub detail: Value,
}

/// Appends an event and announces it. Call it last in a transaction: from here to the commit, events of other
/// transactions wait, so that ids become visible in their order and a reader who remembers the last one misses none.
///
/// # Errors
/// The ledger did not answer.
pub async fn append_event(db: &mut PgConnection, event: NewEvent<'_>) -> Result<()> {
    // One statement, so one round trip; the lock is taken before the identity's value.
    sqlx::query(
        "with turn as materialized (select pg_advisory_xact_lock(7305808868210000001)),
              entry as (insert into events (kind, namespace, name, message, detail)
                        select $1, $2, $3, $4, $5 from turn returning id)
         select pg_notify($6, '') from entry",
    )
    .bind(json_name(event.kind))
    .bind(event.namespace)
    .bind(event.name)
    .bind(event.message)
    .bind(event.detail)
    .bind(EVENTS_CHANNEL)
    .execute(db)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: DateTime<Utc>,
    kind: String,
    namespace: Option<String>,
    name: String,
    message: String,
    detail: Value,
}

/// Events after `id`, oldest first; of `namespaces` only, where given.
///
/// # Errors
/// The ledger did not answer.
pub async fn events_after(
    db: &mut PgConnection,
    id: i64,
    namespaces: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Event>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, at, kind, namespace, name, message, detail from events
         where id > $1 and ($2::text[] is null or namespace = any($2)) order by id limit $3",
    )
    .bind(id)
    .bind(namespaces)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|Row { id, at, kind, namespace, name, message, detail }| {
            let kind = from_json_name("event kind", kind)?;
            Ok(Event { id, at, kind, namespace, name, message, detail })
        })
        .collect()
}

/// The id before the first event of the last `age`: reading on from there shows what happened since.
///
/// # Errors
/// The ledger did not answer.
pub async fn event_before(db: &mut PgConnection, age: std::time::Duration) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select coalesce((select min(id) - 1 from events where at > now() - $1 * interval '1 second'),
                         (select max(id) from events), 0)",
    )
    .bind(age.as_secs_f64())
    .fetch_one(db)
    .await?)
}

/// The id of the newest event; 0 where there is none.
///
/// # Errors
/// The ledger did not answer.
pub async fn event_high_water(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("select coalesce(max(id), 0) from events").fetch_one(db).await?)
}

/// The JSON name of a unit enum variant.
pub(crate) fn json_name<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        other => unreachable!("a unit variant is a string, not {other:?}"),
    }
}

/// The unit enum variant with this JSON name.
pub(crate) fn from_json_name<T: serde::de::DeserializeOwned>(what: &'static str, value: String) -> Result<T> {
    serde_json::from_value(Value::String(value.clone())).map_err(|_| crate::LedgerError::Unknown { what, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_are_stored_under_their_json_names() {
        assert_eq!(json_name(EventKind::DriftRepaired), "DriftRepaired");
        let kind: EventKind = from_json_name("event kind", "Ready".into()).unwrap();
        assert_eq!(kind, EventKind::Ready);
        let error = from_json_name::<EventKind>("event kind", "Nope".into()).unwrap_err();
        assert!(error.to_string().contains("Nope"));
    }
}
