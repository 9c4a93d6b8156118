//! What came of a look, as the ledger, people and metrics have it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use metrics::{counter, histogram};
use pgtenant_ledger::{Claim, Finished, Wish, Work};
use pgtenant_model::{Condition, ConditionStatus, DatabaseState, EventKind, set_condition};
use pgtenant_postgres::Beyond;
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::EngineSettings;
use crate::failure::Failure;
use crate::progress::{Progress, Rotated};
use crate::reconcile::Done;

/// The claim is as it should be.
pub(crate) fn succeeded(
    work: &Work,
    done: Done,
    progress: Progress,
    settings: &EngineSettings,
    now: DateTime<Utc>,
) -> Finished {
    let claim = &work.claim;
    let fresh = claim.observed_generation < claim.generation;
    let mut conditions = claim.conditions.clone();
    let beyond = beyond(&done.beyond);
    let database = format!("database {} and its roles are as they should be", claim.key.database());
    match &beyond {
        None => hold(&mut conditions, "Database", "Provisioned", &database, now),
        Some(text) => falsify(&mut conditions, "Database", "NeedsSuperuser", text, now),
    }
    let credentials = "every store has every credential, and each of them logs in";
    hold(&mut conditions, "Credentials", "Proven", credentials, now);
    let reach = format!("connect to {}:{}", done.endpoint.host, done.endpoint.port);
    let reach = beyond.as_ref().map_or_else(|| reach.clone(), |text| format!("{reach}; but {text}"));
    hold(&mut conditions, "Ready", "Provisioned", &reach, now);
    if fresh {
        let seconds = (now - claim.wished_at).to_std().unwrap_or_default().as_secs_f64();
        histogram!("pgtenant_time_to_ready_seconds", "cluster" => claim.spec.cluster.clone()).record(seconds);
    }
    let mut events = events(claim, &progress, fresh);
    let mended = beyond.is_none() && claim.conditions.iter().any(|one| one.reason == "NeedsSuperuser");
    events.extend(readiness(claim, &progress, (fresh, mended)));
    let state = if beyond.is_none() { DatabaseState::Ready } else { DatabaseState::Degraded };
    let news = beyond.filter(|text| !said(claim, "Database", text));
    events
        .extend(news.map(|text| (EventKind::Failed, format!("{}: {text}", claim.key), needs_superuser(&done.beyond))));
    let (waiting, until) = done.waits.unzip();
    let rotated = claim.asked().iter().filter(|tier| waiting.as_ref().is_none_or(|waiting| !waiting.contains(tier)));
    let rotated = rotated.copied().collect();
    let message = until.map(|until| {
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("waits until {until}, so that everybody has read the password of the last rotation")
    });
    let interval = if done.more { Duration::ZERO } else { settings.look_interval };
    let usual = interval.mul_f64(rand::rng().random_range(0.9..1.1));
    Finished {
        state,
        conditions,
        done: true,
        step: message.is_some().then_some("rotate"),
        waits: message.is_some(),
        to_rotate: waiting.unwrap_or_default(),
        message: message.or_else(|| Some("done".to_owned())),
        next: usual,
        keep: done.next.map(|next| (next - now).to_std().unwrap_or_default()),
        proven: done.proven.then_some(true),
        endpoint: Some(done.endpoint),
        roles: Some(done.roles),
        credentials: done.credentials,
        rotated,
        events,
    }
}

type NewEvent = (EventKind, String, Value);

/// What a try has done, whether it came to its end or not.
fn events(claim: &Claim, progress: &Progress, fresh: bool) -> Vec<NewEvent> {
    let key = &claim.key;
    let mut events = Vec::new();
    for Rotated { tier, login, reason, .. } in &progress.rotated {
        counter!("pgtenant_credentials_rotated_total").increment(1);
        let message = format!("{}: new password on login {login}, since {reason}", key.role(*tier));
        events.push((EventKind::CredentialRotated, message, json!({"tier": tier, "login": login, "reason": reason})));
    }
    let texts: Vec<_> = progress.changes.iter().map(|change| change.text.as_str()).collect();
    if !fresh && !texts.is_empty() {
        counter!("pgtenant_drift_repaired_total", "cluster" => claim.spec.cluster.clone())
            .increment(texts.len().try_into().unwrap_or(u64::MAX));
        let message = format!("{key}: {} put back: {}", plural(texts.len()), texts.join("; "));
        events.push((EventKind::DriftRepaired, message, difference(claim, progress)));
    }
    events
}

/// That the claim was taken over, and that it can be used, where that is new: `fresh`, or `mended` by a superuser.
fn readiness(claim: &Claim, progress: &Progress, (fresh, mended): (bool, bool)) -> Vec<NewEvent> {
    let key = &claim.key;
    let mut events = Vec::new();
    if claim.adopt && fresh {
        events.push((EventKind::Adopted, format!("{key} was taken over"), difference(claim, progress)));
    }
    let was_ready = [DatabaseState::Ready, DatabaseState::Degraded].contains(&claim.state) && claim.attempts == 0;
    if fresh || !was_ready || mended {
        let texts: Vec<_> = progress.changes.iter().map(|change| &change.text).collect();
        let detail = json!({"changes": texts, "generation": claim.generation});
        events.push((EventKind::Ready, format!("{key} is Ready"), detail));
    }
    events
}

/// What was changed, in words and in full.
fn difference(claim: &Claim, progress: &Progress) -> Value {
    let (changes, sql): (Vec<_>, Vec<_>) = progress.changes.iter().map(|one| (&one.text, &one.sql)).unzip();
    json!({"changes": changes, "sql": sql, "generation": claim.generation})
}

/// The claim is removed; `left` is not the claim's and stays.
pub(crate) fn gone(work: &Work, left: &[Beyond]) -> String {
    let key = &work.claim.key;
    if left.is_empty() {
        return format!("{key}: database, roles and credentials are gone");
    }
    let texts: Vec<_> = left.iter().map(|one| one.text.as_str()).collect();
    format!("{key}: what was this claim's is gone; {}", texts.join("; "))
}

/// What is not as it should be and only a superuser can put right.
fn beyond(beyond: &[Beyond]) -> Option<String> {
    let texts: Vec<_> = beyond.iter().map(|one| format!("{}. A superuser has to: {}", one.text, one.remedy)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The same in parts, for those who tell people of it.
fn needs_superuser(beyond: &[Beyond]) -> Value {
    let join = |part: fn(&Beyond) -> &str| beyond.iter().map(part).collect::<Vec<_>>().join("; ");
    let advice = format!("a superuser has to: {}", join(|one| &one.remedy));
    json!({"step": "plan", "reason": "NeedsSuperuser", "error": join(|one| &one.text), "advice": advice})
}

fn said(claim: &Claim, kind: &str, message: &str) -> bool {
    claim.conditions.iter().any(|c| c.kind == kind && c.message == message)
}

fn plural(count: usize) -> String {
    if count == 1 { "1 change was".to_owned() } else { format!("{count} changes were") }
}

/// Between looks at a claim whose cluster somebody works on; the end of that is told.
const MAINTENANCE_LOOK: Duration = Duration::from_secs(10);

/// Somebody works on the cluster: nothing has failed, and what is wished for waits.
pub(crate) fn waits(work: &Work, failure: &Failure, now: DateTime<Utc>) -> Finished {
    let claim = &work.claim;
    let message = failure.message();
    let mut conditions = claim.conditions.clone();
    let changes = claim.observed_generation < claim.generation || claim.wish == Wish::Absent;
    let wished = changes || work.urgent;
    if changes {
        falsify(&mut conditions, "Database", failure.reason(), &message, now);
    }
    if claim.roles.is_none() {
        falsify(&mut conditions, "Ready", failure.reason(), &message, now);
    }
    Finished {
        state: claim.state,
        conditions,
        done: !wished,
        step: Some(failure.step),
        message: Some(message),
        next: MAINTENANCE_LOOK,
        keep: None,
        proven: None,
        endpoint: None,
        roles: None,
        credentials: claim.credentials.clone(),
        rotated: Vec::new(),
        waits: wished,
        to_rotate: Vec::new(),
        events: Vec::new(),
    }
}

/// A step failed; the claim is tried again.
pub(crate) fn failed(work: &Work, failure: &Failure, progress: Progress, now: DateTime<Utc>) -> Finished {
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
    let detail = json!({
        "step": failure.step, "reason": failure.reason(), "attempt": claim.attempts + 1,
        "error": failure.error().trim_end_matches('.'), "advice": failure.what_to_do(),
    });
    let mut events = events(claim, &progress, claim.observed_generation < claim.generation);
    if news {
        events.push((EventKind::Failed, format!("{}: {message}", claim.key), detail));
    }
    Finished {
        state,
        conditions,
        done: false,
        step: Some(failure.step),
        message: Some(message),
        next,
        keep: None,
        proven: (failure.part() == "Credentials").then_some(false),
        endpoint: None,
        roles: progress.roles,
        credentials: progress.credentials.unwrap_or_else(|| claim.credentials.clone()),
        rotated: progress.rotated.into_iter().filter(|one| one.last).map(|one| one.tier).collect(),
        waits: false,
        to_rotate: Vec::new(),
        events,
    }
}

fn hold(conditions: &mut Vec<Condition>, kind: &str, reason: &str, message: &str, now: DateTime<Utc>) {
    set_condition(conditions, kind, ConditionStatus::True, reason, message, now);
}

fn falsify(conditions: &mut Vec<Condition>, kind: &str, reason: &str, message: &str, now: DateTime<Utc>) {
    set_condition(conditions, kind, ConditionStatus::False, reason, message, now);
}

fn state(claim: &Claim, failure: &Failure) -> DatabaseState {
    match claim.state {
        DatabaseState::Deleting => DatabaseState::Deleting,
        // Known since it was first Ready.
        _ if claim.roles.is_some() => DatabaseState::Degraded,
        _ if failure.needs_a_person() || claim.attempts >= 3 => DatabaseState::Failed,
        _ => DatabaseState::Provisioning,
    }
}

/// A failure that goes on is one event, not one a try.
fn already_said(claim: &Claim, reason: &str) -> bool {
    claim.conditions.iter().any(|c| c.kind == "Ready" && c.status == ConditionStatus::False && c.reason == reason)
}
