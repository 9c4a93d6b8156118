//! In place: everybody is kept out, what is there is dumped, and the database is emptied and filled from the snapshot. Where that does not
//! come to its end, the dump that was made first brings back what was there.

use std::slice;
use std::time::Duration;

use pgtenant_ledger::{Claim, StepDone};
use pgtenant_model::{ClaimKey, RestorePhase, RestoreStrategy, SnapshotId, Tier, Verification};
use pgtenant_postgres::{
    Job, Rehearsal, Server, database_comment, empty, end_claims_sessions, make_public, server_started, strangers,
};
use tokio::time::Instant;

use super::dump;
use super::load::{Loading, flow_of, job_options, roles};
use super::machine::{Next, Restoring, Steps, to_json};
use super::source::Source;
use super::trouble::{Kind, Trouble};
use super::verify::{FREE, describe};

/// Sessions that are ended are gone after this time, or something holds them.
const ALONE_WITHIN: Duration = Duration::from_secs(5);

impl Loading<'_> {
    /// Takes the tiers' right to connect, leaves it to a login of this job and to `others`, and ends the tiers' sessions.
    pub(super) async fn close(&self, acts_as: Option<Tier>, others: &[String]) -> Result<Job, Trouble> {
        let job = self.log_in(acts_as).await?;
        let logins = [slice::from_ref(&job.login), others].concat();
        self.settle(&logins).await?;
        let server = self.server;
        end_claims_sessions(server, &mut server.maintenance().await?, &self.claim.key, &FREE).await?;
        self.alone(&logins).await?;
        Ok(job)
    }

    /// Waits until nobody else is in the database: what they write would be in no dump. Sessions that are ended take a moment.
    async fn alone(&self, logins: &[String]) -> Result<(), Trouble> {
        let begun = Instant::now();
        loop {
            let others = strangers(&mut self.server.maintenance().await?, self.database, logins).await?;
            if others.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > ALONE_WITHIN {
                return Err(Trouble::again(format!(
                    "somebody is connected whose session pgtenant may not end: {}; end it, and it is tried again",
                    others.join(", ")
                )));
            }
            tokio::time::sleep(ALONE_WITHIN / 50).await;
        }
    }
}

impl Restoring {
    pub(super) fn replaces(&self) -> bool {
        self.work.restore.view.spec.strategy == RestoreStrategy::Replace
    }

    /// Keeps everybody out, from here until the end, and dumps what is there: what is written later would be in no dump.
    pub(super) async fn save_first(&self) -> Result<Next, Trouble> {
        let key = self.key()?;
        self.hold(&key).await?;
        let claim = self.present(&key).await?;
        let server = self.cluster.server().await?;
        // With the rights of all three tiers: each may own what is dumped.
        let job = self.close(&server, &claim, None).await?;
        let login = job_options(&server, &job);
        let manifest = dump::make_as(&self.engine, &self.cluster, &claim, login).await?;
        dump::note(&self.engine, claim.id, manifest.at, false).await;
        let safety = dump::snapshot_of(&manifest)?;
        let message = format!("nobody can connect any more, and what is there was dumped as {safety}");
        let steps = Steps { safety: Some(safety), ..self.steps()? };
        let done = StepDone::new(RestorePhase::Verifying, message);
        self.done(StepDone { output: to_json(&steps)?, ..done }).await
    }

    /// Before anything is removed: both dumps are there and whole, and the database can be emptied.
    pub(super) async fn verify_first(&self, source: &Source) -> Result<Next, Trouble> {
        let key = self.key()?;
        let safety = self.open(&self.safety()?).await?;
        for one in [source, &safety] {
            one.read_through().await?;
        }
        let (claim, server) = (self.present(&key).await?, self.cluster.server().await?);
        self.empty(&server, &claim, Rehearsal::Yes).await?;
        let message = "both dumps can be read, and the database can be emptied";
        self.done(StepDone::new(RestorePhase::Switching, message)).await
    }

    /// Empties the database, then fills it: from the snapshot, or, where that came to nothing, from what was dumped first.
    pub(super) async fn replace(&self) -> Result<Next, Trouble> {
        let (key, steps) = (self.key()?, self.steps()?);
        self.hold(&key).await?;
        if !steps.emptying {
            let message = format!("the database is emptied; what was there is {}", self.safety()?);
            let output = to_json(&Steps { emptying: true, ..steps })?;
            return self.done(StepDone { output, ..StepDone::new(RestorePhase::Switching, message) }).await;
        }
        if !steps.emptied {
            let (claim, server) = (self.present(&key).await?, self.cluster.server().await?);
            return match self.empty(&server, &claim, Rehearsal::No).await {
                Ok(_) => {
                    self.engine.settings.faults.reach("after:emptied").await;
                    let message = format!("the database is empty, and is filled; what was there is {}", self.safety()?);
                    let output = to_json(&Steps { emptied: true, ..steps })?;
                    self.done(StepDone { output, ..StepDone::new(RestorePhase::Switching, message) }).await
                }
                // All or nothing is dropped; a former try may have dropped all and not come to write it down.
                Err(Trouble { message, kind: Kind::Final }) => match self.occupant(&server, &key).await? {
                    Some(_) => {
                        self.decide(RestorePhase::Failed, &format!("{message}; the database is as it was")).await
                    }
                    None => Err(Trouble::again(message)),
                },
                Err(trouble) => Err(trouble),
            };
        }
        match steps.back.clone() {
            None => self.fill_from_snapshot(&key, steps).await,
            Some(why) => self.fill_from_safety(&key, &why).await,
        }
    }

    /// Whether the database may be empty and has to be filled, whatever happens: for as long as somebody wants it.
    pub(super) async fn must_be_filled(&self) -> bool {
        let emptying = self.steps().is_ok_and(|steps| steps.emptying);
        let wanted = async { self.present(&self.key()?).await };
        emptying && !matches!(wanted.await, Err(Trouble { kind: Kind::Final, .. }))
    }

    /// Lets the tiers in again.
    pub(super) async fn open_again(&self) -> Result<(), Trouble> {
        let key = self.key()?;
        let claim = match self.present(&key).await {
            // It is being removed.
            Err(Trouble { kind: Kind::Final, .. }) => return Ok(()),
            found => found?,
        };
        let server = self.cluster.server().await?;
        let comment = database_comment(&key);
        self.loading(&server, &claim, &key.database(), &comment).settle(&[]).await?;
        Ok(())
    }

    /// After all is filled and everybody is let in again, each tier logs in; before, none could.
    pub(super) async fn try_tiers(&self) -> Result<Option<Next>, Trouble> {
        let (restore, steps) = (&self.work.restore, self.steps()?);
        let Some(mut report) = restore.view.report.clone().filter(|_| self.replaces() && !steps.tried) else {
            return Ok(None);
        };
        let key = self.key()?;
        let claim = match self.present(&key).await {
            Err(Trouble { kind: Kind::Final, .. }) => return Ok(None),
            found => found?,
        };
        let (server, database, comment) = (self.cluster.server().await?, key.database(), database_comment(&key));
        let (logins, refused) = self.loading(&server, &claim, &database, &comment).log_in_as_tiers().await?;
        report.logins = logins;
        let message = refused.iter().fold(self.ending()?, |all, one| format!("{all}; {}: {}", one.object, one.message));
        report.differences.extend(refused);
        let output = to_json(&Steps { tried: true, ..steps })?;
        let done = StepDone::new(RestorePhase::CleaningUp, message);
        Ok(Some(self.done(StepDone { report: Some(report), output, ..done }).await?))
    }

    fn safety(&self) -> Result<SnapshotId, Trouble> {
        self.steps()?.safety.ok_or_else(|| Trouble::last("it is not written down what was dumped first"))
    }

    /// All is there, and nobody was let in so far.
    async fn filled(
        &self,
        copied_on: String,
        outcome: RestorePhase,
        message: String,
        report: Option<Verification>,
    ) -> Result<Next, Trouble> {
        let output = to_json(&Steps { copied_on, ..self.steps()? })?;
        let done = StepDone::new(RestorePhase::CleaningUp, message);
        self.done(StepDone { output, report, outcome: Some(outcome), ..done }).await
    }

    /// Before anybody is let in: where the primary is another one than was filled, a standby that was behind, it is filled again.
    pub(super) async fn fill_again_if_moved(&self) -> Result<Option<Next>, Trouble> {
        let steps = self.steps()?;
        if !self.replaces() || !steps.emptied || steps.opening {
            return Ok(None);
        }
        let moved = server_started(&mut self.cluster.server().await?.maintenance().await?).await? != steps.copied_on;
        if moved && self.must_be_filled().await {
            let message = "the server is another one than was filled, or was started anew: it is filled again";
            let done = StepDone::new(RestorePhase::Switching, message);
            return Ok(Some(self.done(StepDone { undecided: true, ..done }).await?));
        }
        let output = to_json(&Steps { opening: true, ..steps })?;
        let done = StepDone::new(RestorePhase::CleaningUp, self.ending()?);
        Ok(Some(self.done(StepDone { output, ..done }).await?))
    }

    async fn fill_from_snapshot(&self, key: &ClaimKey, steps: Steps) -> Result<Next, Trouble> {
        match self.fill(key, self.snapshot()?).await {
            Ok((report, copied_on)) if report.is_good() => {
                let message =
                    format!("{key} is as it was in the snapshot; what was there before is {}", self.safety()?);
                self.filled(copied_on, RestorePhase::Succeeded, message, Some(report)).await
            }
            Ok((report, _)) => self.go_back(steps, describe(&report), Some(report)).await,
            Err(trouble) if trouble.is_final(self.work.restore.attempts) => {
                self.go_back(steps, trouble.message, None).await
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn go_back(&self, steps: Steps, why: String, report: Option<Verification>) -> Result<Next, Trouble> {
        let message = format!("{why}; what was there before is brought back");
        let output = to_json(&Steps { back: Some(why), ..steps })?;
        let done = StepDone::new(RestorePhase::Switching, message);
        self.done(StepDone { output, report, ..done }).await
    }

    /// There is no other way back: it is tried until it works, and the database stays closed meanwhile.
    async fn fill_from_safety(&self, key: &ClaimKey, why: &str) -> Result<Next, Trouble> {
        let safety = self.safety()?;
        match self.fill(key, &safety).await {
            Ok((report, copied_on)) if report.is_good() => {
                let message = format!("{why}; the database is as it was before, from {safety}");
                self.filled(copied_on, RestorePhase::Failed, message, None).await
            }
            // All of it is loaded. What differs would differ again: as where the tenant's own code writes while rows are loaded.
            Ok((report, copied_on)) => {
                let message = format!("{why}; what was there before is loaded from {safety}: {}", describe(&report));
                self.filled(copied_on, RestorePhase::Failed, message, Some(report)).await
            }
            Err(Trouble { message, kind: Kind::Final }) => Err(Trouble::again(message)),
            Err(trouble) => Err(trouble),
        }
    }

    /// Says on which server.
    async fn fill(&self, key: &ClaimKey, snapshot: &SnapshotId) -> Result<(Verification, String), Trouble> {
        let source = self.open(snapshot).await?;
        let (claim, server) = (self.present(key).await?, self.cluster.server().await?);
        let copied_on = server_started(&mut server.maintenance().await?).await?;
        // What a former try has loaded goes first.
        let job = self.empty(&server, &claim, Rehearsal::No).await?;
        let (database, comment) = (key.database(), database_comment(key));
        let loading = self.loading(&server, &claim, &database, &comment);
        // Schema `public` and what the roles may do in the database went with what they owned.
        make_public(&server, key).await?;
        loading.settle(slice::from_ref(&job.login)).await?;
        let (same, flow) = (roles(key, key), flow_of(&self.cluster, &source.contents.parts));
        let left_out = tokio::select! {
            biased;
            left_out = loading.load(&job, &source, same.clone(), &flow) => left_out?,
            never = self.tell(&flow) => match never {},
        };
        self.note(&flow).await;
        self.engine.settings.faults.reach("after:filled").await;
        // Nobody is let in before it is written down that it is done: what somebody wrote would go with another try.
        Ok((loading.examine(&job, &source, left_out, &same, slice::from_ref(&job.login)).await?, copied_on))
    }

    /// The database is closed for everybody but a login of this restore.
    async fn close(&self, server: &Server, claim: &Claim, acts_as: Option<Tier>) -> Result<Job, Trouble> {
        let (database, comment) = (claim.key.database(), database_comment(&claim.key));
        self.loading(server, claim, &database, &comment).close(acts_as, &[]).await
    }

    async fn empty(&self, server: &Server, claim: &Claim, rehearsal: Rehearsal) -> Result<Job, Trouble> {
        let job = self.close(server, claim, Some(Tier::Admin)).await?;
        let mut session = server.log_in(&claim.key.database(), &job.login, &job.password).await?;
        empty(&mut session, &claim.key, rehearsal, &self.lease).await?;
        Ok(job)
    }
}
