//! Requests and how far they have come.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClaimKey, Operation, OperationKind};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::{Actor, LedgerError, Result};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    kind: String,
    state: String,
    namespace: String,
    name: String,
    step: Option<String>,
    message: Option<String>,
    requested_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Operation {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self> {
        let Row { id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at } = row;
        let kind = from_json_name("operation kind", kind)?;
        let state = from_json_name("operation state", state)?;
        Ok(Self { id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at })
    }
}

/// One operation.
///
/// # Errors
/// The ledger did not answer.
pub async fn operation(db: &mut PgConnection, id: Uuid) -> Result<Option<Operation>> {
    let row: Option<Row> = sqlx::query_as(
        "select id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at
         from operations where id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    row.map(Operation::try_from).transpose()
}

/// The newest operations of a claim first, at most 100.
///
/// # Errors
/// The ledger did not answer.
pub async fn operations_of(db: &mut PgConnection, key: &ClaimKey) -> Result<Vec<Operation>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at
         from operations where namespace = $1 and name = $2 order by id desc limit 100",
    )
    .bind(key.namespace())
    .bind(key.name())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Operation::try_from).collect()
}

/// Writes down a request. `done` for one that is fulfilled by the writing itself.
pub(crate) async fn begin_operation(
    db: &mut PgConnection,
    kind: OperationKind,
    key: &ClaimKey,
    claim: Uuid,
    generation: i64,
    actor: &Actor,
    done: bool,
) -> Result<Operation> {
    let row: Row = sqlx::query_as(
        "insert into operations (id, kind, namespace, name, claim, generation, requested_by, state, finished_at)
         values ($1, $2, $3, $4, $5, $6, $7, case when $8 then 'Succeeded' else 'Pending' end,
                 case when $8 then now() end)
         returning id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at",
    )
    .bind(Uuid::now_v7())
    .bind(json_name(kind))
    .bind(key.namespace())
    .bind(key.name())
    .bind(claim)
    .bind(generation)
    .bind(&actor.name)
    .bind(done)
    .fetch_one(db)
    .await?;
    row.try_into()
}

/// Ends what was asked for before `generation` and is not done: it will not be, since the database is to go or is kept as
/// it is.
pub(crate) async fn give_up_before(
    db: &mut PgConnection,
    claim: Uuid,
    generation: i64,
    by: OperationKind,
) -> Result<()> {
    sqlx::query(
        "update operations set state = 'Failed', message = $3, finished_at = now()
         where claim = $1 and generation < $2 and finished_at is null and kind not in ('backup', 'verify')",
    )
    .bind(claim)
    .bind(generation)
    .bind(format!("replaced by a newer request: {}", json_name(by)))
    .execute(db)
    .await?;
    Ok(())
}
