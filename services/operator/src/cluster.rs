//! Clusters: what a `PostgresqlCluster` describes goes into the ledger, and what is seen of it goes into its status.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use pgtenant_ledger::{ClusterSource, LedgerError, PutCluster, cluster, put_cluster, remove_cluster, within_deadline};
use pgtenant_model::{ClusterStatus, InvalidField, check_label};

use crate::context::{Context, again, count};
use crate::crd::{ClusterResourceStatus, MemberStatus, PostgresqlCluster};
use crate::error::{OperatorError, Result};
use crate::object::{add_finalizer, put_status, remove_finalizer};
use crate::time::time;

/// What holds an object for as long as its cluster has claims.
const FINALIZER: &str = "pgtenant.io/cluster";
/// In metrics.
const KIND: &str = "PostgresqlCluster";
/// What is seen of a cluster is read from the ledger this often: there are few.
const LOOK: Duration = Duration::from_secs(10);
/// While it is not Ready, which somebody waits for.
const SECOND_LOOK: Duration = Duration::from_secs(2);
const DOOR: ClusterSource = ClusterSource::Kubernetes;

/// Runs for ever.
pub(crate) async fn run(context: Arc<Context>, changed: impl Stream<Item = ()> + Send + 'static) {
    let api: Api<PostgresqlCluster> = Api::all(context.client.clone());
    Controller::new(api, watcher::Config::default())
        .reconcile_all_on(changed)
        .run(reconcile, retry, context)
        .for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(error = &error as &dyn std::error::Error, "a cluster was not reconciled");
            }
        })
        .await;
}

/// Why a description is not used: a reason and a message.
type Refusal = (&'static str, String);

async fn reconcile(object: Arc<PostgresqlCluster>, context: Arc<Context>) -> Result<Action> {
    let name = object.name_any();
    let refusal = if object.meta().deletion_timestamp.is_some() {
        if !object.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(Action::await_change());
        }
        let claims =
            within_deadline(async { remove_cluster(&mut *context.ledger.acquire().await?, &name, DOOR).await }).await?;
        if claims == 0 {
            remove_finalizer(&*object, FINALIZER, &context).await?;
            return Ok(Action::await_change());
        }
        Some(("InUse", format!("is removed when its {claims} databases are; kept ones have to be dropped by hand")))
    } else {
        describe(&object, &context).await?
    };
    let seen = within_deadline(async { cluster(&mut *context.ledger.acquire().await?, &name).await }).await?;
    let seen = seen.filter(|one| one.source == DOOR).map(|one| one.status.0);
    let refused = refusal.is_some();
    let status = status(&object, seen, refusal, Utc::now());
    put_status(&*object, object.status.as_ref(), &status, &context).await?;
    count(KIND, if refused { "refused" } else { "done" });
    context.retries.succeeded(&object.uid().unwrap_or_default());
    let is_ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    Ok(again(if is_ready { LOOK } else { SECOND_LOOK }))
}

async fn describe(object: &PostgresqlCluster, context: &Context) -> Result<Option<Refusal>> {
    let (name, spec) = (object.name_any(), &object.spec.cluster);
    let mut problems = spec.problems();
    problems
        .extend(check_label("metadata.name", &name).err().map(|e| InvalidField::new("metadata.name", e.to_string())));
    if !problems.is_empty() {
        return Ok(Some(("Invalid", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))));
    }
    add_finalizer(object, FINALIZER, context).await?;
    let put = within_deadline(async {
        let mut tx = context.ledger.begin().await?;
        let put = put_cluster(&mut tx, &name, spec, DOOR).await?;
        tx.commit().await.map_err(LedgerError::from)?;
        Ok(put)
    });
    Ok(match put.await? {
        PutCluster::OtherSource => {
            Some(("OtherSource", format!("the settings describe a cluster {name:?} already; choose another name")))
        }
        PutCluster::Changed | PutCluster::Same => None,
    })
}

fn status(
    object: &PostgresqlCluster,
    seen: Option<ClusterStatus>,
    refusal: Option<Refusal>,
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
    let members = seen
        .members
        .iter()
        .map(|member| MemberStatus { host: member.host.clone(), role: member.role.as_str().to_owned() });
    ClusterResourceStatus {
        observed_generation: generation,
        conditions: vec![ready, preflight],
        primary: seen.primary,
        version: seen.version,
        members: members.collect(),
    }
}

fn retry(object: Arc<PostgresqlCluster>, error: &OperatorError, context: Arc<Context>) -> Action {
    context.retry(KIND, &*object, error)
}
