//! Restores as they are stored, and what is read of them.

use chrono::{DateTime, Utc};
use pgtenant_model::{
    ClaimKey, PutAside, Restore, RestorePhase, RestoreProgress, RestoreSpec, RestoreStrategy, SnapshotId, Verification,
};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::{LedgerError, Result};

/// A restore as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRestore {
    /// As people see it.
    pub view: Restore,
    /// The claim whose snapshot it is, as it was when it was asked for.
    pub claim: Uuid,
    /// What it ends as when all is cleaned up; none: it is on its way.
    pub outcome: Option<RestorePhase>,
    /// What each step has left for those after it.
    pub steps: Value,
    /// Somebody wants it to end with all as it was.
    pub cancel: bool,
    /// Somebody wants the database back that it has put aside.
    pub undo_asked_by: Option<String>,
    /// Failed tries of the present step.
    pub attempts: i32,
    /// The UID of the object of Kubernetes that has asked for it, where one has.
    pub object: Option<String>,
    /// A test by the schedule: nobody waits for it.
    pub scheduled: bool,
}

#[derive(sqlx::FromRow)]
pub(crate) struct RestoreRow {
    id: Uuid,
    claim: Uuid,
    namespace: String,
    name: String,
    cluster: String,
    spec: Json<RestoreSpec>,
    snapshot: Option<String>,
    phase: String,
    outcome: Option<String>,
    message: Option<String>,
    progress: Json<RestoreProgress>,
    steps: Value,
    report: Option<Json<Verification>>,
    before_name: Option<String>,
    before_until: Option<DateTime<Utc>>,
    requested_by: String,
    decided_by: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    cancel: bool,
    undo_asked_by: Option<String>,
    undone_at: Option<DateTime<Utc>>,
    attempts: i32,
    object: Option<String>,
    scheduled: bool,
}

/// The columns of [`RestoreRow`], for `select` and `returning`.
macro_rules! restore_columns {
    () => {
        "id, claim, namespace, name, cluster, spec, snapshot, phase, outcome, message, progress, steps, report, \
         before_name, before_until, requested_by, decided_by, created_at, finished_at, cancel, undo_asked_by, \
         undone_at, attempts, object, scheduled"
    };
}
pub(crate) use restore_columns;

impl TryFrom<RestoreRow> for StoredRestore {
    type Error = LedgerError;

    fn try_from(row: RestoreRow) -> Result<Self> {
        let snapshot = row
            .snapshot
            .map(|text| text.parse::<SnapshotId>().map_err(|_| LedgerError::Unknown { what: "snapshot", value: text }));
        let before = row.before_name.zip(row.before_until).map(|(database, until)| PutAside { database, until });
        Ok(Self {
            view: Restore {
                id: row.id,
                namespace: row.namespace,
                name: row.name,
                cluster: row.cluster,
                spec: row.spec.0,
                snapshot: snapshot.transpose()?,
                phase: from_json_name("phase", row.phase)?,
                message: row.message,
                progress: row.progress.0,
                report: row.report.map(|report| report.0),
                before,
                undone_at: row.undone_at,
                requested_by: row.requested_by,
                decided_by: row.decided_by,
                created_at: row.created_at,
                finished_at: row.finished_at,
            },
            claim: row.claim,
            outcome: row.outcome.map(|outcome| from_json_name("outcome", outcome)).transpose()?,
            steps: row.steps,
            cancel: row.cancel,
            undo_asked_by: row.undo_asked_by,
            attempts: row.attempts,
            object: row.object,
            scheduled: row.scheduled,
        })
    }
}

impl StoredRestore {
    /// The claim whose snapshot it is.
    ///
    /// # Errors
    /// The row names no claim.
    pub fn key(&self) -> Result<ClaimKey> {
        let Restore { namespace, name, .. } = &self.view;
        ClaimKey::new(namespace, name).map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })
    }
}

/// One restore.
///
/// # Errors
/// The ledger did not answer.
pub async fn restore(db: &mut PgConnection, id: Uuid) -> Result<Option<StoredRestore>> {
    let row: Option<RestoreRow> =
        sqlx::query_as(concat!("select ", restore_columns!(), " from restores where id = $1"))
            .bind(id)
            .fetch_optional(db)
            .await?;
    row.map(StoredRestore::try_from).transpose()
}

/// The restore that an object of Kubernetes has asked for, by its UID.
///
/// # Errors
/// The ledger did not answer.
pub async fn restore_of_object(db: &mut PgConnection, object: &str) -> Result<Option<StoredRestore>> {
    let row: Option<RestoreRow> =
        sqlx::query_as(concat!("select ", restore_columns!(), " from restores where object = $1"))
            .bind(object)
            .fetch_optional(db)
            .await?;
    row.map(StoredRestore::try_from).transpose()
}

/// Which restores to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreFilter<'a> {
    /// Of these tenants; none: of all.
    pub namespaces: Option<&'a [String]>,
    /// Of this claim's name.
    pub name: Option<&'a str>,
    /// In this phase.
    pub phase: Option<RestorePhase>,
    /// After this one of a former page.
    pub before: Option<Uuid>,
}

/// Restores, newest first.
///
/// # Errors
/// The ledger did not answer.
pub async fn restores(db: &mut PgConnection, filter: RestoreFilter<'_>, limit: i64) -> Result<Vec<StoredRestore>> {
    let rows: Vec<RestoreRow> = sqlx::query_as(concat!(
        "select ",
        restore_columns!(),
        " from restores
          where ($1::text[] is null or namespace = any($1)) and ($2::text is null or name = $2)
            and ($3::text is null or phase = $3) and ($4::uuid is null or id < $4)
          order by id desc limit $5"
    ))
    .bind(filter.namespaces)
    .bind(filter.name)
    .bind(filter.phase.map(json_name))
    .bind(filter.before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(StoredRestore::try_from).collect()
}

/// Restores of a cluster that are not over, of the same strategy, and in the same phase.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRestores {
    /// The cluster.
    pub cluster: String,
    /// Where they are.
    pub phase: RestorePhase,
    /// What becomes of the databases.
    pub strategy: RestoreStrategy,
    /// How many they are.
    pub count: i64,
    /// Seconds for which the one that has been there for longest is there.
    pub longest: f64,
}

/// How many restores are under way, and for how long the slowest of them has not moved on.
///
/// # Errors
/// The ledger did not answer.
pub async fn open_restores_by_phase(db: &mut PgConnection) -> Result<Vec<OpenRestores>> {
    let rows: Vec<(String, String, String, i64, f64)> = sqlx::query_as(
        "select cluster, phase, spec ->> 'strategy', count(*), max(extract(epoch from now() - phase_since))::float8
         from restores where finished_at is null group by 1, 2, 3",
    )
    .fetch_all(db)
    .await?;
    let each = rows.into_iter().map(|(cluster, phase, strategy, count, longest)| {
        let (phase, strategy) = (from_json_name("phase", phase)?, from_json_name("strategy", strategy)?);
        Ok(OpenRestores { cluster, phase, strategy, count, longest })
    });
    each.collect()
}
