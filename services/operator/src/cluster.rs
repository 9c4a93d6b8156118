//! Clusters: what a `PostgresqlCluster` describes goes into the ledger, and what is seen of it goes into its status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use pgtenant_ledger::{
    Cluster, ClusterSource, LedgerError, PutCluster, cluster, clusters, last_drills, put_cluster, remove_cluster,
    within_deadline,
};
use pgtenant_model::{ClusterStatus, Drill, InvalidField, check_label};

use crate::context::{Context, count, drive};
use crate::crd::{ClusterResourceStatus, MemberStatus, PostgresqlCluster};
use crate::error::{OperatorError, Result};
use crate::object::{add_finalizer, ask, put_status, remove_finalizer, require_live};
use crate::retry::again;
use crate::time::time;

/// What holds an object for as long as its cluster has claims.
const FINALIZER: &str = "pgtenant.io/cluster";
/// In metrics.
const KIND: &str = "PostgresqlCluster";
/// What is seen of a cluster is read from the ledger this often: there are few.
const LOOK: Duration = Duration::from_secs(10);
/// While it is not Ready, which somebody waits for.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// How often clusters are compared with objects.
const SWEEP: Duration = Duration::from_secs(30);
const DOOR: ClusterSource = ClusterSource::Kubernetes;

/// Runs for ever.
pub(crate) async fn run(context: Arc<Context>, changed: impl Stream<Item = ()> + Send + 'static) {
    let api: Api<PostgresqlCluster> = Api::all(context.client.clone());
    let controller = Controller::new(api, watcher::Config::default()).reconcile_all_on(changed);
    drive(KIND, controller.run(reconcile, retry, context)).await;
}

/// Clusters whose object vanished: somebody took its finalizer away, so that nobody was told of its end. They are removed as if it
/// had been waited for, for as long as this replica leads.
pub(crate) async fn sweep(context: Arc<Context>) {
    let mut vanished = BTreeSet::new();
    loop {
        match forget_vanished(&vanished, &context).await {
            Ok(now) => vanished = now,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "clusters were not compared with objects");
            }
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Those whose object is away now; the ones that were so `before` are removed. That all have gone, of several, is taken for a
/// mistake, such as the API server of another cluster.
async fn forget_vanished(before: &BTreeSet<String>, context: &Context) -> Result<BTreeSet<String>> {
    let known = within_deadline(async { clusters(&mut *context.ledger.acquire().await?).await }).await?;
    let api: Api<PostgresqlCluster> = Api::all(context.client.clone());
    // Listed after they were read: what is made meanwhile is not among them.
    let there = ask(api.list_metadata(&ListParams::default())).await?.items;
    let there: BTreeSet<_> = there.iter().map(|object| object.name_any()).collect();
    let ours: Vec<_> = known.into_iter().filter(|one| one.source == DOOR).collect();
    if ours.len() > 1 && ours.iter().all(|one| !there.contains(&one.name)) {
        return Ok(BTreeSet::new());
    }
    let away: Vec<Cluster> = ours.into_iter().filter(|one| !there.contains(&one.name)).collect();
    for Cluster { name, removing, .. } in away.iter().filter(|one| before.contains(&one.name)) {
        let claims = remove(name, context).await?;
        if !removing {
            tracing::warn!(cluster = name, claims, "its object has vanished: it takes no new databases");
        }
    }
    Ok(away.into_iter().map(|one| one.name).collect())
}

/// How many claims it has; it is forgotten when there are none.
async fn remove(name: &str, context: &Context) -> Result<i64> {
    Ok(within_deadline(async { remove_cluster(&mut *context.ledger.acquire().await?, name, DOOR).await }).await?)
}

/// Why a description is not used: a reason and a message.
type Refusal = (&'static str, String);

async fn reconcile(object: Arc<PostgresqlCluster>, context: Arc<Context>) -> Result<Action> {
    let name = object.name_any();
    let refusal = if object.meta().deletion_timestamp.is_some() {
        if !object.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(Action::await_change());
        }
        require_live(&*object, &context).await?;
        let claims = remove(&name, &context).await?;
        if claims == 0 {
            remove_finalizer(&*object, FINALIZER, &context).await?;
            return Ok(Action::await_change());
        }
        Some(("InUse", format!("is removed when its {claims} databases are; kept ones have to be dropped by hand")))
    } else {
        describe(&object, &context).await?
    };
    let read = async {
        let mut db = context.ledger.acquire().await?;
        let drilled = last_drills(&mut db, std::slice::from_ref(&name)).await?;
        Ok::<_, LedgerError>((cluster(&mut db, &name).await?, drilled))
    };
    let (seen, drilled) = within_deadline(read).await?;
    // What was seen before it was described as it is now says nothing.
    let seen = seen.filter(|one| one.source == DOOR && one.status.observed_at >= Some(one.updated_at));
    let seen = seen.map(|one| one.status.0);
    let refused = refusal.is_some();
    let drill = drilled.first().filter(|_| seen.is_some()).map(|past| &past.drill.0);
    let status = status(&object, seen, refusal, drill, Utc::now());
    put_status(&*object, object.status.as_ref(), &status, &context).await?;
    count(KIND, if refused { "refused" } else { "done" });
    context.retries.succeeded(&object.uid().unwrap_or_default());
    let is_ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    Ok(again(if is_ready { LOOK } else { SECOND_LOOK }))
}

async fn describe(object: &PostgresqlCluster, context: &Context) -> Result<Option<Refusal>> {
    let name = object.name_any();
    let named = check_label("metadata.name", &name);
    let named = named.map_err(|error| vec![InvalidField::new("metadata.name", error.to_string())]);
    let spec = match named.and_then(|()| object.spec.cluster()) {
        Ok(spec) => spec,
        Err(problems) => {
            return Ok(Some(("Invalid", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))));
        }
    };
    add_finalizer(object, FINALIZER, context).await?;
    let known = within_deadline(async { cluster(&mut *context.ledger.acquire().await?, &name).await }).await?;
    match known {
        Some(known) if known.source != DOOR => return Ok(Some(other_source(&name))),
        Some(known) if known.spec.0 == spec && !known.removing => return Ok(None),
        _ => {}
    }
    require_live(object, context).await?;
    let put = within_deadline(async {
        let mut tx = context.ledger.begin().await?;
        let put = put_cluster(&mut tx, &name, &spec, DOOR).await?;
        tx.commit().await.map_err(LedgerError::from)?;
        Ok(put)
    });
    Ok(match put.await? {
        PutCluster::OtherSource => Some(other_source(&name)),
        PutCluster::Changed | PutCluster::Same => None,
    })
}

fn other_source(name: &str) -> Refusal {
    ("OtherSource", format!("the settings describe a cluster {name:?} already; choose another name"))
}

fn status(
    object: &PostgresqlCluster,
    seen: Option<ClusterStatus>,
    refusal: Option<Refusal>,
    drill: Option<&Drill>,
    now: DateTime<Utc>,
) -> ClusterResourceStatus {
    let seen = seen.unwrap_or_default();
    let generation = object.meta().generation;
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: String| {
        let known = before.iter().find(|one| one.type_ == kind && one.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: known.map_or_else(|| time(now), |known| known.last_transition_time.clone()),
            observed_generation: generation,
        }
    };
    let ready = match (refusal, &seen.problem, &seen.primary) {
        (Some((reason, message)), _, _) => condition("Ready", "False", reason, message),
        (None, Some(problem), _) if seen.split_brain => condition("Ready", "False", "SplitBrain", problem.clone()),
        (None, Some(problem), _) => condition("Ready", "False", "ClusterUnavailable", problem.clone()),
        (None, None, Some(primary)) => condition("Ready", "True", "PrimaryFound", format!("{primary} is the primary")),
        (None, None, None) => condition("Ready", "Unknown", "Pending", "not looked at yet".to_owned()),
    };
    let found: Vec<_> = seen.preflight.iter().map(ToString::to_string).collect();
    let preflight = match (seen.observed_at, found.as_slice()) {
        (None, _) => condition("Preflight", "Unknown", "Pending", "not looked at yet".to_owned()),
        (Some(_), []) => condition("Preflight", "True", "Passed", "nothing was found that would bite later".to_owned()),
        (Some(_), found) => condition("Preflight", "False", "Findings", found.join("; ")),
    };
    let drilled = drill.map(|drill| {
        let gap = Duration::from_millis(drill.writes.longest_gap_ms);
        let at = drill.stopped_at.format("%Y-%m-%d %H:%M UTC");
        let lost = drill.lost.map_or_else(|| "?".to_owned(), |lost| lost.to_string());
        let found = format!("{at}: writes went on after {gap:.1?}, {lost} acknowledged ones were lost");
        if drill.passed {
            condition("Drilled", "True", "Passed", found)
        } else {
            condition("Drilled", "False", "Failed", format!("{found}; {}", drill.problems.join("; ")))
        }
    });
    let members = seen
        .members
        .iter()
        .map(|member| MemberStatus { host: member.host.clone(), role: member.role.as_str().to_owned() });
    ClusterResourceStatus {
        observed_generation: generation,
        conditions: [ready, preflight].into_iter().chain(drilled).collect(),
        primary: seen.primary,
        version: seen.version,
        members: members.collect(),
    }
}

fn retry(object: Arc<PostgresqlCluster>, error: &OperatorError, context: Arc<Context>) -> Action {
    context.retry(KIND, &*object, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_brain_has_a_reason_of_its_own() {
        let object = serde_json::json!({"apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster",
                                        "metadata": {"name": "default"}, "spec": {}});
        let object: PostgresqlCluster = serde_json::from_value(object).unwrap();
        let ready = |split_brain| {
            let seen = ClusterStatus { problem: Some("why".to_owned()), split_brain, ..ClusterStatus::default() };
            let ready = status(&object, Some(seen), None, None, Utc::now()).conditions.remove(0);
            (ready.status, ready.reason)
        };
        assert_eq!(ready(true), ("False".to_owned(), "SplitBrain".to_owned()));
        assert_eq!(ready(false), ("False".to_owned(), "ClusterUnavailable".to_owned()));
    }
}
