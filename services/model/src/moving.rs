//! A database on another cluster, because somebody wants it there.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum MovePhase {
    /// It is tried: a copy is made on the other cluster, compared and dropped, while applications go on.
    Rehearsing,
    /// It is known how long nobody will be able to write; somebody has to say yes.
    Waiting,
    /// Nobody can connect, and the database is copied.
    Moving,
    /// It is decided how it ends; what is left to do is done.
    CleaningUp,
    /// It is on the other cluster.
    Succeeded,
    /// It can not be moved; it is where it was.
    Failed,
    /// Nobody has said yes; it is where it was.
    Cancelled,
}

impl MovePhase {
    /// Whether nothing happens any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How a database gets to another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum MoveMethod {
    /// Logical replication: what is written comes along while applications go on, and they wait for the last of it.
    Replication,
    /// A copy that is made while nobody can write.
    Dump,
}

/// A move as REST shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// UUID version 7.
    pub id: Uuid,
    /// The tenant.
    pub namespace: String,
    /// The claim.
    pub name: String,
    /// The cluster that it was on.
    pub from: String,
    /// The cluster that it is to be on.
    pub to: String,
    /// How it gets there, when that is known.
    pub method: Option<MoveMethod>,
    /// How far it is.
    pub phase: MovePhase,
    /// For people: what it does or waits for, or how it ended.
    pub message: Option<String>,
    /// Bytes of tables, when it was rehearsed.
    pub bytes: Option<u64>,
    /// Tables, when it was rehearsed.
    pub tables: Option<u32>,
    /// Seconds for which nobody will be able to write, as the rehearsal says.
    pub expected_gap_seconds: Option<f64>,
    /// Seconds for which nobody could write.
    pub gap_seconds: Option<f64>,
    /// Until when what was there is kept, closed, on the cluster that it was on.
    pub kept_until: Option<DateTime<Utc>>,
    /// Who asked.
    pub requested_by: String,
    /// Who said yes.
    pub confirmed_by: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
