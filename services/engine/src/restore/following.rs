//! A move by logical replication: the copy follows the database while applications go on, so that they wait for the last changes alone.

use std::time::{Duration, Instant};

use pgtenant_ledger::{Claim, MoveStep, hold_claim, note_closed, note_move, within_deadline};
use pgtenant_model::{LeftOut, MoveMethod, MovePhase, Tier, Verification};
use pgtenant_postgres::transfer::{Side, compare};
use pgtenant_postgres::{
    Beside, BesideKind, ErrorClass, Followed, Job, JobOptions, PostgresError, Server, cannot_publish, cannot_replicate,
    cannot_subscribe, closing_position, database_comment, databases_bytes, databases_following, follow, followed,
    go_on_following, publish, server_started, slot, stop_following, take_place, unpublish,
};

use super::live::Live;
use super::load::{JOB_VALID, Loading, flow_of, roles};
use super::moving::Moving;
use super::moving_steps::{AROUND, left_out, passwords};
use super::prepare::check_room;
use super::trouble::Trouble;
use super::verify::describe;
use crate::cluster::Cluster;

/// Between two looks at how far the copy is.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at a copy that follows while somebody thinks about it.
pub(super) const WATCH: Duration = Duration::from_secs(10);
/// Between two looks at whether the last changes are there.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// While it is rehearsed, the last changes are there within this time, or it does not follow.
const CATCHES_UP: Duration = Duration::from_secs(300);
/// The log that is kept for a copy, at the most: beyond that the disk of everybody's server is at stake.
const MOST_KEPT: u64 = 16 << 30;

/// Why it can not be done so.
pub(super) type Unfit = String;

/// Where the database is, and its primary.
type From<'a> = (&'a Cluster, &'a Server);

/// What a server has answered that would be answered again; others are troubles that may pass.
fn unfit(error: PostgresError) -> Result<Unfit, Trouble> {
    // The other server is not reached, or has no slot or worker free; a transaction has been open on it for too long.
    let of_the_other = |code: &str| code.starts_with("08") || code.starts_with("53") || code == "57014";
    if error.class() == ErrorClass::Refused || error.sqlstate().is_some_and(of_the_other) {
        return Ok(error.to_string());
    }
    Err(error.into())
}

impl Moving {
    /// Lets a copy follow the database, and says how long applications will wait; or why it can not follow, with nothing left of it.
    pub(super) async fn rehearse_following(
        &self,
        claim: &Claim,
        source: From<'_>,
    ) -> Result<Result<(), Unfit>, Trouble> {
        let goes_on = self.work.left_out.is_some() && self.still_follows(source.1).await?.is_ok();
        let begun = match self.work.left_out.clone().filter(|_| goes_on) {
            Some(known) => Ok(known),
            None => self.begin_following(claim, source).await?,
        };
        let copied = match begun {
            Ok(left_out) => self.first_copy(source.1).await?.map(|tables| (left_out, tables)),
            Err(unfit) => Err(unfit),
        };
        match copied {
            Ok((left_out, tables)) => self.measure(claim, source, left_out, tables).await.map(Ok),
            Err(unfit) => {
                tracing::info!("it is not done by replication: {unfit}");
                self.stop_following(source.1).await?;
                self.clear(&self.target.server().await?).await?;
                Ok(Err(unfit))
            }
        }
    }

    /// Nothing is kept for the copy any more on the cluster that the database is on.
    pub(super) async fn stop_following(&self, server: &Server) -> Result<(), Trouble> {
        Ok(unpublish(server, &self.key()?.database(), self.work.view.id).await?)
    }

    fn live<'a>(&'a self, source: &Cluster, server: &'a Server, claim: &'a Claim) -> Live<'a> {
        let (key, id, jobs) = (&claim.key, self.work.view.id, usize::from(source.spec.restores.jobs));
        Live { engine: &self.engine, server, key, id, jobs, recovered: false, what: "the cluster" }
    }

    /// What stands in the way on either cluster, or in the database. A session of `job` is in that.
    async fn obstacle(
        &self,
        server: &Server,
        target: &Server,
        database: &str,
        job: &Job,
    ) -> Result<Option<Unfit>, Trouble> {
        if let Some(unfit) = cannot_publish(&mut server.maintenance().await?).await? {
            return Ok(Some(unfit));
        }
        if let Some(unfit) = cannot_subscribe(&mut target.maintenance().await?).await? {
            return Ok(Some(unfit));
        }
        Ok(cannot_replicate(&mut server.log_in(database, &job.login, &job.password).await?).await?)
    }

    /// Makes the copy without rows, and has it follow.
    async fn begin_following(
        &self,
        claim: &Claim,
        (source, server): From<'_>,
    ) -> Result<Result<Vec<LeftOut>, Unfit>, Trouble> {
        let (key, target) = (&claim.key, self.target.server().await?);
        if let Some(foreign) = self.clear(&target).await?.into_iter().next() {
            return Err(Trouble::last(format!("on cluster {}: {foreign}", self.target.name)));
        }
        self.stop_following(server).await?;
        self.same_or_newer(server, &target).await?;
        let (database, own) = (key.database(), database_comment(key));
        let job = self.loading(source, server, claim, &database, &own).log_in(None).await?;
        if let Some(obstacle) = self.obstacle(server, &target, &database, &job).await? {
            return Ok(Err(obstacle));
        }
        let bytes = databases_bytes(&mut server.maintenance().await?).await?;
        check_room(&self.target, &target, bytes.get(&database).copied().unwrap_or_default()).await?;

        let copy = self.beside(BesideKind::Copy)?;
        let comment = copy.comment();
        let loading = self.loading(&self.target, &target, claim, &copy.database, &comment);
        let loading = Loading { passwords: passwords(claim, source, server).await?, ..loading };
        // With the roles, which a login of its own is to act as.
        loading.settle(&[]).await?;
        let loader = loading.begin(&copy).await?;
        let mut definitions = self.live(source, server, claim).open_as(&job).await?;
        definitions.contents.parts.clear();
        let (same, flow) = (roles(key, key), flow_of(&self.target, &[]));
        let left_out = loading.load(&loader, &definitions, same, &flow).await?;
        drop(definitions);

        if let Err(error) = self.subscribe(claim, server, (&target, &copy)).await {
            return unfit(error).map(Err);
        }
        let step =
            MoveStep { method: Some(MoveMethod::Replication), left_out: Some(left_out.clone()), ..MoveStep::default() };
        self.done(MovePhase::Rehearsing, "the copy follows; rows are copied", &step).await?;
        Ok(Ok(left_out))
    }

    async fn subscribe(
        &self,
        claim: &Claim,
        server: &Server,
        (target, copy): (&Server, &Beside),
    ) -> Result<(), PostgresError> {
        let (key, id) = (&claim.key, self.work.view.id);
        let login =
            |replicates| JobOptions { login: Job::follower(id), key, acts_as: None, replicates, valid: JOB_VALID };
        let follower = Job::begin(server, &mut server.maintenance().await?, login(true)).await?;
        let owner = Job::begin(target, &mut target.maintenance().await?, login(false)).await?;
        publish(server, &key.database(), &follower, id).await?;
        follow(target, &copy.database, &owner, (server.options(), &key.database(), &follower), id).await
    }

    /// Until the rows of every table are there. Says of how many.
    async fn first_copy(&self, server: &Server) -> Result<Result<usize, Unfit>, Trouble> {
        let mut told = Instant::now();
        loop {
            match self.still_follows(server).await? {
                Err(unfit) => return Ok(Err(unfit)),
                Ok(Followed { tables, ready, .. }) if tables == ready => return Ok(Ok(tables)),
                Ok(Followed { tables, ready, .. }) if told.elapsed() > LOOK * 4 => {
                    let message = format!("the copy follows; the rows of {ready} of {tables} tables are copied");
                    within_deadline(async {
                        note_move(&mut *self.engine.ledger.acquire().await?, &self.work, &message).await
                    })
                    .await?;
                    told = Instant::now();
                }
                Ok(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How far the copy is; or why it follows no more.
    pub(super) async fn still_follows(&self, server: &Server) -> Result<Result<Followed, Unfit>, Trouble> {
        let id = self.work.view.id;
        let Some(slot) = slot(&mut server.maintenance().await?, id, "0/0").await? else {
            return Ok(Err("its replication slot is gone, as after a failover".to_owned()));
        };
        if slot.lost {
            return Ok(Err("the server does not keep its log for long enough: see max_slot_wal_keep_size".to_owned()));
        }
        if slot.kept > MOST_KEPT {
            return Ok(Err(format!(
                "it is behind: the server keeps {} GB of its log for it, and {} are the most",
                slot.kept >> 30,
                MOST_KEPT >> 30
            )));
        }
        let target = self.target.server().await?;
        let database = databases_following(&mut target.maintenance().await?, id).await?.into_iter().next();
        let found = match database {
            None => None,
            Some(database) => followed(&mut target.inside(&database).await?, id).await?,
        };
        Ok(match found {
            None => Err("the copy does not follow any more".to_owned()),
            Some(Followed { enabled: false, .. }) => Err(format!(
                "a change could not be made to the copy: see the log of the servers of cluster {}",
                self.target.name
            )),
            Some(found) => Ok(found),
        })
    }

    /// What the end will take, but for cutting applications off: all of it is done here, while they go on.
    async fn measure(
        &self,
        claim: &Claim,
        (source, server): From<'_>,
        left: Vec<LeftOut>,
        tables: usize,
    ) -> Result<(), Trouble> {
        let (key, target) = (&claim.key, self.target.server().await?);
        let (database, own, copy) = (key.database(), database_comment(key), self.beside(BesideKind::Copy)?);
        let (comment, same) = (copy.comment(), roles(key, key));
        let loading = self.loading(&self.target, &target, claim, &copy.database, &comment);
        let loader = loading.log_in(Some(Tier::Admin)).await?;
        loading.analyze(&loader, same.clone()).await?;
        let job = self.loading(source, server, claim, &database, &own).log_in(None).await?;
        let begun = Instant::now();
        self.catch_up(server, CATCHES_UP).await?;
        let read = self.live(source, server, claim).open_as(&job).await?;
        let (ours, theirs) = tokio::try_join!(read.count(), loading.count(&loader, &read.contents.inventory))?;
        let expected = begun.elapsed() + AROUND;
        drop(ours);
        // Rows come and go meanwhile; definitions do not.
        let copy = Side { archive: &theirs.archive, ..read.side() };
        let report = compare(read.side(), copy, &left, &same);
        self.end_job(&target).await?;
        self.end_job(server).await?;
        let left = self::left_out(&Verification { left_out: left, ..Verification::default() });
        if !report.is_good() {
            return self.decide(MovePhase::Failed, &format!("{}; it is where it was", describe(&report))).await;
        }
        let message = format!(
            "a copy follows: {} objects and {tables} tables are there{left}; nobody will be able to connect for about {:.1} s, once \
             somebody says yes",
            report.objects,
            expected.as_secs_f64()
        );
        let step = MoveStep {
            bytes: Some(read.bytes()),
            tables: Some(tables as u64),
            expected_gap: Some(expected.as_secs_f64()),
            due: Some(WATCH),
            ..MoveStep::default()
        };
        self.wait_for_yes(&message, step).await
    }

    /// Somebody thinks about it, and the copy follows.
    pub(super) async fn watch(&self) -> Result<(), Trouble> {
        let source = self.source().await?;
        match self.still_follows(&source.server().await?).await? {
            Ok(_) => Err(Trouble::later(self.work.view.message.clone().unwrap_or_default(), WATCH)),
            Err(unfit) => self.decide(MovePhase::Failed, &format!("{unfit}; it is where it was")).await,
        }
    }

    /// Waits until the copy has all that was committed until now.
    async fn catch_up(&self, server: &Server, within: Duration) -> Result<(), Trouble> {
        let position = closing_position(&mut server.maintenance().await?).await?;
        let begun = Instant::now();
        loop {
            let found = slot(&mut server.maintenance().await?, self.work.view.id, &position).await?;
            match found {
                Some(slot) if slot.reached => return Ok(()),
                Some(slot) if !slot.lost && begun.elapsed() < within => tokio::time::sleep(LAST_LOOK).await,
                _ => {
                    let why = self.still_follows(server).await?.err();
                    return Err(Trouble::last(why.unwrap_or_else(|| {
                        format!(
                            "the copy is behind for more than {} s: more is written than it can follow",
                            within.as_secs()
                        )
                    })));
                }
            }
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
        if let Err(unfit) = self.still_follows(&server).await? {
            return Err(Trouble::last(unfit));
        }
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
        let started = server_started(&mut target.maintenance().await?).await?;
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
        let (same, left) = (roles(key, key), self.work.left_out.clone().unwrap_or_default());
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
        if server_started(&mut target.maintenance().await?).await? != started {
            return Err(Trouble::last("the server of the other cluster is another one than the copy was made on"));
        }
        Ok(report)
    }
}
