//! What happened to a claim, and the requests that made it happen.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum EventKind {
    /// A claim was made.
    Created,
    /// A claim's spec was changed.
    Updated,
    /// The database can be used by every tier.
    Ready,
    /// A try failed; the message says at which step and when the next one is.
    Failed,
    /// Something was changed by hand and has been put back; `detail.changes` has the exact difference.
    DriftRepaired,
    /// A role has a new password, and every store has it.
    CredentialRotated,
    /// An existing database was taken over; `detail.changes` has what was changed.
    Adopted,
    /// The claim is gone or released and everything of it is kept.
    Retained,
    /// The claim is being removed.
    Deleting,
    /// Database, roles and stored credentials are gone.
    Deleted,
    /// A restore was asked for, or its way back.
    RestoreRequested,
    /// Somebody said yes to a restore.
    RestoreApproved,
    /// A restore has come to its next phase; `detail.phase` has it.
    RestoreProgressed,
    /// A restore is over, or what it had put aside is gone; `detail.phase` says how it ended.
    RestoreEnded,
    /// A dump could not be made, or not restored for a try; the message says why.
    BackupFailed,
    /// A cluster has another primary, or can not be reached, or can be again.
    ClusterChanged,
}

/// An entry of the stream of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with time; the `id:` of a server-sent event.
    pub id: i64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What kind of thing happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The tenant; none for events of a cluster.
    pub namespace: Option<String>,
    /// The claim's or the cluster's name.
    pub name: String,
    /// For people.
    pub message: String,
    /// For machines; depends on the type.
    pub detail: serde_json::Value,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Make a database.
    Create,
    /// Change a claim.
    Update,
    /// Remove a claim.
    Delete,
    /// Keep the database, stop managing it.
    Release,
    /// Take over a database.
    Adopt,
    /// New passwords.
    Rotate,
    /// A dump of the database.
    Backup,
    /// A try of a dump: it is restored beside the database, compared, and dropped.
    Verify,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum OperationState {
    /// Written down; nobody has begun.
    Pending,
    /// Under way, or waiting for its next try.
    Running,
    /// Done.
    Succeeded,
    /// Given up, because it was replaced by a newer request or can not be done.
    Failed,
}

/// A request and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// UUID version 7.
    pub id: Uuid,
    /// What was asked for.
    pub kind: OperationKind,
    /// How far it has come.
    pub state: OperationState,
    /// The tenant.
    pub namespace: String,
    /// The claim.
    pub name: String,
    /// The step at which it is, or at which it ended.
    pub step: Option<String>,
    /// For people: what it waits for, or how it ended.
    pub message: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
