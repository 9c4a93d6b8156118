//! Whose data a cluster has, and whether it is what was there before.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Where a cluster's data comes from: what was last seen of it, or what a person has said is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The system identifier that `initdb` has chosen; the same on a primary and its standbys.
    #[schema(max_length = 20)]
    pub system: String,
    /// The primary's timeline; grows with each promotion.
    pub timeline: i32,
    /// When a person has said that this is right; none: nobody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<DateTime<Utc>>,
}

impl History {
    /// Why a primary with `seen` is not the one that is known, or a standby of it that was promoted; none: it may be.
    #[must_use]
    pub fn refuses(&self, seen: &Self) -> Option<String> {
        if seen.system != self.system {
            return Some(format!(
                "it is another cluster: its system identifier is {}, before it was {}",
                seen.system, self.system
            ));
        }
        (seen.timeline < self.timeline).then(|| {
            format!(
                "its timeline went back from {} to {}: what was written since the last promotion is not there",
                self.timeline, seen.timeline
            )
        })
    }

    /// What is known when both were seen, by several replicas: what a person has said last counts, and then the later timeline.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let rank = |one: &Self| (one.accepted_at, if one.system == self.system { one.timeline } else { 0 });
        if rank(&other) > rank(&self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(system: &str, timeline: i32, accepted: Option<i64>) -> History {
        let accepted_at = accepted.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        History { system: system.to_owned(), timeline, accepted_at }
    }

    #[test]
    fn a_promotion_goes_on_and_all_else_is_refused() {
        let known = history("7", 3, None);
        assert_eq!(known.refuses(&history("7", 3, None)), None);
        assert_eq!(known.refuses(&history("7", 4, None)), None);
        assert!(known.refuses(&history("7", 2, None)).unwrap().contains("from 3 to 2"));
        assert!(known.refuses(&history("8", 9, None)).unwrap().contains("another cluster"));
    }

    #[test]
    fn the_last_word_of_a_person_counts_and_then_the_later_timeline() {
        let latest = |a: History, b: History| {
            let both = (a.clone().and(b.clone()), b.and(a));
            assert_eq!(both.0, both.1, "in any order");
            both.0
        };
        assert_eq!(latest(history("7", 3, None), history("7", 4, None)).timeline, 4);
        assert_eq!(latest(history("7", 9, None), history("8", 1, Some(1))).system, "8");
        assert_eq!(latest(history("7", 9, Some(1)), history("7", 1, Some(2))).timeline, 1);
        assert_eq!(history("7", 3, None).and(history("8", 4, None)).system, "7", "what was there first");
    }
}
