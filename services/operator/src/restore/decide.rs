//! What is to be done about an object. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt as _};
use pgtenant_ledger::{Refused, StoredRestore};
use pgtenant_model::{ClaimKey, InvalidField, RestorePoint, RestoreSpec, RestoreStrategy as Strategy, SnapshotId};

use crate::crd::{PostgresqlRestore, PostgresqlRestoreSpec, RestoreSource, RestoreStrategy};

/// What waits for its claim is not begun by surprise long after it was wished for.
pub(super) const PATIENCE: TimeDelta = TimeDelta::hours(1);

/// What an object wishes for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wished {
    pub(super) key: ClaimKey,
    pub(super) spec: RestoreSpec,
}

/// Why a wish is not written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One word.
    pub(super) reason: &'static str,
    /// What to do.
    pub(super) message: String,
    /// It will not be asked for any more.
    pub(super) last: bool,
}

/// What is to be written into the ledger.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing: it was asked for, or refused for good.
    Keep,
    /// Nothing, and the object is told why.
    Refuse(Refusal),
    /// A restore.
    Ask(Wished),
}

/// Reads the object and what the ledger has of it. An object that knows of a restore which the ledger does not, as when that was
/// itself restored from a backup, does not ask for it a second time.
pub(super) fn decide(object: &PostgresqlRestore, found: Option<&StoredRestore>) -> Step {
    if found.is_some() || !is_waiting(object) {
        return Step::Keep;
    }
    match validate(object) {
        Ok(wished) => Step::Ask(wished),
        Err(problems) => {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Step::Refuse(Refusal { reason: "Invalid", message, last: true })
        }
    }
}

/// Whether it could not be asked for yet.
pub(super) fn is_waiting(object: &PostgresqlRestore) -> bool {
    object.status.as_ref().is_none_or(|status| status.id.is_none() && status.phase.is_none())
}

/// What a refusal of the ledger means for an object: what others can put right is waited for, for some time.
pub(super) fn refusal(refused: &Refused, object: &PostgresqlRestore, now: DateTime<Utc>) -> Refusal {
    let others = matches!(
        refused,
        Refused::NotFound(_) | Refused::Deleting(_) | Refused::Retained(_) | Refused::TooManyRestores { .. }
    );
    let until = waits_until(object);
    let last = !others || now >= until;
    let message = match (others, last) {
        (true, false) => {
            format!("{refused}. It is asked for as soon as that has changed, until {}", until.format("%H:%M UTC"))
        }
        (true, true) => format!("{refused}. It has waited for an hour: make another object when that has changed"),
        (false, _) => refused.to_string(),
    };
    Refusal { reason: refused.reason(), message, last }
}

/// When it is given up.
pub(super) fn waits_until(object: &PostgresqlRestore) -> DateTime<Utc> {
    let made = object.meta().creation_timestamp.as_ref().and_then(instant);
    made.unwrap_or(DateTime::UNIX_EPOCH) + PATIENCE
}

fn instant(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), u32::try_from(time.0.subsec_nanosecond()).ok()?)
}

fn validate(object: &PostgresqlRestore) -> Result<Wished, Vec<InvalidField>> {
    let PostgresqlRestoreSpec { database, from, strategy, copy_name, reason } = object.spec.clone();
    let key = ClaimKey::new(object.namespace().unwrap_or_default(), database)
        .map_err(|error| vec![InvalidField::new("database", error.to_string())])?;
    let strategy = match strategy {
        RestoreStrategy::Swap => Strategy::Swap,
        RestoreStrategy::Replace => Strategy::Replace,
        RestoreStrategy::Copy => Strategy::Copy,
        RestoreStrategy::Test => Strategy::Test,
    };
    let spec = RestoreSpec { from: point(from)?, strategy, copy_name, reason };
    let problems = spec.problems(&key);
    if problems.is_empty() { Ok(Wished { key, spec }) } else { Err(problems) }
}

fn point(RestoreSource { snapshot, time, latest }: RestoreSource) -> Result<RestorePoint, Vec<InvalidField>> {
    let invalid = |field: &str, message: String| vec![InvalidField::new(field, message)];
    let snapshot = snapshot
        .map(|text| text.parse::<SnapshotId>())
        .transpose()
        .map_err(|error| invalid("from.snapshot", error.to_string()))?;
    let time = time
        .map(|time| instant(&time).ok_or_else(|| invalid("from.time", "is out of range".to_owned())))
        .transpose()?;
    Ok(RestorePoint { snapshot, time, latest: latest.unwrap_or_default() })
}
