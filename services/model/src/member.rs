//! The servers of a cluster, as they are seen.

use serde::{Deserialize, Serialize};

/// What a member of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Accepts writes.
    Primary,
    /// Follows a primary.
    Standby,
    /// Did not answer.
    Unreachable,
}

impl MemberRole {
    /// `primary`, `standby` or `unreachable`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How commits on the primary wait for a standby, as `pg_stat_replication.sync_state` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// They do not.
    Async,
    /// They will, when one of those that they wait for is gone.
    Potential,
    /// They do.
    Sync,
    /// They wait for some of several, of which this is one.
    Quorum,
}

impl SyncState {
    /// `async`, `potential`, `sync` or `quorum`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Potential => "potential",
            Self::Sync => "sync",
            Self::Quorum => "quorum",
        }
    }
}

/// A server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// `host:port`.
    pub host: String,
    /// What it does.
    pub role: MemberRole,
    /// Who says so: `the server` or `RDS`; none: it did not answer.
    #[serde(default)]
    pub said_by: Option<String>,
    /// Its timeline; grows with each promotion.
    pub timeline: Option<i32>,
    /// Bytes of the primary's log that a standby has not replayed yet.
    #[serde(default)]
    pub lag_bytes: Option<i64>,
    /// Age in whole seconds of what a standby has replayed last; 0 where it has replayed all that it has received.
    #[serde(default)]
    pub lag_seconds: Option<i64>,
    /// How commits wait for a standby; none: it is not seen.
    #[serde(default)]
    pub sync: Option<SyncState>,
    /// What the tool that keeps the cluster available says of it, as `Patroni: leader, running`.
    #[serde(default)]
    pub tool: Option<String>,
    /// What is wrong with it, or not to be seen, or the reason why it did not answer.
    pub message: Option<String>,
}

/// What is said of a standby that has no receiver at work.
pub const NOT_STREAMING: &str = "not streaming";

impl Member {
    /// A member of which no more is known.
    #[must_use]
    pub fn new(host: impl ToString, role: MemberRole) -> Self {
        Self {
            host: host.to_string(),
            role,
            said_by: None,
            timeline: None,
            lag_bytes: None,
            lag_seconds: None,
            sync: None,
            tool: None,
            message: None,
        }
    }

    /// Whether it answers, and follows if it is a standby.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let idle = self.message.as_ref().is_some_and(|message| message.contains(NOT_STREAMING));
        self.role != MemberRole::Unreachable && !idle
    }

    /// Says this beside what is said already.
    pub fn add_message(&mut self, text: &str) {
        self.message = Some(self.message.take().map_or_else(|| text.to_owned(), |before| format!("{before}, {text}")));
    }
}
