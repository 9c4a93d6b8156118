//! The plan that is printed: the same function over the same facts as the one that is applied.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use pgtenant_ledger::{
    Claim, ClaimFilter, CredentialState, Ledger, LedgerError, Wish, claim, claims, count_of, owner_of,
};
use pgtenant_model::{
    ChangeReport, ClaimKey, ClaimPlan, ClaimSpec, ClusterSpec, InvalidField, Mode, PlanAction, PlanReport, PlanRequest,
    PlannedClaim, Source, Tier,
};
use pgtenant_postgres::{Desired, Logins, Plan, Server, observe, observe_inside, plan as changes_of, plan_drop};
use tokio::sync::Semaphore;

use crate::Inner;
use crate::cluster::Cluster;
use crate::failure::Cause;
use crate::roster::{Late, PATIENCE, Roster};

/// Claims that are looked at side by side, for all requests together: half of a cluster's connections is left to those who
/// do the work.
pub(crate) const AT_ONCE: usize = 2;
/// More than a namespace may have on all clusters together.
const MOST_CLAIMS: i64 = 10_000;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A cluster can not be looked at.
    #[error("cluster {cluster:?}: {message}")]
    Cluster {
        /// Its name.
        cluster: String,
        /// Why, with what the server said.
        message: String,
    },
}

pub(crate) async fn plan(
    Inner { ledger, roster, planning, .. }: &Inner,
    request: PlanRequest,
    scope: Option<Vec<String>>,
) -> Result<PlanReport, PlanError> {
    let planner = Planner { ledger, roster, planning, source: request.source, adopt: request.adopt };
    let removed = if request.complete { planner.removed(&request.claims, scope.as_deref()).await? } else { Vec::new() };
    let wished: Vec<_> = request.claims.iter().map(|one| planner.wished(one)).collect();
    let withdrawn: Vec<_> = removed.iter().map(|one| planner.withdrawn(one)).collect();
    let mut claims: Vec<_> = futures::stream::iter(wished).buffered(AT_ONCE).try_collect().await?;
    let withdrawn: Vec<_> = futures::stream::iter(withdrawn).buffered(AT_ONCE).try_collect().await?;
    claims.extend(withdrawn);
    refuse_duplicates(&mut claims);
    planner.refuse_beyond_quota(&mut claims).await?;
    Ok(PlanReport { claims })
}

struct Planner<'a> {
    ledger: &'a Ledger,
    roster: &'a Roster,
    planning: &'a Semaphore,
    source: Source,
    adopt: bool,
}

impl Planner<'_> {
    /// What a wish would change.
    async fn wished(&self, planned: &PlannedClaim) -> Result<ClaimPlan, PlanError> {
        let spec = planned.spec();
        let key = match ClaimKey::new(&planned.namespace, &planned.name) {
            Ok(key) => key,
            Err(error) => return Ok(refused(planned, &spec, vec![InvalidField::new("name", error.to_string())])),
        };
        let found = claim(&mut *self.ledger.acquire().await?, &key).await?;
        let spec = found.as_ref().map_or(spec.clone(), |claim| claim.follow(&spec));
        let cluster = self.cluster(&spec.cluster).await?;
        let problems = self.problems(&key, &spec, cluster.as_deref(), found.as_ref()).await?;
        let Some(cluster) = cluster.filter(|_| problems.is_empty()) else {
            return Ok(refused(planned, &spec, problems));
        };

        let logins = found.as_ref().map(logins).unwrap_or_default();
        let desired = Desired { adopt: self.adopt, logins, ..Desired::new(key.clone(), &spec) };
        let looked = async {
            let _turn = self.planning.acquire().await;
            let server = cluster.server_to_read().await?;
            let noted = self.changes(&server, &desired).await;
            if noted.as_ref().is_err_and(Cause::moved) {
                cluster.moved(&server);
            }
            noted
        };
        let (exists, plan) = match looked.await {
            Ok(answer) => answer,
            Err(Cause::Refused(refusal)) => {
                return Ok(refused(planned, &spec, vec![InvalidField::new("name", refusal.to_string())]));
            }
            Err(cause) => return Err(PlanError::Cluster { cluster: spec.cluster, message: cause.to_string() }),
        };
        let action = action(found.as_ref(), &spec, exists, &plan);
        Ok(report(&key, &spec.cluster, action, plan.report()))
    }

    async fn cluster(&self, name: &str) -> Result<Option<Arc<Cluster>>, PlanError> {
        let late = |late: Late| PlanError::Cluster { cluster: name.to_owned(), message: late.to_string() };
        self.roster.find(name, PATIENCE).await.map_err(late)
    }

    async fn changes(&self, server: &Server, desired: &Desired) -> Result<(bool, Plan), Cause> {
        let mut session = server.maintenance().await?;
        let mut observed = observe(server, &mut session, &desired.key, &desired.database, &desired.extensions).await?;
        let exists = observed.database.is_some();
        if observed.database.as_ref().is_some_and(|facts| facts.allow_connections) {
            // Where the provisioner may not enter yet, as before an adoption, the plan tells what can be told from outside.
            if let Ok(mut inside) = server.inside(&desired.database).await {
                observed.inside = Some(observe_inside(&mut inside, desired, &observed.server.current_user).await?);
            }
        }
        Ok((exists, changes_of(desired, &observed)?))
    }

    /// What the ledger would refuse.
    async fn problems(
        &self,
        key: &ClaimKey,
        spec: &ClaimSpec,
        cluster: Option<&Cluster>,
        found: Option<&Claim>,
    ) -> Result<Vec<InvalidField>, PlanError> {
        let mut problems = spec.problems();
        let Some(cluster) = cluster else {
            problems.push(ClusterSpec::unknown(&spec.cluster, key.namespace()));
            return Ok(problems);
        };
        problems.extend(cluster.spec.refuses(key.namespace(), spec));
        match found {
            Some(claim) if claim.wish == Wish::Absent => {
                problems.push(InvalidField::new("name", format!("database {key} is being removed")));
            }
            Some(claim) if claim.wish == Wish::Present && claim.source != self.source => {
                let message = format!("database {key} is managed by {}; release it there first", claim.source);
                problems.push(InvalidField::new("name", message));
            }
            Some(claim) if claim.spec.cluster != spec.cluster => {
                let message = format!("can not be changed from {:?} to {:?}", claim.spec.cluster, spec.cluster);
                problems.push(InvalidField::new("cluster", message));
            }
            Some(_) => {}
            None => {
                let mut db = self.ledger.acquire().await?;
                if owner_of(&mut db, &spec.cluster, &key.database()).await?.is_some() {
                    let message = format!(
                        "the name {:?} on cluster {:?} belongs to another claim; choose another name",
                        key.database(),
                        spec.cluster
                    );
                    problems.push(InvalidField::new("name", message));
                }
            }
        }
        Ok(problems)
    }

    /// A namespace has so many databases on a cluster as its limit says, and no more.
    async fn refuse_beyond_quota(&self, planned: &mut [ClaimPlan]) -> Result<(), PlanError> {
        let mut counts = BTreeMap::new();
        let mut db = self.ledger.acquire().await?;
        for one in planned.iter_mut().filter(|one| one.problems.is_empty()) {
            let (Ok(key), Some(cluster)) = (ClaimKey::new(&one.namespace, &one.name), self.roster.get(&one.cluster))
            else {
                continue;
            };
            if claim(&mut db, &key).await?.is_some() {
                continue;
            }
            let place = (one.namespace.clone(), one.cluster.clone());
            let count = match counts.entry(place) {
                Entry::Occupied(count) => count.into_mut(),
                Entry::Vacant(place) => {
                    let count = count_of(&mut db, &one.namespace, &one.cluster).await?;
                    place.insert(count)
                }
            };
            let limit = cluster.spec.limits.databases_per_namespace;
            if *count >= i64::from(limit) {
                let message = format!("namespace {:?} has {limit} databases on it, which is its limit", one.namespace);
                refuse(one, "cluster", message);
            } else {
                *count += 1;
            }
        }
        Ok(())
    }

    /// Claims of this door that are not among `wished`.
    async fn removed(&self, wished: &[PlannedClaim], scope: Option<&[String]>) -> Result<Vec<Claim>, PlanError> {
        let filter = ClaimFilter { namespaces: scope, source: Some(self.source), ..ClaimFilter::default() };
        let mut all = claims(&mut *self.ledger.acquire().await?, &filter, MOST_CLAIMS).await?;
        let kept: BTreeSet<_> = wished.iter().map(|one| (one.namespace.as_str(), one.name.as_str())).collect();
        all.retain(|claim| claim.wish == Wish::Present && !kept.contains(&(claim.key.namespace(), claim.key.name())));
        Ok(all)
    }

    /// What removing a definition would do.
    async fn withdrawn(&self, claim: &Claim) -> Result<ClaimPlan, PlanError> {
        let name = claim.spec.cluster.clone();
        if claim.spec.mode == Mode::Protected {
            return Ok(report(&claim.key, &name, PlanAction::Retain, Vec::new()));
        }
        let fault = |message: String| PlanError::Cluster { cluster: name.clone(), message };
        let cluster = self.cluster(&name).await?;
        let cluster = cluster.ok_or_else(|| fault("this replica does not work on it; see its status".to_owned()))?;
        let looked = async {
            let _turn = self.planning.acquire().await;
            let server = cluster.server_to_read().await?;
            let mut session = server.maintenance().await?;
            let observed = observe(&server, &mut session, &claim.key, &claim.key.database(), &[]).await?;
            Ok::<_, Cause>(plan_drop(&claim.key, &observed)?)
        };
        match looked.await {
            Ok(plan) => Ok(report(&claim.key, &name, PlanAction::Drop, plan.report())),
            Err(Cause::Refused(refusal)) => {
                let problems = vec![InvalidField::new("name", refusal.to_string())];
                Ok(ClaimPlan { problems, ..report(&claim.key, &name, PlanAction::Refuse, Vec::new()) })
            }
            Err(cause) => Err(fault(cause.to_string())),
        }
    }
}

/// As the last look has left them: a rotation is no part of a plan.
pub(crate) fn logins(claim: &Claim) -> BTreeMap<Tier, Logins> {
    let both = |known: &CredentialState| known.former_since.is_some() || known.next.is_some();
    let of = |known: &CredentialState| Logins { in_use: known.side, both: both(known) };
    claim.credentials.iter().map(|(tier, known)| (*tier, of(known))).collect()
}

fn action(found: Option<&Claim>, spec: &ClaimSpec, exists: bool, plan: &Plan) -> PlanAction {
    match found {
        Some(claim) if claim.wish == Wish::Retained => PlanAction::Adopt,
        Some(claim) if claim.spec == *spec && plan.is_empty() => PlanAction::None,
        Some(_) if exists => PlanAction::Change,
        None if exists => PlanAction::Adopt,
        _ => PlanAction::Create,
    }
}

fn report(key: &ClaimKey, cluster: &str, action: PlanAction, changes: Vec<ChangeReport>) -> ClaimPlan {
    ClaimPlan {
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        cluster: cluster.to_owned(),
        database: key.database(),
        action,
        changes,
        problems: Vec::new(),
    }
}

fn refused(planned: &PlannedClaim, spec: &ClaimSpec, problems: Vec<InvalidField>) -> ClaimPlan {
    ClaimPlan {
        namespace: planned.namespace.clone(),
        name: planned.name.clone(),
        cluster: spec.cluster.clone(),
        database: format!("{}-{}", planned.namespace, planned.name),
        action: PlanAction::Refuse,
        changes: Vec::new(),
        problems,
    }
}

/// Two wishes of one request for the same database: the first keeps it.
fn refuse_duplicates(claims: &mut [ClaimPlan]) {
    let mut seen = BTreeSet::new();
    for claim in claims {
        if !seen.insert((claim.cluster.clone(), claim.database.clone())) {
            let message = format!("the name {:?} is taken by another claim of this plan", claim.database);
            refuse(claim, "name", message);
        }
    }
}

fn refuse(claim: &mut ClaimPlan, field: &str, message: String) {
    claim.action = PlanAction::Refuse;
    claim.changes.clear();
    claim.problems.push(InvalidField::new(field, message));
}
