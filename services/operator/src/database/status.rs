//! What an object's status says. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use pgtenant_ledger::{Claim, Wish};
use pgtenant_model::{Condition as ClaimCondition, ConditionStatus, DatabaseState, Endpoint, RoleStatus, Roles};

use super::decide::{Refusal, is_held};
use crate::crd::{DatabaseStatus, EndpointStatus, PostgresqlDatabase, RoleResourceStatus, RolesStatus, StoreStatus};
use crate::time::time;

const READY: &str = "Ready";
/// Most claims are Ready in less: that they wait for their turn would be told to nobody, and costs the API server as much as
/// that they are Ready.
const TURN: Duration = Duration::from_secs(5);

/// How long a claim that is new and was not tried yet has no status, from now.
pub(super) fn nothing_to_tell(object: &PostgresqlDatabase, claim: &Claim, now: DateTime<Utc>) -> Option<Duration> {
    if object.status.is_some() || claim.wish != Wish::Present || is_tried(claim) {
        return None;
    }
    // The ledger's clock may be ahead.
    let waited = (now - claim.wished_at).to_std().unwrap_or_default();
    TURN.checked_sub(waited).filter(|left| !left.is_zero())
}

/// From what the ledger has, and from why the object's wish was not written down.
pub(super) fn status(
    object: &PostgresqlDatabase,
    claim: Option<&Claim>,
    refusal: Option<&Refusal>,
    now: DateTime<Utc>,
) -> DatabaseStatus {
    let before = object.status.as_ref();
    let observed = match (claim, refusal) {
        (_, Some(_)) | (None, None) => object.meta().generation,
        (Some(claim), None) if is_tried(claim) => object.meta().generation,
        (Some(_), None) => before.and_then(|status| status.observed_generation),
    };
    let mut conditions: Vec<Condition> =
        claim.map(|claim| claim.conditions.iter().map(|one| of_claim(one, observed)).collect()).unwrap_or_default();
    if let Some((status, reason, message)) = readiness(claim, refusal) {
        let known = before.and_then(|status| status.conditions.iter().find(|one| one.type_ == READY));
        let since = known
            .filter(|known| known.status == status)
            .map_or_else(|| time(now), |known| known.last_transition_time.clone());
        let ready = Condition {
            type_: READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: observed,
        };
        conditions.retain(|one| one.type_ != READY);
        conditions.push(ready);
    }
    conditions.sort_by_key(|one| (one.type_ != READY, one.type_.clone()));
    let state = match (claim, refusal) {
        // What was wished before goes on, and what is wished now does not come.
        (Some(claim), Some(_)) if is_held(claim, object) => DatabaseState::Degraded,
        (None, _) | (_, Some(_)) => DatabaseState::Failed,
        (Some(claim), None) => claim.state,
    };
    DatabaseStatus {
        state: Some(state.as_str().to_owned()),
        observed_generation: observed,
        conditions,
        database: claim.map(|claim| claim.key.database()),
        endpoint: claim.and_then(|claim| claim.endpoint.as_ref()).map(endpoint),
        roles: claim.and_then(|claim| claim.roles.as_ref()).map(roles),
    }
}

/// Whether the claim's conditions speak of what is wished now: it was made true, or at least tried.
fn is_tried(claim: &Claim) -> bool {
    claim.observed_generation >= claim.generation || claim.attempts > 0 || claim.wish == Wish::Retained
}

/// The `Ready` condition where it is not the claim's own.
fn readiness(claim: Option<&Claim>, refusal: Option<&Refusal>) -> Option<(&'static str, &'static str, String)> {
    if let Some(Refusal { reason, message }) = refusal {
        let kept = claim.is_some_and(|claim| claim.wish == Wish::Present && claim.roles.is_some());
        let message = if kept { format!("{message}. The database stays as it was") } else { message.clone() };
        return Some(("False", reason, message));
    }
    let claim = claim?;
    let own = claim.conditions.iter().find(|one| one.kind == READY);
    let holds = own.is_none_or(|ready| ready.status == ConditionStatus::True);
    match claim.wish {
        Wish::Retained => Some((
            "False",
            "Released",
            "database, roles and credentials are kept, and not managed any more; delete this object and make it again to \
             take them back"
                .to_owned(),
        )),
        Wish::Absent if holds => {
            Some(("False", "Deleting", "database, roles and credentials are being removed".to_owned()))
        }
        Wish::Present if own.is_none() => Some(("Unknown", "Pending", "waiting for its turn".to_owned())),
        Wish::Absent | Wish::Present => None,
    }
}

fn of_claim(condition: &ClaimCondition, observed: Option<i64>) -> Condition {
    let ClaimCondition { kind, status, reason, message, last_transition_time } = condition.clone();
    Condition {
        type_: kind,
        status: match status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
        .to_owned(),
        reason,
        message,
        last_transition_time: time(last_transition_time),
        observed_generation: observed,
    }
}

fn endpoint(endpoint: &Endpoint) -> EndpointStatus {
    let Endpoint { host, port, read_host, read_port } = endpoint.clone();
    EndpointStatus { host, port: port.into(), read_host, read_port: read_port.map(Into::into) }
}

fn roles(Roles { read, write, admin }: &Roles) -> RolesStatus {
    RolesStatus { read: role(read), write: role(write), admin: role(admin) }
}

fn role(status: &RoleStatus) -> RoleResourceStatus {
    let RoleStatus { role, login, set_at, stores } = status.clone();
    let (secrets, others): (Vec<_>, Vec<_>) =
        stores.into_iter().partition(|one| ["kubernetes", "externalSecret"].contains(&&*one.store));
    RoleResourceStatus {
        secret: (!secrets.is_empty()).then(|| role.clone()),
        role,
        login,
        set_at: set_at.map(time),
        stores: others.into_iter().map(|one| StoreStatus { store: one.store, location: one.location }).collect(),
    }
}
