//! The name of a dump: when, and which of those.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, SubsecRound as _, Utc};
use pgtenant_model::{SnapshotId, SnapshotKind};
use rand::Rng;
use serde::{Deserialize, Serialize};

const TIME: &str = "%Y%m%dT%H%M%SZ";

/// `20261122T020000Z-1a2b3c4d`: UTC, and 8 random hexadecimal digits. Ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DumpId {
    at: DateTime<Utc>,
    random: u32,
}

/// A text that names no dump.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no dump: one is named as 20261122T020000Z-1a2b3c4d")]
pub struct InvalidDumpId(String);

impl DumpId {
    /// A new name, for a dump of `at`; what is shorter than a second is left out.
    pub fn new(at: DateTime<Utc>, rng: &mut impl Rng) -> Self {
        Self { at: at.trunc_subsecs(0), random: rng.next_u32() }
    }

    /// When, to the second.
    #[must_use]
    pub fn at(&self) -> DateTime<Utc> {
        self.at
    }

    /// The dump that a snapshot's name means; none: it is of another source.
    ///
    /// # Errors
    /// It is a dump's, and names none.
    pub fn of_snapshot(id: &SnapshotId) -> Result<Option<Self>, InvalidDumpId> {
        match id.kind() {
            SnapshotKind::Dump => id.name().parse().map(Some),
            SnapshotKind::Rds | SnapshotKind::PgBackRest => Ok(None),
        }
    }

    /// `dump:{id}`.
    ///
    /// # Errors
    /// Never for an id that was read from a text, nor for one of the years 0 to 9999.
    pub fn snapshot(&self) -> Result<SnapshotId, InvalidDumpId> {
        SnapshotId::new(SnapshotKind::Dump, self.to_string()).map_err(|_| InvalidDumpId(self.to_string()))
    }
}

impl fmt::Display for DumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.at.format(TIME), self.random)
    }
}

impl FromStr for DumpId {
    type Err = InvalidDumpId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (at, random) = text.split_once('-')?;
            let at = NaiveDateTime::parse_from_str(at, TIME).ok()?.and_utc();
            // A leap second is none of ours.
            let at = (at.timestamp_subsec_nanos() == 0).then_some(at)?;
            Some(Self { at, random: u32::from_str_radix(random, 16).ok()? })
        };
        // One text for each: what reads the same and is written otherwise is another file.
        read().filter(|id| id.to_string() == text).ok_or_else(|| InvalidDumpId(text.to_owned()))
    }
}

impl TryFrom<String> for DumpId {
    type Error = InvalidDumpId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DumpId> for String {
    fn from(id: DumpId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written_and_sort_by_time() {
        let text = "20261122T020000Z-1a2b3c4d";
        let id: DumpId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.snapshot().unwrap().to_string(), format!("dump:{text}"));
        assert_eq!(DumpId::of_snapshot(&id.snapshot().unwrap()), Ok(Some(id)));
        let later: DumpId = "20261122T020001Z-00000000".parse().unwrap();
        assert!(id < later);
        let made = DumpId::new("2026-11-22T02:00:00.9Z".parse().unwrap(), &mut rand::rng());
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_eq!(made.at(), id.at());
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in [
            "",
            "..",
            "../20261122T020000Z-1a2b3c4d",
            "20261122T020000Z",
            "20261122T020000Z-1A2B3C4D",
            "20261122T020000Z-1a2b3c4",
            "20261122T020000Z-+a2b3c4d",
            "20261122T020060Z-1a2b3c4d",
            "20261122T020000Z-1a2b3c4d/x",
            " 20261122T020000Z-1a2b3c4d",
            "20261322T020000Z-1a2b3c4d",
        ] {
            assert!(text.parse::<DumpId>().is_err(), "{text:?}");
        }
    }
}
