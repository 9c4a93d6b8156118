//! The copy takes the place of the database; later the way back, and the end of what was put aside.

use chrono::Utc;
use pgtenant_ledger::{Aside, StepDone, aside_done, end_restore, hold_claim, let_go, within_deadline};
use pgtenant_model::{ClaimKey, PutAside, RestorePhase, RestoreStrategy};
use pgtenant_postgres::{
    Beside, BesideKind, Exchange, PostgresError, Server, Session, Step, beside, drop_beside, exchange, occupant,
    reopen, server_started,
};

use super::machine::{Next, Restoring, Steps, to_json};
use super::trouble::{Kind, Trouble};

impl Restoring {
    /// The names of what stands beside the claim's database.
    pub(super) fn beside(&self, kind: BesideKind) -> Result<Beside, Trouble> {
        Ok(Beside::new(kind, &self.target()?, self.work.restore.view.id))
    }

    /// Every database beside a claim that this restore has made or put aside.
    pub(super) async fn mine(&self, session: &mut Session) -> Result<Vec<Beside>, Trouble> {
        let id = self.work.restore.view.id;
        Ok(beside(session).await?.into_iter().filter(|one| one.restore == id).collect())
    }

    /// Whether the database may be another one already, so that the restore can not be said to have failed.
    pub(super) async fn may_be_switched(&self) -> bool {
        if self.phase() != RestorePhase::Switching {
            return false;
        }
        if self.replaces() {
            return self.must_be_filled().await;
        }
        let look = async {
            let server = self.cluster.server().await?;
            self.mine(&mut server.maintenance().await?).await
        };
        look.await.map_or(true, |mine| mine.iter().any(|one| one.kind == BesideKind::Before))
    }

    /// Exchanges the databases.
    pub(super) async fn switch(&self) -> Result<Next, Trouble> {
        if self.replaces() {
            return self.replace().await;
        }
        let comes = self.beside(BesideKind::Copy)?.database;
        let goes = self.beside(BesideKind::Before)?;
        let server = self.cluster.server().await?;
        let exchanged = self.is_exchanged(&mut server.maintenance().await?, &goes).await?;
        if !exchanged && let Some(again) = self.copy_again_if_moved(&server).await? {
            return Ok(again);
        }
        let copied = self.work.restore.view.spec.strategy == RestoreStrategy::Copy;
        let steps = self.steps()?;
        // The database that a claim is made with is empty, unless somebody was quick. It is written down before it can not be seen.
        if copied && !exchanged {
            let empty = self.is_empty(&server, &goes.key).await?;
            if empty != steps.empty {
                let output = to_json(&Steps { empty, ..steps })?;
                let done = StepDone::new(RestorePhase::Switching, "the copy takes its place");
                return self.done(StepDone { output, ..done }).await;
            }
        }
        self.exchange(&comes, &goes).await?;
        let rules = &self.cluster.spec.restores;
        let (before, message) = if steps.empty {
            (None, format!("{} is there", goes.key))
        } else {
            let until = Utc::now() + rules.keep_before.duration();
            let message = format!(
                "{} is as it was in the snapshot; what was there before is kept as {} for {}",
                goes.key, goes.database, rules.keep_before
            );
            (Some(PutAside { database: goes.database, until }), message)
        };
        let done = StepDone::new(RestorePhase::CleaningUp, message);
        self.done(StepDone { before, outcome: Some(RestorePhase::Succeeded), ..done }).await
    }

    /// Before what was copied goes: where the primary is another one, a standby that was behind, it may be that nothing was exchanged.
    pub(super) async fn switch_again_if_moved(&self) -> Result<Option<Next>, Trouble> {
        let succeeded = self.work.restore.outcome == Some(RestorePhase::Succeeded);
        if self.replaces()
            || self.tests()
            || !succeeded
            || matches!(self.present(&self.target()?).await, Err(Trouble { kind: Kind::Final, .. }))
        {
            return Ok(None);
        }
        let server = self.cluster.server().await?;
        let mut session = server.maintenance().await?;
        if server_started(&mut session).await? == self.steps()?.copied_on {
            return Ok(None);
        }
        let mine = self.mine(&mut session).await?;
        let is_there = |kind| mine.iter().any(|one| one.kind == kind);
        let kept = self.work.restore.view.before.is_some();
        if !is_there(BesideKind::Copy) && (!kept || is_there(BesideKind::Before)) {
            return Ok(None);
        }
        let message = "the server is another one than the databases were exchanged on: it is done again";
        let done = StepDone::new(RestorePhase::Switching, message);
        Ok(Some(self.done(StepDone { undecided: true, ..done }).await?))
    }

    /// Puts `comes` into the place of the claim's database, unless that is done already. Nobody looks at the claim meanwhile.
    async fn exchange(&self, comes: &str, goes: &Beside) -> Result<(), Trouble> {
        let server = self.cluster.server().await?;
        let mut session = server.maintenance().await?;
        if self.is_exchanged(&mut session, goes).await? {
            return Ok(());
        }
        self.hold(&goes.key).await?;
        let faults = &self.engine.settings.faults;
        let on_step = |step: Step| {
            faults.reach_now(&format!("{}:{}", if step.done { "after" } else { "before" }, step.name));
        };
        let wanted = Exchange { comes: comes.to_owned(), goes: goes.clone() };
        let done = exchange(&server, &mut session, &wanted, &self.lease, &on_step).await;
        done.map_err(|error| self.explain(error))
    }

    /// Something that is in a claim's database.
    pub(super) async fn occupant(&self, server: &Server, key: &ClaimKey) -> Result<Option<String>, Trouble> {
        Ok(occupant(&mut server.inside(&key.database()).await?).await?)
    }

    /// An exchange that was begun has closed it.
    async fn is_empty(&self, server: &Server, key: &ClaimKey) -> Result<bool, Trouble> {
        reopen(server, &mut server.maintenance().await?, key).await?;
        Ok(self.occupant(server, key).await?.is_none())
    }

    async fn is_exchanged(&self, session: &mut Session, goes: &Beside) -> Result<bool, Trouble> {
        Ok(self.mine(session).await?.iter().any(|one| one.kind == goes.kind))
    }

    /// Keeps everybody else from working on the claim.
    pub(super) async fn hold(&self, key: &ClaimKey) -> Result<(), Trouble> {
        let claim = self.present(key).await?;
        let id = self.work.restore.view.id;
        let held = within_deadline(async { hold_claim(&mut *self.engine.ledger.acquire().await?, claim.id, id).await });
        if held.await? { Ok(()) } else { Err(Trouble::wait(format!("{key} is being looked at"))) }
    }

    /// Lets others work on the claim again; it is looked at next.
    pub(super) async fn let_go(&self) -> Result<(), Trouble> {
        let id = self.work.restore.view.id;
        Ok(within_deadline(async { let_go(&mut *self.engine.ledger.acquire().await?, id).await }).await?)
    }

    fn explain(&self, error: PostgresError) -> Trouble {
        if error.sqlstate() == Some("55006") {
            return Trouble::again(format!(
                "somebody is connected whose session pgtenant may not end (a superuser, or a prepared transaction); end it, and \
                 the exchange is tried again: {error}"
            ));
        }
        error.into()
    }

    /// After the end: the way back that somebody wants, or the end of what was put aside.
    pub(super) async fn after(&self) -> Result<Next, Trouble> {
        if self.work.restore.undo_asked_by.is_some() { self.undo().await } else { self.drop_aside().await }
    }

    async fn undo(&self) -> Result<Next, Trouble> {
        let comes = self.beside(BesideKind::Before)?.database;
        let goes = self.beside(BesideKind::After)?;
        let server = self.cluster.server().await?;
        let mine = self.mine(&mut server.maintenance().await?).await?;
        if !mine.iter().any(|one| [BesideKind::Before, BesideKind::After].contains(&one.kind)) {
            self.let_go().await?;
            let message = format!("{comes} is not there any more: there is nothing to go back to");
            return self.aside_done(Aside::Gone, &message).await;
        }
        let exchanged = match self.exchange(&comes, &goes).await {
            // A claim that is removed takes with it what was put aside.
            Err(Trouble { kind: Kind::Final, message }) => Err(message),
            Err(trouble) if trouble.kind == Kind::LeaseLost => return Err(trouble),
            Err(trouble) if trouble.is_final(self.work.restore.attempts) => Err(trouble.message),
            Err(trouble) => {
                self.let_go().await?;
                return Err(trouble);
            }
            Ok(()) => Ok(()),
        };
        if let Err(why) = exchanged
            && !self.is_exchanged(&mut server.maintenance().await?, &goes).await?
        {
            self.let_go().await?;
            return self.aside_done(Aside::Stays, &format!("it was not gone back: {why}")).await;
        }
        self.let_go().await?;
        let keep = self.cluster.spec.restores.keep_before;
        let aside = PutAside { database: goes.database.clone(), until: Utc::now() + keep.duration() };
        let message = format!(
            "{} is as it was before the restore; what was there after it is kept as {} for {keep}",
            goes.key, goes.database
        );
        self.aside_done(Aside::Undone(&aside), &message).await
    }

    /// It was kept long enough.
    async fn drop_aside(&self) -> Result<Next, Trouble> {
        let Some(aside) = &self.work.restore.view.before else {
            let (phase, message) = (self.phase(), self.work.restore.view.message.clone().unwrap_or_default());
            let mut db = self.engine.ledger.acquire().await?;
            end_restore(&mut db, &self.work, phase, &message).await?;
            return Ok(Next::Over);
        };
        let server = self.cluster.server().await?;
        let mut session = server.maintenance().await?;
        // That one alone: where another replica has gone back meanwhile, it is there no more, and what is there is to stay.
        for one in self.mine(&mut session).await?.iter().filter(|one| one.database == aside.database) {
            drop_beside(&server, &mut session, one, &self.lease).await?;
        }
        let message = format!("{}, which was put aside, was kept long enough and is gone", aside.database);
        self.aside_done(Aside::Gone, &message).await
    }

    async fn aside_done(&self, aside: Aside<'_>, message: &str) -> Result<Next, Trouble> {
        within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            aside_done(&mut tx, &self.work, aside, message).await?;
            Ok(tx.commit().await?)
        })
        .await?;
        tracing::info!("{message}");
        Ok(Next::Over)
    }
}
