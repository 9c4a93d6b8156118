//! Fail-over that was tried: what applications saw of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::InvalidField;

/// Events of one drill.
const MOST_EVENTS: usize = 200;
/// Bytes of any text in it.
const LONGEST_TEXT: usize = 2000;

/// A fail-over that was tried. Times are in milliseconds from the moment in which the primary was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drill {
    /// When the primary was stopped.
    pub stopped_at: DateTime<Utc>,
    /// How.
    pub means: DrillMeans,
    /// The primary before, `host:port`.
    pub former_primary: String,
    /// The primary afterwards; none: there was none in time.
    pub primary: Option<String>,
    /// Commits waited for a standby, so that no acknowledged write may be lost.
    pub synchronous: bool,
    /// The writing client.
    pub writes: DrillClient,
    /// The reading client.
    pub reads: DrillClient,
    /// Acknowledged writes that are not there any more; none: nobody could be asked.
    pub lost: Option<u64>,
    /// When the control plane had a claim Ready again; none: not in time.
    pub claims_again_ms: Option<u64>,
    /// When every member was back; none: not in time.
    pub recovered_ms: Option<u64>,
    /// Within which time writes had to go on.
    pub rto_ms: u64,
    /// Within which time every member had to be back.
    pub recover_ms: u64,
    /// Nothing took longer than it may, and nothing was lost that may not be.
    pub passed: bool,
    /// What fell short.
    pub problems: Vec<String>,
    /// What happened when.
    pub events: Vec<DrillEvent>,
}

/// How a primary was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum DrillMeans {
    /// SIGKILL to everything of its node.
    Kill,
    /// The topology's own switchover.
    Switchover,
    /// A command of whoever ran the drill.
    Command,
}

/// What one of the clients saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillClient {
    /// Where it was led.
    pub endpoint: String,
    /// Its requests that were answered.
    pub answered: u64,
    /// Its requests and connections that failed.
    pub failed: u64,
    /// The longest time from one answer to the next.
    pub longest_gap_ms: u64,
    /// When that began.
    pub gap_began_ms: i64,
}

/// Something that happened in a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillEvent {
    /// Negative: before the primary was stopped.
    pub at_ms: i64,
    /// What.
    pub what: String,
}

impl Drill {
    /// What can not be written down.
    #[must_use]
    pub fn invalid(&self) -> Vec<InvalidField> {
        let texts = self.events.iter().map(|event| &event.what).chain(&self.problems);
        let named = [&self.former_primary, &self.writes.endpoint, &self.reads.endpoint];
        let unfit = |text: &String| text.len() > LONGEST_TEXT || text.contains('\0');
        let unfit = texts.chain(named).chain(&self.primary).any(unfit);
        let mut problems = Vec::new();
        if self.events.len() > MOST_EVENTS || self.problems.len() > MOST_EVENTS {
            problems.push(InvalidField::new("events", format!("at most {MOST_EVENTS} are kept")));
        }
        if unfit {
            problems.push(InvalidField::new("events", format!("a text may have {LONGEST_TEXT} bytes, and no NUL")));
        }
        problems
    }
}
