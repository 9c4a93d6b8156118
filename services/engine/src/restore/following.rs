//! A move by logical replication: a copy follows the database while applications go on, so that they wait for the last changes alone.

use std::time::{Duration, Instant};

use pgtenant_ledger::{Claim, MoveStep, Wish, note_move, within_deadline};
use pgtenant_model::{LeftOut, MoveMethod, MovePhase, Tier, Verification};
use pgtenant_postgres::transfer::{Archive, Side, compare};
use pgtenant_postgres::{
    Beside, BesideKind, ErrorClass, Followed, Job, JobOptions, PostgresError, Server, cannot_publish, cannot_replicate,
    cannot_subscribe, database_comment, databases_bytes, databases_following, follow, followed, go_on_following,
    publish, server_started, slot, slots_of_first_copies, unpublish, unpublished,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::live::Live;
use super::load::{JOB_VALID, Loading, flow_of, roles};
use super::moving::Moving;
use super::moving_steps::{AROUND, left_out, passwords};
use super::prepare::check_room;
use super::source::Source;
use super::trouble::Trouble;
use super::verify::describe;
use crate::cluster::Cluster;

/// Between two looks at how far the copy is.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at a copy that follows while somebody thinks about it.
pub(super) const WATCH: Duration = Duration::from_secs(10);
/// So often it is let go on after an error before it is given up.
const MOST_ERRORS: usize = 3;
pub(super) const OTHER_SERVER: &str =
    "the server of the other cluster is another one than the copy was made on, or was started anew";
/// While it is rehearsed, the last changes are there within this time, or it does not follow.
const CATCHES_UP: Duration = Duration::from_secs(300);
/// The log that is kept for a copy, at the most: beyond that the disk of everybody's server is at stake.
const MOST_KEPT: u64 = 16 << 30;

/// What is known of a copy that follows, from when it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Following {
    pub(super) left_out: Vec<LeftOut>,
    /// The sum of the definitions that it was made with.
    definitions: String,
    /// The server that it is on. A standby that takes its place may lack changes that the source does not send again.
    pub(super) started: String,
    /// How the slots of first copies are called.
    slots: Option<String>,
}

/// A sum of all that is defined, but for what the move itself has published.
fn sum(archive: &Archive) -> String {
    let defined = archive.objects().into_iter().filter(|object| !object.is_of_move());
    let mut lines: Vec<_> =
        defined.map(|object| format!("{object}\0{}\0{}\0", object.owner, object.definition)).collect();
    lines.sort();
    let digest = Sha256::digest(format!("{}\0{}", archive.dumped_by(), lines.concat()));
    digest.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

/// Why it can not be done so.
pub(super) type Unfit = String;

/// Where the database is, and its primary.
pub(super) type From<'a> = (&'a Cluster, &'a Server);

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
        let known = self.following().ok();
        let goes_on = known.is_some() && self.still_follows(source.1).await?.is_ok();
        let begun = match known.filter(|_| goes_on) {
            Some(known) => Ok(known),
            None => self.begin_following(claim, source).await?,
        };
        let (unfit, slots) = match begun {
            Ok(known) => match self.first_copy(source.1).await? {
                Ok(tables) => return self.measure(claim, source, known, tables).await.map(Ok),
                Err(unfit) => (unfit, known.slots),
            },
            Err(unfit) => (unfit, None),
        };
        tracing::info!("it is not done by replication: {unfit}");
        unpublish(source.1, self.work.view.id, slots.as_deref()).await?;
        self.clear(&self.target.server().await?).await?;
        Ok(Err(unfit))
    }

    /// What was written down of the copy when it was made.
    pub(super) fn following(&self) -> Result<Following, Trouble> {
        let lacks = || Trouble::last("it is not written down what the copy was made with");
        let known = self.work.following.clone().ok_or_else(lacks)?;
        serde_json::from_value(known).map_err(|error| Trouble::last(error.to_string()))
    }

    /// Nothing is kept for the copy any more on the cluster that the database is on.
    pub(super) async fn stop_publishing(&self, server: &Server) -> Result<(), Trouble> {
        let slots = self.following().ok().and_then(|known| known.slots);
        Ok(unpublish(server, self.work.view.id, slots.as_deref()).await?)
    }

    /// Why the database is not as it was when the copy was made: by what `source` has read of it, and a look into it as `job`.
    pub(super) async fn changed(&self, server: &Server, job: &Job, source: &Source) -> Result<Option<Unfit>, Trouble> {
        if sum(&source.archive) != self.following()?.definitions {
            return Ok(Some("definitions were changed since the copy was made: ask for the move again".to_owned()));
        }
        let mut inside = server.log_in(&self.key()?.database(), &job.login, &job.password).await?;
        let table = unpublished(&mut inside, self.work.view.id).await?;
        Ok(table.map(|table| format!("table {table} was made anew since the copy was made: ask for the move again")))
    }

    pub(super) fn live<'a>(&'a self, source: &Cluster, server: &'a Server, claim: &'a Claim) -> Live<'a> {
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
    ) -> Result<Result<Following, Unfit>, Trouble> {
        let (key, target) = (&claim.key, self.target.server().await?);
        if let Some(foreign) = self.clear(&target).await?.into_iter().next() {
            return Err(Trouble::last(format!("on cluster {}: {foreign}", self.target.name)));
        }
        self.stop_publishing(server).await?;
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
        let definitions = sum(&definitions.archive);

        let started = server_started(&mut target.maintenance().await?).await?;
        if let Err(error) = self.subscribe(claim, server, (&target, &copy)).await {
            return unfit(error).map(Err);
        }
        // Nobody else has anything to do in it: a lock that somebody takes would hold changes up.
        loading.settle(&[loader.login, Job::follower(self.work.view.id)]).await?;
        let slots = slots_of_first_copies(&mut target.maintenance().await?, self.work.view.id).await?;
        let known = Following { left_out, definitions, started, slots };
        let following = serde_json::to_value(&known).map_err(|error| Trouble::last(error.to_string()))?;
        let step =
            MoveStep { method: Some(MoveMethod::Replication), following: Some(following), ..MoveStep::default() };
        // Before any slot is made that is found by that alone.
        self.done(MovePhase::Rehearsing, "the copy follows; rows are copied", &step).await?;
        go_on_following(&target, self.work.view.id).await?;
        Ok(Ok(known))
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
                    self.movable().await?;
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
        let Some(slot) = slot(&mut server.maintenance().await?, id, None).await? else {
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
        let started = server_started(&mut target.maintenance().await?).await?;
        if self.following().is_ok_and(|known| known.started != started) {
            return Ok(Err(OTHER_SERVER.to_owned()));
        }
        for _ in 0..MOST_ERRORS {
            match self.follows_now(&target).await? {
                None => return Ok(Err("the copy does not follow any more".to_owned())),
                Some(found) if found.enabled => return Ok(Ok(found)),
                // After any error, as a connection that was cut; a change that does not fit ends it at once again.
                Some(_) => {
                    go_on_following(&target, id).await?;
                    tokio::time::sleep(LOOK * 2).await;
                }
            }
        }
        let cluster = &self.target.name;
        Ok(Err(format!("a change could not be made to the copy: see the log of the servers of cluster {cluster}")))
    }

    async fn follows_now(&self, target: &Server) -> Result<Option<Followed>, Trouble> {
        let id = self.work.view.id;
        let database = databases_following(&mut target.maintenance().await?, id).await?.into_iter().next();
        Ok(match database {
            None => None,
            Some(database) => followed(&mut target.inside(&database).await?, id).await?,
        })
    }

    /// What the end will take, but for cutting applications off: all of it is done here, while they go on.
    async fn measure(
        &self,
        claim: &Claim,
        (source, server): From<'_>,
        Following { left_out: left, .. }: Following,
        tables: usize,
    ) -> Result<(), Trouble> {
        let (key, target) = (&claim.key, self.target.server().await?);
        let (database, own, copy) = (key.database(), database_comment(key), self.beside(BesideKind::Copy)?);
        let (comment, same) = (copy.comment(), roles(key, key));
        let loading = self.loading(&self.target, &target, claim, &copy.database, &comment);
        let loader = loading.log_in(Some(Tier::Admin)).await?;
        loading.settle(&[loader.login.clone(), Job::follower(self.work.view.id)]).await?;
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
        if self.found().await?.is_none_or(|claim| claim.wish != Wish::Present) {
            return self.decide(MovePhase::Cancelled, "the claim is not there any more").await;
        }
        let source = self.source().await?;
        match self.still_follows(&source.server().await?).await? {
            Ok(_) => Err(Trouble::later(self.work.view.message.clone().unwrap_or_default(), WATCH)),
            Err(unfit) => self.decide(MovePhase::Failed, &format!("{unfit}; it is where it was")).await,
        }
    }
}
