//! What a move does on both clusters. The copy has a name of its own until the claim is on the other cluster, and the database that it
//! leaves has one from then on: what has the claim's name is in use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use metrics::counter;
use pgtenant_ledger::{
    Claim, MoveStep, MoveWork, Wish, claim, claim_has_moved, cluster, end_move, hold_claim, let_go, move_done,
    note_closed, within_deadline,
};
use pgtenant_model::{ClaimKey, DatabaseState, MovePhase, Tier, Verification};
use pgtenant_postgres::{
    Beside, BesideKind, Job, Server, Verifier, database_comment, drop_beside, drop_roles_alone, end_job, observe,
    plan_drop, put_aside, run_maintenance, server_started, server_version, take_place,
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
const AROUND: Duration = Duration::from_secs(1);

/// What was copied.
struct Copied {
    report: Verification,
    bytes: u64,
    tables: usize,
    /// The server that it is on.
    started: String,
}

impl Moving {
    fn key(&self) -> Result<ClaimKey, Trouble> {
        let view = &self.work.view;
        ClaimKey::new(&view.namespace, &view.name).map_err(|error| Trouble::last(error.to_string()))
    }

    fn beside(&self, kind: BesideKind) -> Result<Beside, Trouble> {
        Ok(Beside::new(kind, &self.key()?, self.work.view.id))
    }

    /// The cluster that it is on.
    async fn source(&self) -> Result<Arc<Cluster>, Trouble> {
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
    async fn found(&self) -> Result<Option<Claim>, Trouble> {
        Ok(self.named().await?.filter(|found| found.id == self.work.claim))
    }

    /// The claim of that name, which may have been made after the one that is moved was removed.
    async fn named(&self) -> Result<Option<Claim>, Trouble> {
        let key = self.key()?;
        let read = async { claim(&mut *self.engine.ledger.acquire().await?, &key).await };
        Ok(within_deadline(read).await?)
    }

    /// Whether a claim of that name is on this cluster: what has its name there is not this move's.
    async fn is_on(&self, cluster: &str) -> Result<bool, Trouble> {
        Ok(self.named().await?.is_some_and(|claim| claim.spec.cluster == cluster))
    }

    /// The claim, which must be there to be moved, with passwords that stay as they are meanwhile.
    async fn movable(&self) -> Result<Claim, Trouble> {
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

    /// Copies the database while applications go on, compares, and drops the copy: what that takes is what it will take.
    pub(super) async fn rehearse(&self) -> Result<(), Trouble> {
        let (claim, source) = (self.movable().await?, self.source().await?);
        let server = source.server().await?;
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
            "rehearsed: {message}{left_out}; nobody will be able to connect for about {:.1} s, once somebody says yes",
            expected.as_secs_f64()
        );
        let step = MoveStep {
            bytes: Some(bytes),
            tables: Some(tables as u64),
            expected_gap: Some(expected.as_secs_f64()),
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
        let job = self.loading(&source, &server, &claim, &database, &comment).close(None).await?;
        self.engine.settings.faults.reach("after:move-closed").await;
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

    fn loading<'a>(
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
        loading.settle(None).await?;
        let loader = loading.begin(&copy).await?;
        let jobs = usize::from(source.spec.restores.jobs);
        let live = Live { engine: &self.engine, server, key, id, jobs, recovered: false, what: "the cluster" };
        let read = live.read_as(job).await?;
        check_room(&self.target, &target, read.bytes()).await?;
        let (same, flow) = (roles(key, key), flow_of(&self.target, &read.contents.parts));
        let left_out = loading.load(&loader, &read, same.clone(), &flow).await?;
        let report = loading.examine(&loader, &read, left_out, &same, Some(&loader)).await?;
        loading.settle(None).await?;
        Ok(Copied { report, bytes: read.bytes(), tables: read.contents.inventory.tables.len(), started })
    }

    async fn same_or_newer(&self, source: &Server, target: &Server) -> Result<(), Trouble> {
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
    async fn clear(&self, target: &Server) -> Result<Vec<String>, Trouble> {
        if self.is_on(&self.work.view.to).await? {
            return Err(Trouble::last("a claim of this name is on the other cluster already"));
        }
        self.end_job(target).await?;
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

    async fn end_job(&self, server: &Server) -> Result<(), Trouble> {
        let mut session = server.maintenance().await?;
        let version = server_version(&mut session).await?;
        Ok(end_job(server, &mut session, version, &Job::name(self.work.view.id)).await?)
    }

    /// Leaves nothing of it but what is kept for a while, or nothing at all.
    pub(super) async fn clean_up(&self) -> Result<(), Trouble> {
        match self.work.outcome {
            Some(MovePhase::Succeeded) => self.finish().await,
            outcome => self.leave_as_it_was(outcome.unwrap_or(MovePhase::Failed)).await,
        }
    }

    async fn finish(&self) -> Result<(), Trouble> {
        let MoveWork { view, closed_at, .. } = &self.work;
        if let Some(claim) = self.found().await?.filter(|claim| claim.wish == Wish::Present)
            && claim.observed_generation < claim.generation
        {
            let why = claim.conditions.iter().find(|one| one.kind == "Ready").map(|one| one.message.as_str());
            return Err(Trouble::wait(format!("applications get the new address: {}", why.unwrap_or("it is begun"))));
        }
        let gap = closed_at.and_then(|at| (Utc::now() - at).to_std().ok()).map(|gap| gap.as_secs_f64());
        let gap = view.gap_seconds.or(gap);
        let before = self.beside(BesideKind::Before)?;
        let done = format!("it is on {}; nobody could connect for {:.1} s", view.to, gap.unwrap_or_default());
        let source = match self.source().await {
            Err(Trouble { kind: Kind::Final, message }) => {
                return self.end(MovePhase::Succeeded, &format!("{done}; {message}"), None).await;
            }
            found => found?,
        };
        if view.gap_seconds.is_none() {
            let step = MoveStep { gap, ..MoveStep::default() };
            let message = format!("what was on {} is put aside", view.from);
            let noted = within_deadline(async {
                let mut db = self.engine.ledger.acquire().await?;
                move_done(&mut db, &self.work, MovePhase::CleaningUp, &message, &step).await
            });
            noted.await?;
        }
        let server = source.server().await?;
        self.end_job(&server).await?;
        // One that was made there anew since then has taken over what was left.
        if !self.is_on(&view.from).await? {
            put_aside(&server, &mut server.maintenance().await?, &before, &self.lease).await?;
        }
        self.engine.settings.faults.reach("after:move-put-aside").await;
        let keep = source.spec.restores.keep_before;
        let until = Utc::now() + keep.duration();
        let message = format!("{done}; what was on {} is kept there as {} for {keep}", view.from, before.database);
        self.end(MovePhase::Succeeded, &message, Some(until)).await
    }

    async fn leave_as_it_was(&self, outcome: MovePhase) -> Result<(), Trouble> {
        let source = self.source().await?;
        let server = source.server().await?;
        if let Some(claim) = self.found().await?.filter(|claim| claim.roles.is_some() && claim.wish != Wish::Absent) {
            let (database, comment) = (claim.key.database(), database_comment(&claim.key));
            self.loading(&source, &server, &claim, &database, &comment).settle(None).await?;
        }
        self.end_job(&server).await?;
        let id = self.work.view.id;
        within_deadline(async { let_go(&mut *self.engine.ledger.acquire().await?, id).await }).await?;
        if !self.is_on(&self.work.view.to).await? {
            self.clear(&self.target.server().await?).await?;
        }
        let message = self.work.ending.clone().unwrap_or_default();
        self.end(outcome, &message, None).await
    }

    async fn end(
        &self,
        outcome: MovePhase,
        message: &str,
        kept_until: Option<chrono::DateTime<Utc>>,
    ) -> Result<(), Trouble> {
        let ended = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            end_move(&mut tx, &self.work, outcome, message, kept_until).await?;
            Ok(tx.commit().await?)
        });
        ended.await?;
        let MoveWork { view, .. } = &self.work;
        if !view.phase.is_over() {
            let (from, to) = (view.from.clone(), view.to.clone());
            counter!("pgtenant_moves_total", "from" => from, "to" => to, "outcome" => format!("{outcome:?}"))
                .increment(1);
        }
        tracing::info!(?outcome, "{message}");
        Ok(())
    }

    /// It was kept long enough.
    pub(super) async fn drop_aside(&self) -> Result<(), Trouble> {
        let before = self.beside(BesideKind::Before)?;
        let source = match self.source().await {
            Err(Trouble { kind: Kind::Final, message }) => return self.end(self.work.view.phase, &message, None).await,
            found => found?,
        };
        let server = source.server().await?;
        let mut session = server.maintenance().await?;
        drop_beside(&server, &mut session, &before, &self.lease).await?;
        if !self.is_on(&self.work.view.from).await? {
            drop_roles_alone(&server, &mut session, &before, &self.lease).await?;
        }
        let MoveWork { view, .. } = &self.work;
        let message = format!("{}, which was kept on {}, is gone", before.database, view.from);
        self.end(view.phase, &message, None).await
    }
}

/// What would not come along, for whoever says yes.
fn left_out(report: &Verification) -> String {
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
async fn passwords(claim: &Claim, source: &Cluster, server: &Server) -> Result<BTreeMap<Tier, Verifier>, Trouble> {
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
