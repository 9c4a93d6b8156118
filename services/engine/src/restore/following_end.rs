//! The end of a move by logical replication: everybody is kept out, the last changes come, and what is there is compared.

use std::time::{Duration, Instant};

use pgtenant_ledger::{Claim, hold_claim, note_closed, within_deadline};
use pgtenant_model::{Tier, Verification};
use pgtenant_postgres::transfer::compare;
use pgtenant_postgres::{
    BesideKind, Job, Server, closing_position, database_comment, databases_following, go_on_following, server_started,
    slot, stop_following, take_place,
};

use super::following::{From, LOOK, OTHER_SERVER};
use super::load::roles;
use super::moving::Moving;
use super::trouble::Trouble;
use crate::cluster::Cluster;

/// Between two looks at whether the last changes are there.
const LAST_LOOK: Duration = Duration::from_millis(20);

impl Moving {
    /// Waits until the copy has all that was committed until now.
    pub(super) async fn catch_up(&self, server: &Server, within: Duration) -> Result<(), Trouble> {
        let position = closing_position(&mut server.maintenance().await?).await?;
        let (begun, mut looked) = (Instant::now(), Instant::now());
        loop {
            let found = slot(&mut server.maintenance().await?, self.work.view.id, Some(&position)).await?;
            if found.is_some_and(|slot| slot.reached) {
                return Ok(());
            }
            if looked.elapsed() > LOOK * 2 {
                self.still_follows(server).await?.map_err(Trouble::last)?;
                looked = Instant::now();
            }
            if begun.elapsed() > within {
                let seconds = within.as_secs();
                return Err(Trouble::last(format!("the copy is behind for more than {seconds} s: it can not follow")));
            }
            tokio::time::sleep(LAST_LOOK).await;
        }
    }

    /// Keeps everybody out, lets the last changes come, and compares. What is good has its name on the other cluster then.
    pub(super) async fn follow_to_the_end(&self) -> Result<Verification, Trouble> {
        let (claim, source) = (self.movable().await?, self.source().await?);
        let (server, target) = (source.server().await?, self.target.server().await?);
        let (key, id) = (&claim.key, self.work.view.id);
        if self.work.closed_at.is_some() {
            go_on_following(&target, id).await?;
        }
        let known = self.following()?;
        self.still_follows(&server).await?.map_err(Trouble::last)?;
        self.is_as_it_was(&claim, (&source, &server)).await?;
        let held = async { hold_claim(&mut *self.engine.ledger.acquire().await?, claim.id, id).await };
        if !within_deadline(held).await? {
            return Err(Trouble::wait(format!("{key} is being looked at")));
        }
        // What somebody has changed until it was held.
        let claim = self.movable().await?;
        within_deadline(async { note_closed(&mut *self.engine.ledger.acquire().await?, &self.work).await }).await?;
        let (database, own) = (key.database(), database_comment(key));
        let closing = self.loading(&source, &server, &claim, &database, &own);
        let job = closing.close(None, &[Job::follower(id)]).await?;
        self.engine.settings.faults.reach("after:move-closed").await;
        let closed_on = server_started(&mut server.maintenance().await?).await?;
        self.catch_up(&server, self.may_be_closed_for()).await?;

        // It may have got its name already, without that being written down.
        let (copy, following) =
            (self.beside(BesideKind::Copy)?, databases_following(&mut target.maintenance().await?, id).await?);
        let has_name = following.contains(&database);
        let comment = copy.comment();
        let (name, comment) = if has_name { (&database, &own) } else { (&copy.database, &comment) };
        let loading = self.loading(&self.target, &target, &claim, name, comment);
        let loader = loading.log_in(Some(Tier::Admin)).await?;
        let logins = [loader.login.clone(), Job::follower(id)];
        // A former try may have left it to its own login.
        loading.settle(&logins).await?;
        let mut read = self.live(&source, &server, &claim).open_as(&job).await?;
        if let Some(changed) = self.changed(&server, &job, &read).await? {
            return Err(Trouble::last(changed));
        }
        let (same, left) = (roles(key, key), known.left_out);
        loading.set_sequences(&loader, &read, same.clone()).await?;
        let (ours, theirs) = tokio::try_join!(read.count(), loading.count(&loader, &read.contents.inventory))?;
        read.contents.inventory = ours;
        let report = compare(read.side(), theirs.side(), &left, &same);
        let report = loading.conclude(report, left, &logins).await?;
        if !report.is_good() {
            return Ok(report);
        }
        self.engine.settings.faults.reach("after:move-copied").await;
        stop_following(&target, id).await?;
        loading.settle(&[]).await?;
        self.end_job(&target).await?;
        if !has_name {
            take_place(&target, &mut target.maintenance().await?, &copy, &self.lease).await?;
        }
        self.engine.settings.faults.reach("after:move-take-place").await;
        if server_started(&mut target.maintenance().await?).await? != known.started {
            return Err(Trouble::last(OTHER_SERVER));
        }
        self.is_still_on(&source, &closed_on).await?;
        Ok(report)
    }

    /// Before anybody is kept out.
    async fn is_as_it_was(&self, claim: &Claim, (source, server): From<'_>) -> Result<(), Trouble> {
        if self.work.closed_at.is_some() {
            return Ok(());
        }
        let (database, own) = (claim.key.database(), database_comment(&claim.key));
        let job = self.loading(source, server, claim, &database, &own).log_in(None).await?;
        let read = self.live(source, server, claim).open_as(&job).await?;
        self.changed(server, &job, &read).await?.map_or(Ok(()), |changed| Err(Trouble::last(changed)))
    }

    /// Where another server has become the primary, tenants may have written there, and nobody has closed it to them.
    pub(super) async fn is_still_on(&self, source: &Cluster, closed_on: &str) -> Result<(), Trouble> {
        let now = server_started(&mut source.server().await?.maintenance().await?).await?;
        if now == closed_on {
            return Ok(());
        }
        Err(Trouble::last(format!("cluster {} has another primary now, or it was started anew", source.name)))
    }
}
