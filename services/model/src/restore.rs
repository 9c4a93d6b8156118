//! Back from a snapshot: what is asked for, from what, and how far it is.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{ClaimKey, InvalidField, Verification};

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// A dump of this database alone, encrypted.
    Dump,
    /// A snapshot of the whole cluster that RDS keeps.
    Rds,
    /// A backup of the whole cluster in a pgBackRest repository.
    PgBackRest,
}

impl SnapshotKind {
    /// `dump`, `rds` or `pgbackrest`, as identifiers begin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Rds => "rds",
            Self::PgBackRest => "pgbackrest",
        }
    }
}

/// A snapshot's name: `rds:shared-2026-11-20-02-14`. What follows the colon is the source's own name for it, 1 to 255 bytes of
/// letters, digits, `.`, `_`, `:` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId {
    kind: SnapshotKind,
    name: String,
}

/// The longest name within its source.
const MAX_SNAPSHOT_NAME: usize = 255;

impl SnapshotId {
    /// A name of `kind`.
    ///
    /// # Errors
    /// The name is not one.
    pub fn new(kind: SnapshotKind, name: impl Into<String>) -> Result<Self, InvalidSnapshotId> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let fits = (1..=MAX_SNAPSHOT_NAME).contains(&name.len()) && name.bytes().all(allowed);
        // A name is part of paths and of arguments of programs.
        if fits && !name.starts_with(['-', '.']) { Ok(Self { kind, name }) } else { Err(InvalidSnapshotId(name)) }
    }

    /// Where it comes from.
    #[must_use]
    pub fn kind(&self) -> SnapshotKind {
        self.kind
    }

    /// The source's own name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A text that names no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no snapshot: write dump:NAME, rds:NAME or pgbackrest:NAME, as the list of snapshots shows it")]
pub struct InvalidSnapshotId(String);

impl FromStr for SnapshotId {
    type Err = InvalidSnapshotId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSnapshotId(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(invalid)?;
        let kinds = [SnapshotKind::Dump, SnapshotKind::Rds, SnapshotKind::PgBackRest];
        let kind = kinds.into_iter().find(|one| one.as_str() == kind).ok_or_else(invalid)?;
        Self::new(kind, name).map_err(|_| invalid())
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = InvalidSnapshotId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// What a database can be restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its name, to ask for it.
    #[schema(value_type = String, example = "dump:20261120T021405Z")]
    pub id: SnapshotId,
    /// What it shows: the database as it was then.
    pub at: DateTime<Utc>,
    /// Bytes in the place where it is kept, where that is known.
    pub size: Option<u64>,
    /// Whether this database is in it; none: that is known when it is opened.
    pub contains: Option<bool>,
    /// When it was last restored for a try, and found whole; none: never.
    pub verified_at: Option<DateTime<Utc>>,
    /// Where it is kept, for people.
    pub location: String,
}

/// Which snapshot, one of three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestorePoint {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[schemars(with = "Option<String>")]
    pub snapshot: Option<SnapshotId>,
    /// The database as it was then: the newest snapshot before it, or the instant itself where the source can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub time: Option<DateTime<Utc>>,
    /// The newest one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
}

/// What becomes of the database that is there now.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RestoreStrategy {
    /// The copy is made beside it and verified, and takes its name; the one that was there is kept for a while.
    #[default]
    Swap,
    /// It is emptied and filled again in place, after a dump of what is there.
    Replace,
    /// It stays; the copy is another database with a claim of its own.
    Copy,
    /// It stays; the copy is made beside it and verified, and dropped: whether the snapshot is good is known then.
    Test,
}

/// A wish for a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSpec {
    /// From what.
    pub from: RestorePoint,
    /// Into what.
    #[serde(default)]
    pub strategy: RestoreStrategy,
    /// With `copy`: the name of the new claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_name: Option<String>,
    /// Why, for whoever approves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    #[schemars(length(max = 1000))]
    pub reason: Option<String>,
}

/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;

impl RestoreSpec {
    /// What is wrong with it, for a database of `key`.
    #[must_use]
    pub fn problems(&self, key: &ClaimKey) -> Vec<InvalidField> {
        let mut problems = Vec::new();
        let RestorePoint { snapshot, time, latest } = &self.from;
        if [snapshot.is_some(), time.is_some(), *latest].into_iter().filter(|named| *named).count() != 1 {
            problems.push(InvalidField::new("from", "name one of snapshot, time and latest"));
        }
        match (self.strategy, &self.copy_name) {
            (RestoreStrategy::Copy, None) => {
                problems.push(InvalidField::new("copyName", "missing: strategy copy makes a new database"));
            }
            (RestoreStrategy::Copy, Some(name)) if name == key.name() => {
                problems.push(InvalidField::new("copyName", "is the database itself; strategy swap takes its place"));
            }
            (RestoreStrategy::Copy, Some(name)) => {
                let made = ClaimKey::new(key.namespace(), name);
                problems.extend(made.err().map(|error| InvalidField::new("copyName", error.to_string())));
            }
            (_, Some(_)) => problems.push(InvalidField::new("copyName", "only with strategy copy")),
            (_, None) => {}
        }
        if self.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            problems.push(InvalidField::new("reason", format!("at most {MAX_REASON} bytes")));
        }
        problems
    }
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum RestorePhase {
    /// It waits for somebody to approve it.
    Requested,
    /// It waits for its turn.
    Approved,
    /// The snapshot is opened, and room made for the copy.
    Preparing,
    /// Schema and data are copied.
    Copying,
    /// The copy is compared with the snapshot.
    Verifying,
    /// The copy takes the place of the database.
    Switching,
    /// What was needed only for this is removed.
    CleaningUp,
    /// It is done.
    Succeeded,
    /// It can not be done; the database is as it was.
    Failed,
    /// Somebody has cancelled it; the database is as it was.
    Cancelled,
    /// Nobody approved it.
    Rejected,
}

impl RestorePhase {
    /// Whether nothing happens any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Rejected)
    }

    /// Whether it can be given up, with all as it was.
    #[must_use]
    pub const fn can_be_cancelled(self) -> bool {
        matches!(self, Self::Requested | Self::Approved | Self::Preparing | Self::Copying | Self::Verifying)
    }
}

/// How much is copied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RestoreProgress {
    /// Bytes of tables that are copied.
    pub bytes: u64,
    /// Of so many, as far as that is known.
    pub bytes_total: Option<u64>,
    /// Tables that are copied.
    pub tables: u32,
    /// Of so many.
    pub tables_total: Option<u32>,
    /// When it will be done, at the pace so far.
    pub estimated_end: Option<DateTime<Utc>>,
}

/// A restore as REST shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// UUID version 7.
    pub id: Uuid,
    /// The tenant.
    pub namespace: String,
    /// The claim.
    pub name: String,
    /// The shared cluster.
    pub cluster: String,
    /// What was asked for.
    #[serde(flatten)]
    pub spec: RestoreSpec,
    /// The snapshot that it came to.
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<SnapshotId>,
    /// How far it is.
    pub phase: RestorePhase,
    /// For people: what it does or waits for, or how it ended.
    pub message: Option<String>,
    /// How much is copied.
    pub progress: RestoreProgress,
    /// What was compared, when that is done.
    pub report: Option<Verification>,
    /// The database that a swap has put aside, and until when it is kept: until then the restore can be undone.
    pub before: Option<PutAside>,
    /// When it was undone.
    pub undone_at: Option<DateTime<Utc>>,
    /// Who asked.
    pub requested_by: String,
    /// Who approved or rejected it.
    pub decided_by: Option<String>,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A database that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PutAside {
    /// Its name now.
    pub database: String,
    /// It is dropped then.
    pub until: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ClaimKey {
        ClaimKey::new("shop", "orders").unwrap()
    }

    fn spec(json: serde_json::Value) -> RestoreSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_snapshot_is_named_by_its_source() {
        for text in ["rds:shared-2026-11-20-02-14", "dump:20261120T021405Z", "pgbackrest:20261120-021405F_x"] {
            assert_eq!(text.parse::<SnapshotId>().unwrap().to_string(), text);
        }
        for text in ["", "rds", "rds:", "s3:x", "dump:../x", "dump:a/b", "dump:-x", "dump:.x", "dump:a b", "rds:ü"] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text:?}");
        }
        assert!(format!("dump:{}", "a".repeat(256)).parse::<SnapshotId>().is_err());
    }

    #[test]
    fn a_wish_names_one_point_and_a_name_for_a_copy_alone() {
        let fields = |json| {
            let fields: Vec<String> = spec(json).problems(&key()).into_iter().map(|one| one.field).collect();
            fields.join(" ")
        };
        use serde_json::json;
        assert_eq!(fields(json!({"from": {"latest": true}})), "");
        assert_eq!(fields(json!({"from": {"snapshot": "dump:a"}, "strategy": "swap"})), "");
        assert_eq!(fields(json!({"from": {"snapshot": "dump:a"}, "strategy": "replace"})), "");
        assert_eq!(fields(json!({"from": {}})), "from");
        assert_eq!(fields(json!({"from": {"latest": true, "snapshot": "dump:a"}})), "from");
        assert_eq!(fields(json!({"from": {"latest": true}, "strategy": "copy"})), "copyName");
        assert_eq!(fields(json!({"from": {"latest": true}, "strategy": "copy", "copyName": "orders"})), "copyName");
        assert_eq!(fields(json!({"from": {"latest": true}, "strategy": "copy", "copyName": "Old"})), "copyName");
        assert_eq!(fields(json!({"from": {"latest": true}, "strategy": "copy", "copyName": "orders-old"})), "");
        assert_eq!(fields(json!({"from": {"latest": true}, "copyName": "orders-old"})), "copyName");
        assert_eq!(fields(json!({"from": {"latest": true}, "reason": "x".repeat(1001)})), "reason");
    }

    #[test]
    fn a_restore_is_cancelled_before_it_switches_or_not_at_all() {
        use RestorePhase::{CleaningUp, Requested, Succeeded, Switching, Verifying};
        assert!(Requested.can_be_cancelled() && Verifying.can_be_cancelled());
        assert!(!Switching.can_be_cancelled() && !CleaningUp.can_be_cancelled() && !Succeeded.can_be_cancelled());
        assert!(Succeeded.is_over() && !CleaningUp.is_over());
    }
}
