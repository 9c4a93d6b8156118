//! Another primary, because somebody wants one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::OperationState;

/// A wish for another primary of a cluster, and what has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// UUID version 7.
    pub id: Uuid,
    /// The cluster.
    pub cluster: String,
    /// The member that is to be the primary, as the topology names it; none: whichever the cluster's tool chooses.
    pub to: Option<String>,
    /// How far it has come.
    pub state: OperationState,
    /// The primary when it was begun.
    pub before: Option<String>,
    /// The primary when it was done.
    pub after: Option<String>,
    /// For people: how it ended.
    pub message: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
