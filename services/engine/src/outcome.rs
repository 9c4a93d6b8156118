//! What came of a look, as the ledger, people and metrics have it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{counter, histogram};
use pgtenant_ledger::{Claim, Finished, Work};
use pgtenant_model::{Condition, ConditionStatus, DatabaseState, EventKind, set_condition};
use pgtenant_postgres::{Change, Plan, RoleChange};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::EngineSettings;
use crate::failure::Failure;
use crate::reconcile::Done;

/// The claim is as it should be.
pub(crate) fn succeeded(work: &Work, done: Done, settings: &EngineSettings, now: DateTime<Utc>) -> Finished {
    let claim = &work.claim;
    let fresh = claim.observed_generation < claim.generation;
    let mut conditions = claim.conditions.clone();
    let mut hold = |kind: &str, reason: &str, message: String| {
        set_condition(&mut conditions, kind, ConditionStatus::True, reason, message, now);
    };
    hold("Database", "Provisioned", format!("database {} and its roles are as they should be", claim.key.database()));
    hold("Credentials", "Proven", "every store has every credential, and each of them logs in".to_owned());
    let beyond = beyond(&done.plan);
    let reach = format!("connect to {}:{}", done.endpoint.host, done.endpoint.port);
    hold("Ready", "Provisioned", beyond.as_ref().map_or_else(|| reach.clone(), |text| format!("{reach}; but {text}")));
    let news = beyond.as_ref().filter(|text| !said(claim, "Database", text)).cloned();
    if let Some(text) = &beyond {
        falsify(&mut conditions, "Database", "NeedsSuperuser", text, now);
    }
    if fresh {
        let seconds = (now - claim.wished_at).to_std().unwrap_or_default().as_secs_f64();
        histogram!("pgtenant_time_to_ready_seconds", "cluster" => claim.spec.cluster.clone()).record(seconds);
    }
    let mut events = events(claim, &done, fresh);
    let state = if beyond.is_none() { DatabaseState::Ready } else { DatabaseState::Degraded };
    events.extend(news.map(|text| (EventKind::Failed, format!("{}: {text}", claim.key), json!({"step": "plan"}))));
    let interval = if done.more { Duration::ZERO } else { settings.look_interval };
    let jitter = rand::rng().random_range(0.9..1.1);
    Finished {
        state,
        conditions,
        done: true,
        step: None,
        message: Some("done".to_owned()),
        next: interval.mul_f64(jitter),
        endpoint: Some(done.endpoint),
        roles: Some(done.roles),
        credentials: done.credentials,
        events,
    }
}

fn events(claim: &Claim, done: &Done, fresh: bool) -> Vec<(EventKind, String, Value)> {
    let key = &claim.key;
    let mut events = Vec::new();
    for (tier, why) in &done.rotated {
        counter!("pgtenant_credentials_rotated_total").increment(1);
        let message = format!("{}: new password, since {why}", key.role(*tier));
        events.push((EventKind::CredentialRotated, message, json!({"tier": tier, "reason": why})));
    }
    let texts = texts(&done.plan);
    let detail = json!({"changes": texts, "generation": claim.generation});
    if !fresh && !texts.is_empty() {
        counter!("pgtenant_drift_repaired_total", "cluster" => claim.spec.cluster.clone())
            .increment(texts.len().try_into().unwrap_or(u64::MAX));
        let message = format!("{key}: {} put back: {}", plural(texts.len()), texts.join("; "));
        events.push((EventKind::DriftRepaired, message, detail.clone()));
    }
    if claim.adopt && fresh {
        events.push((EventKind::Adopted, format!("{key} was taken over"), detail.clone()));
    }
    let was_ready = [DatabaseState::Ready, DatabaseState::Degraded].contains(&claim.state) && claim.attempts == 0;
    if fresh || !was_ready {
        events.push((EventKind::Ready, format!("{key} is Ready"), detail));
    }
    events
}

/// What is not as it should be and only a superuser can put right.
fn beyond(plan: &Plan) -> Option<String> {
    let texts: Vec<_> =
        plan.beyond.iter().map(|one| format!("{}. A superuser has to: {}", one.text, one.remedy)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn said(claim: &Claim, kind: &str, message: &str) -> bool {
    claim.conditions.iter().any(|c| c.kind == kind && c.message == message)
}

/// What was changed, without what only made it possible.
fn texts(plan: &Plan) -> Vec<String> {
    let told =
        |change: &&Change| !matches!(change, Change::Role(RoleChange::Borrow { .. } | RoleChange::GiveBack { .. }));
    plan.changes().filter(told).map(Change::text).collect()
}

fn plural(count: usize) -> String {
    if count == 1 { "1 change was".to_owned() } else { format!("{count} changes were") }
}

/// A step failed; the claim is tried again.
pub(crate) fn failed(work: &Work, failure: &Failure, now: DateTime<Utc>) -> Finished {
    let claim = &work.claim;
    let next = failure.next_try(claim.attempts);
    let message = format!(
        "at step {}: {}. Try {} failed; the next one is at {}",
        failure.step,
        failure.message().trim_end_matches('.'),
        claim.attempts + 1,
        (now + next).format("%Y-%m-%dT%H:%M:%SZ"),
    );
    counter!("pgtenant_retries_total", "step" => failure.step, "reason" => failure.reason()).increment(1);
    let mut conditions = claim.conditions.clone();
    falsify(&mut conditions, failure.part(), failure.reason(), &message, now);
    falsify(&mut conditions, "Ready", failure.reason(), &message, now);
    let state = state(claim, failure);
    let news = claim.state != state || !already_said(claim, failure.reason());
    let detail = json!({"step": failure.step, "reason": failure.reason(), "attempt": claim.attempts + 1});
    let event = (EventKind::Failed, format!("{}: {message}", claim.key), detail);
    Finished {
        state,
        conditions,
        done: false,
        step: Some(failure.step),
        message: Some(message),
        next,
        endpoint: None,
        roles: None,
        credentials: claim.credentials.clone(),
        events: if news { vec![event] } else { Vec::new() },
    }
}

fn falsify(conditions: &mut Vec<Condition>, kind: &str, reason: &str, message: &str, now: DateTime<Utc>) {
    set_condition(conditions, kind, ConditionStatus::False, reason, message, now);
}

fn state(claim: &Claim, failure: &Failure) -> DatabaseState {
    match claim.state {
        DatabaseState::Deleting => DatabaseState::Deleting,
        _ if claim.observed_generation > 0 => DatabaseState::Degraded,
        _ if failure.needs_a_person() || claim.attempts >= 3 => DatabaseState::Failed,
        _ => DatabaseState::Provisioning,
    }
}

/// A failure that goes on is one event, not one a try.
fn already_said(claim: &Claim, reason: &str) -> bool {
    claim.conditions.iter().any(|c| c.kind == "Ready" && c.status == ConditionStatus::False && c.reason == reason)
}
