//! What an object's status says. Pure.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use pgtenant_ledger::StoredRestore;
use pgtenant_model::{PutAside, Restore, RestorePhase, RestoreProgress, Verification};

use super::decide::Refusal;
use crate::crd::{
    PostgresqlRestore, PutAsideStatus, RestoreProgressStatus, RestoreReportStatus, RestoreResourceStatus,
};
use crate::time::time;

/// Findings that are shown: a status goes to everyone who watches.
const FINDINGS: usize = 10;

/// A condition's type, status, reason and message.
type Said = (&'static str, &'static str, String, String);

/// Of a restore that was asked for.
pub(super) fn status(object: &PostgresqlRestore, restore: &StoredRestore, now: DateTime<Utc>) -> RestoreResourceStatus {
    let Restore { id, snapshot, phase, message, progress, report, before, undone_at, created_at, finished_at, .. } =
        &restore.view;
    let told = object.status.as_ref().and_then(|status| status.progress.as_ref());
    let said = message.clone().unwrap_or_else(|| waits_for(restore));
    RestoreResourceStatus {
        phase: Some(format!("{phase:?}")),
        message: Some(said.clone()),
        observed_generation: object.meta().generation,
        conditions: conditions(object, [approved(restore), complete(*phase, &said), failed(*phase, &said)], now),
        id: Some(id.to_string()),
        snapshot: snapshot.as_ref().map(ToString::to_string),
        progress: progress_of(progress, told.filter(|_| !phase.is_over())),
        report: report.as_ref().map(report_of),
        before: before
            .as_ref()
            .map(|PutAside { database, until }| PutAsideStatus { database: database.clone(), until: time(*until) }),
        requested_at: Some(time(*created_at)),
        finished_at: finished_at.map(time),
        undone_at: undone_at.map(time),
    }
}

/// Of one that was not, and why.
pub(super) fn refused(object: &PostgresqlRestore, refusal: &Refusal, now: DateTime<Utc>) -> RestoreResourceStatus {
    let Refusal { reason, message, last } = refusal;
    let is = |kind, status| (kind, status, (*reason).to_owned(), message.clone());
    let said = [is("Approved", "False"), is("Complete", "False"), is("Failed", if *last { "True" } else { "False" })];
    RestoreResourceStatus {
        phase: last.then(|| format!("{:?}", RestorePhase::Failed)),
        message: Some(message.clone()),
        observed_generation: object.meta().generation,
        conditions: conditions(object, said, now),
        ..RestoreResourceStatus::default()
    }
}

fn conditions(object: &PostgresqlRestore, said: [Said; 3], now: DateTime<Utc>) -> Vec<Condition> {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |(kind, status, reason, message): Said| {
        let known = before.iter().find(|one| one.type_ == kind && one.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: known.map_or_else(|| time(now), |known| known.last_transition_time.clone()),
            observed_generation: object.meta().generation,
        }
    };
    said.map(condition).into()
}

/// What it waits for, where the ledger has nothing to say.
fn waits_for(restore: &StoredRestore) -> String {
    let id = restore.view.id;
    match restore.view.phase {
        RestorePhase::Requested => {
            format!("waits for a yes: `pgtenant restore approve {id}`, by somebody whom the cluster's rules let say so")
        }
        RestorePhase::Approved => "waits for its turn".to_owned(),
        phase => format!("is {phase:?}"),
    }
}

fn approved(restore: &StoredRestore) -> Said {
    let Restore { phase, decided_by, .. } = &restore.view;
    let (status, reason, message) = match (phase, decided_by) {
        (RestorePhase::Requested, _) => ("False", "Requested", waits_for(restore)),
        (RestorePhase::Rejected, Some(by)) => ("False", "Rejected", format!("rejected by {by}")),
        (_, Some(by)) => ("True", "Approved", format!("approved by {by}")),
        (RestorePhase::Cancelled, None) => ("False", "Cancelled", "nobody has said yes or no".to_owned()),
        (_, None) => ("True", "NotNeeded", "the cluster's rules ask nobody".to_owned()),
    };
    ("Approved", status, reason.to_owned(), message)
}

fn complete(phase: RestorePhase, message: &str) -> Said {
    let status = if phase == RestorePhase::Succeeded { "True" } else { "False" };
    ("Complete", status, format!("{phase:?}"), message.to_owned())
}

fn failed(phase: RestorePhase, message: &str) -> Said {
    let over = phase.is_over() && phase != RestorePhase::Succeeded;
    ("Failed", if over { "True" } else { "False" }, format!("{phase:?}"), message.to_owned())
}

/// As `told`, while it is no percent more: each write goes to everyone who watches.
fn progress_of(progress: &RestoreProgress, told: Option<&RestoreProgressStatus>) -> Option<RestoreProgressStatus> {
    let RestoreProgress { bytes, bytes_total, tables, tables_total, estimated_end: _ } = progress;
    let share = |part: u64, all: u64| part.min(all).saturating_mul(100).checked_div(all);
    let percent = bytes_total
        .and_then(|all| share(*bytes, all))
        .or_else(|| tables_total.and_then(|all| share((*tables).into(), all.into())));
    let now = RestoreProgressStatus {
        percent: percent.map(signed),
        bytes: signed(*bytes),
        bytes_total: bytes_total.map(signed),
        tables: (*tables).into(),
        tables_total: tables_total.map(Into::into),
    };
    if now == RestoreProgressStatus::default() {
        return None;
    }
    Some(told.filter(|told| told.percent == now.percent).cloned().unwrap_or(now))
}

fn report_of(report: &Verification) -> RestoreReportStatus {
    let Verification { objects, tables, rows, bytes, sequences, large_objects, logins, differences, left_out } = report;
    let differ = differences.iter().map(|one| format!("{}: {}", one.object, one.message));
    let left = left_out.iter().map(|one| format!("{}: {}; {}", one.object, one.reason, one.remedy));
    let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    RestoreReportStatus {
        objects: signed(*objects),
        tables: signed(*tables),
        rows: signed(*rows),
        bytes: signed(*bytes),
        sequences: signed(*sequences),
        large_objects: signed(*large_objects),
        logins: count(logins.len()),
        differences: count(differences.len()),
        left_out: count(left_out.len()),
        findings: differ.chain(left).take(FINDINGS).collect(),
    }
}

/// Kubernetes knows no unsigned numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
