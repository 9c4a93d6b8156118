//! How a move ends: what was there is put aside, or all is left as it was.

use chrono::{DateTime, Utc};
use metrics::counter;
use pgtenant_ledger::{MoveStep, MoveWork, Wish, end_move, let_go, move_done, within_deadline};
use pgtenant_model::{MoveMethod, MovePhase};
use pgtenant_postgres::{BesideKind, database_comment, drop_beside, drop_roles_alone, put_aside, unfollow};

use super::moving::Moving;
use super::trouble::{Kind, Trouble};

impl Moving {
    /// Leaves nothing of it but what is kept for a while, or nothing at all.
    pub(super) async fn clean_up(&self) -> Result<(), Trouble> {
        match self.work.outcome {
            Some(MovePhase::Succeeded) => self.finish().await,
            outcome => self.leave_as_it_was(outcome.unwrap_or(MovePhase::Failed)).await,
        }
    }

    async fn finish(&self) -> Result<(), Trouble> {
        let MoveWork { view, closed_at, .. } = &self.work;
        if view.method == Some(MoveMethod::Replication) {
            // First where the log is kept for it, whatever the other cluster says.
            match self.source().await {
                Err(Trouble { kind: Kind::Final, .. }) => {}
                source => self.stop_publishing(&source?.server().await?).await?,
            }
            unfollow(&self.target.server().await?, view.id).await?;
        }
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
        let stopped = self.stop_publishing(&server).await;
        if let Some(claim) = self.found().await?.filter(|claim| claim.roles.is_some() && claim.wish != Wish::Absent) {
            let (database, comment) = (claim.key.database(), database_comment(&claim.key));
            self.loading(&source, &server, &claim, &database, &comment).settle(&[]).await?;
        }
        self.end_job(&server).await?;
        let id = self.work.view.id;
        within_deadline(async { let_go(&mut *self.engine.ledger.acquire().await?, id).await }).await?;
        // Whatever that was, nobody is kept out for it.
        stopped?;
        if !self.is_on(&self.work.view.to).await? {
            self.clear(&self.target.server().await?).await?;
        }
        let message = self.work.ending.clone().unwrap_or_default();
        self.end(outcome, &message, None).await
    }

    async fn end(&self, outcome: MovePhase, message: &str, kept_until: Option<DateTime<Utc>>) -> Result<(), Trouble> {
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
