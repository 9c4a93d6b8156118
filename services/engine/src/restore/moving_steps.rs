//! What a move does on both clusters. The copy has a name of its own until the claim is on the other cluster, and the database that it
//! leaves has one from then on: what has the claim's name is in use.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use pgtenant_ledger::{
    Claim, MoveStep, Wish, claim, claim_has_moved, cluster, hold_claim, move_done, note_closed, within_deadline,
};
use pgtenant_model::{ClaimKey, DatabaseState, MoveMethod, MovePhase, Tier, Verification};
use pgtenant_postgres::{
    Beside, BesideKind, Job, Server, Verifier, database_comment, drop_beside, end_job, observe, plan_drop,
    run_maintenance, server_started, server_version, take_place, unfollow,
};

use super::live::Live;
use super::load::{Loading, flow_of, roles};
use super::moving::Moving;
use super::prepare::check_room;
use super::trouble::{Kind, Trouble};
use super::verify::describe;
use crate::cluster::Cluster;
use crate::credentials::{Rules, wanted};
use crate::roster::PATIENCE;

/// Beside the copy itself: applications are cut off, let in again, and told the new address.
pub(super) const AROUND: Duration = Duration::from_secs(1);

/// What was copied.
struct Copied {
    report: Verification,
    bytes: u64,
    tables: usize,
    /// The server that it is on.
    started: String,
}

impl Moving {
    pub(super) fn key(&self) -> Result<ClaimKey, Trouble> {
        let view = &self.work.view;
        ClaimKey::new(&view.namespace, &view.name).map_err(|error| Trouble::last(error.to_string()))
    }

    pub(super) fn beside(&self, kind: BesideKind) -> Result<Beside, Trouble> {
        Ok(Beside::new(kind, &self.key()?, self.work.view.id))
    }

    /// The cluster that it is on.
    pub(super) async fn source(&self) -> Result<Arc<Cluster>, Trouble> {
        let name = &self.work.view.from;
        let found = self.engine.roster.find(name, PATIENCE).await.map_err(|late| Trouble::again(late.to_string()))?;
        if let Some(found) = found {
            return Ok(found);
        }
        let read = async { cluster(&mut *self.engine.ledger.acquire().await?, name).await };
        Err(match within_deadline(read).await? {
            Some(_) => Trouble::again(format!("this replica does not work on cluster {name:?}; see its status")),
            None => Trouble::last(format!("there is no cluster {name:?} any more")),
        })
    }

    /// The claim, wherever it is; none: it is not there any more.
    pub(super) async fn found(&self) -> Result<Option<Claim>, Trouble> {
        Ok(self.named().await?.filter(|found| found.id == self.work.claim))
    }

    /// The claim of that name, which may have been made after the one that is moved was removed.
    async fn named(&self) -> Result<Option<Claim>, Trouble> {
        let key = self.key()?;
        let read = async { claim(&mut *self.engine.ledger.acquire().await?, &key).await };
        Ok(within_deadline(read).await?)
    }

    /// Whether a claim of that name is on this cluster: what has its name there is not this move's.
    pub(super) async fn is_on(&self, cluster: &str) -> Result<bool, Trouble> {
        Ok(self.named().await?.is_some_and(|claim| claim.spec.cluster == cluster))
    }

    /// The claim, which must be there to be moved, with passwords that stay as they are meanwhile.
    pub(super) async fn movable(&self) -> Result<Claim, Trouble> {
        let key = self.key()?;
        let found = self.found().await?.filter(|claim| claim.wish == Wish::Present);
        let claim = found.ok_or_else(|| Trouble::last(format!("the claim {key} is not there any more")))?;
        if claim.roles.is_none() || claim.state == DatabaseState::Provisioning {
            return Err(Trouble::wait(format!("the database {key} is being made")));
        }
        if claim.credentials.values().any(|known| known.former_since.is_some() || known.next.is_some()) {
            let message = format!("passwords of {key} are being replaced: it is moved when the former ones are locked");
            return Err(Trouble::later(message, Duration::from_secs(5)));
        }
        Ok(claim)
    }

    /// Has a copy follow the database, where that is possible; else copies it while applications go on, compares, and drops the copy: what
    /// that takes is what it will take.
    pub(super) async fn rehearse(&self) -> Result<(), Trouble> {
        let (claim, source) = (self.movable().await?, self.source().await?);
        let server = source.server().await?;
        let mut why = String::new();
        if self.work.wanted != Some(MoveMethod::Dump) {
            match self.rehearse_following(&claim, (&source, &server)).await? {
                Ok(()) => return Ok(()),
                Err(unfit) if self.work.wanted.is_some() => {
                    return self.decide(MovePhase::Failed, &format!("{unfit}; it is where it was")).await;
                }
                Err(unfit) => why = format!("; by dump, since {unfit}"),
            }
        }
        let database = claim.key.database();
        let job = self.loading(&source, &server, &claim, &database, &database_comment(&claim.key)).log_in(None).await?;
        let begun = Instant::now();
        let copied = self.copy(&claim, &source, &server, &job).await?;
        let expected = begun.elapsed() + AROUND;
        self.end_job(&server).await?;
        self.clear(&self.target.server().await?).await?;
        let (message, left_out) = (describe(&copied.report), left_out(&copied.report));
        if !copied.report.is_good() {
            return self.decide(MovePhase::Failed, &format!("{message}; it is where it was")).await;
        }
        let Copied { bytes, tables, .. } = copied;
        let message = format!(
            "rehearsed: {message}{left_out}{why}; nobody will be able to connect for about {:.1} s, once somebody says yes",
            expected.as_secs_f64()
        );
        let step = MoveStep {
            bytes: Some(bytes),
            tables: Some(tables as u64),
            expected_gap: Some(expected.as_secs_f64()),
            method: Some(MoveMethod::Dump),
            ..MoveStep::default()
        };
        self.wait_for_yes(&message, step).await
    }

    /// Keeps everybody out, copies and compares. What is good has its name on the other cluster then.
    pub(super) async fn carry_over(&self) -> Result<Verification, Trouble> {
        let (claim, source) = (self.movable().await?, self.source().await?);
        let (key, id) = (&claim.key, self.work.view.id);
        let held = async { hold_claim(&mut *self.engine.ledger.acquire().await?, claim.id, id).await };
        if !within_deadline(held).await? {
            return Err(Trouble::wait(format!("{key} is being looked at")));
        }
        // What somebody has changed until it was held.
        let claim = self.movable().await?;
        let server = source.server().await?;
        within_deadline(async { note_closed(&mut *self.engine.ledger.acquire().await?, &self.work).await }).await?;
        let (database, comment) = (key.database(), database_comment(key));
        let job = self.loading(&source, &server, &claim, &database, &comment).close(None, &[]).await?;
        self.engine.settings.faults.reach("after:move-closed").await;
        let closed_on = server_started(&mut server.maintenance().await?).await?;
        let copied = self.copy(&claim, &source, &server, &job).await?;
        if !copied.report.is_good() {
            return Ok(copied.report);
        }
        self.engine.settings.faults.reach("after:move-copied").await;
        let target = self.target.server().await?;
        self.end_job(&target).await?;
        let mut session = target.maintenance().await?;
        take_place(&target, &mut session, &self.beside(BesideKind::Copy)?, &self.lease).await?;
        self.engine.settings.faults.reach("after:move-take-place").await;
        if server_started(&mut session).await? != copied.started {
            return Err(Trouble::again("the server is another one than the copy was made on: it is copied again"));
        }
        self.is_still_on(&source, &closed_on).await?;
        Ok(copied.report)
    }

    /// From here on the claim is on the other cluster, and there is no way back but another move.
    pub(super) async fn has_moved(&self, report: &Verification) -> Result<(), Trouble> {
        let message = format!("{}; applications get the new address", describe(report));
        let step = MoveStep { outcome: Some(MovePhase::Succeeded), due: Some(Duration::ZERO), ..MoveStep::default() };
        let moved = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            move_done(&mut tx, &self.work, MovePhase::CleaningUp, &message, &step).await?;
            let moved = claim_has_moved(&mut tx, &self.work).await?;
            if moved {
                tx.commit().await?;
            }
            Ok(moved)
        });
        if !moved.await? {
            return Err(Trouble::again("what is wished of the claim has changed"));
        }
        tracing::info!("{message}");
        self.engine.settings.faults.reach("after:move-claim").await;
        Ok(())
    }

    pub(super) fn loading<'a>(
        &'a self,
        cluster: &'a Cluster,
        server: &'a Server,
        claim: &'a Claim,
        database: &'a str,
        comment: &'a str,
    ) -> Loading<'a> {
        let (id, passwords) = (self.work.view.id, BTreeMap::new());
        Loading { engine: &self.engine, cluster, server, claim, database, comment, id, passwords }
    }

    /// Copies the database beside its name on the other cluster, read by a login of this move, and compares.
    async fn copy(&self, claim: &Claim, source: &Cluster, server: &Server, job: &Job) -> Result<Copied, Trouble> {
        let target = self.target.server().await?;
        if let Some(foreign) = self.clear(&target).await?.into_iter().next() {
            return Err(Trouble::last(format!("on cluster {}: {foreign}", self.target.name)));
        }
        self.same_or_newer(server, &target).await?;
        let started = server_started(&mut target.maintenance().await?).await?;
        let copy = self.beside(BesideKind::Copy)?;
        let (key, comment, id) = (&claim.key, copy.comment(), self.work.view.id);
        let passwords = passwords(claim, source, server).await?;
        let loading = Loading { passwords, ..self.loading(&self.target, &target, claim, &copy.database, &comment) };
        // With the roles, which a login of its own is to act as.
        loading.settle(&[]).await?;
        let loader = loading.begin(&copy).await?;
        let jobs = usize::from(source.spec.restores.jobs);
        let live = Live { engine: &self.engine, server, key, id, jobs, recovered: false, what: "the cluster" };
        let read = live.read_as(job).await?;
        check_room(&self.target, &target, read.bytes()).await?;
        let (same, flow) = (roles(key, key), flow_of(&self.target, &read.contents.parts));
        let left_out = loading.load(&loader, &read, same.clone(), &flow).await?;
        let report = loading.examine(&loader, &read, left_out, &same, slice::from_ref(&loader.login)).await?;
        loading.settle(&[]).await?;
        Ok(Copied { report, bytes: read.bytes(), tables: read.contents.inventory.tables.len(), started })
    }

    pub(super) async fn same_or_newer(&self, source: &Server, target: &Server) -> Result<(), Trouble> {
        let from = server_version(&mut source.maintenance().await?).await?;
        let to = server_version(&mut target.maintenance().await?).await?;
        if to.number() / 10_000 >= from.number() / 10_000 {
            return Ok(());
        }
        Err(Trouble::last(format!(
            "cluster {} has PostgreSQL {}, which is older than {}: a dump is not loaded into an older version",
            self.target.name,
            to.number() / 10_000,
            from.number() / 10_000
        )))
    }

    /// Removes what a former try has left on the other cluster, where the claim is not. Says what is somebody else's there, and stays.
    pub(super) async fn clear(&self, target: &Server) -> Result<Vec<String>, Trouble> {
        if self.is_on(&self.work.view.to).await? {
            return Err(Trouble::last("a claim of this name is on the other cluster already"));
        }
        self.end_job(target).await?;
        unfollow(target, self.work.view.id).await?;
        let mut session = target.maintenance().await?;
        drop_beside(target, &mut session, &self.beside(BesideKind::Copy)?, &self.lease).await?;
        // It may have got its name already, without that being written down.
        let key = self.key()?;
        let observed = observe(target, &mut session, &key, &key.database(), &[]).await?;
        let plan = match plan_drop(&key, &observed) {
            // What a move from there has put aside is kept for its time, and is its roles'.
            Err(_) if observed.database.is_none() => return Ok(Vec::new()),
            plan => plan?,
        };
        run_maintenance(target, &mut session, &plan, &self.lease, &|_| {}).await?;
        Ok(plan.beyond.into_iter().map(|one| one.text).collect())
    }

    pub(super) async fn end_job(&self, server: &Server) -> Result<(), Trouble> {
        let mut session = server.maintenance().await?;
        let version = server_version(&mut session).await?;
        Ok(end_job(server, &mut session, version, &Job::name(self.work.view.id)).await?)
    }
}

/// What would not come along, for whoever says yes.
pub(super) fn left_out(report: &Verification) -> String {
    const MOST: usize = 5;
    let told: Vec<_> =
        report.left_out.iter().take(MOST).map(|one| format!("{} ({})", one.object, one.reason)).collect();
    let more = report.left_out.len().saturating_sub(MOST);
    match (told.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("; left out: {}", told.join(", ")),
        (false, more) => format!("; left out: {} and {more} more", told.join(", ")),
    }
}

/// Verifiers of the passwords that applications have: they stay the same.
pub(super) async fn passwords(
    claim: &Claim,
    source: &Cluster,
    server: &Server,
) -> Result<BTreeMap<Tier, Verifier>, Trouble> {
    let reach = source.reach(server).await?;
    let rules = Rules { claim, spec: &source.spec, now: Utc::now(), idle: false };
    let mut verifiers = BTreeMap::new();
    for tier in Tier::ALL {
        let wanted = wanted(rules, tier, &reach, &source.stores).await?;
        let password = wanted.credential.map(|credential| credential.password);
        let password = password
            .ok_or_else(|| Trouble { message: format!("no store has the {tier} credential"), kind: Kind::Again })?;
        let verifier = tokio::task::spawn_blocking(move || Verifier::of(&password)).await;
        verifiers.insert(tier, verifier.map_err(|error| Trouble::again(error.to_string()))?);
    }
    Ok(verifiers)
}
