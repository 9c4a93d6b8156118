//! A snapshot is loaded into a database of its own beside the claim's, under a login of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use pgtenant_ledger::{Claim, StepDone, Wish, note_progress, remove, within_deadline};
use pgtenant_model::{
    ClaimKey, Inventory, LeftOut, RestorePhase, RestoreProgress, SnapshotId, SnapshotKind, Source as Door, Tier,
    Verification,
};
use pgtenant_postgres::transfer::{
    Archive, Export, ExportOptions, Flow, Import, ImportOptions, PartKind, Progress, RoleMap, Scrutiny, Side, Tools,
    compare as compare_contents, copy_part,
};
use pgtenant_postgres::{
    Beside, BesideKind, Fence, Job, JobOptions, Server, ServerOptions, Session, Verifier, drop_beside, end_job, reopen,
    server_started, server_version,
};
use uuid::Uuid;

use super::machine::{Next, Restoring, Steps, to_json};
use super::prepare::check_room;
use super::source::{Source, StoredPart};
use super::trouble::{Kind, Trouble};
use super::verify::FREE;
use crate::Inner;
use crate::cluster::Cluster;

/// A job's password works for so long: far above what a copy takes, and an end for what was forgotten.
pub(super) const JOB_VALID: Duration = Duration::from_secs(7 * 86_400);
/// Between two notes of how far it is.
const NOTE: Duration = Duration::from_secs(1);

/// How far it is, and when it should be done.
fn progress(flow: &Flow) -> RestoreProgress {
    let Progress { bytes, bytes_total, tables, tables_total } = flow.progress();
    let rest = bytes_total - bytes;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let estimate = (bytes > 0 && rest > 0).then(|| flow.elapsed().mul_f64(rest as f64 / bytes as f64));
    let estimate = estimate.and_then(|rest| chrono::TimeDelta::from_std(rest).ok());
    RestoreProgress {
        bytes,
        bytes_total: Some(bytes_total),
        tables,
        tables_total: Some(tables_total),
        estimated_end: estimate.and_then(|rest| Utc::now().checked_add_signed(rest)),
    }
}

/// What flows out of a source, as fast as the cluster's rules let it.
pub(super) fn flow_of(cluster: &Cluster, parts: &[StoredPart]) -> Flow {
    Flow::new(parts.iter().map(|one| &one.part), cluster.spec.restores.bytes_per_second)
}

/// What is in a copy.
pub(super) struct Counted {
    inventory: Inventory,
    pub(super) archive: Archive,
}

impl Counted {
    pub(super) fn side(&self) -> Side<'_> {
        Side { inventory: &self.inventory, archive: &self.archive }
    }
}

/// Who loads what where.
pub(super) struct Loading<'a> {
    pub(super) engine: &'a Inner,
    pub(super) cluster: &'a Cluster,
    pub(super) server: &'a Server,
    pub(super) claim: &'a Claim,
    /// Where the data go, and whose it says it is.
    pub(super) database: &'a str,
    pub(super) comment: &'a str,
    /// Of the restore, or of the try.
    pub(super) id: Uuid,
    /// Of roles that are not on the server yet; a claim's usually are.
    pub(super) passwords: BTreeMap<Tier, Verifier>,
}

impl Loading<'_> {
    /// Makes the login of the job, which acts as a tier or with the rights of all of them. Whoever had it before is cut off.
    pub(super) async fn log_in(&self, acts_as: Option<Tier>) -> Result<Job, Trouble> {
        let mut session = self.server.maintenance().await?;
        let (key, login) = (&self.claim.key, Job::name(self.id));
        let options = JobOptions { login, key, acts_as, replicates: false, valid: JOB_VALID };
        Ok(Job::begin(self.server, &mut session, options).await?)
    }

    /// The login that fills a copy, and the copy's database, made anew.
    pub(super) async fn begin(&self, copy: &Beside) -> Result<Job, Trouble> {
        // First: it cuts off whoever still fills the former one.
        let job = self.log_in(Some(Tier::Admin)).await?;
        drop_beside(self.server, &mut self.server.maintenance().await?, copy, &FREE).await?;
        self.settle(&[]).await?;
        Ok(job)
    }

    /// Fills the copy.
    pub(super) async fn load(
        &self,
        job: &Job,
        source: &Source,
        roles: RoleMap,
        flow: &Flow,
    ) -> Result<Vec<LeftOut>, Trouble> {
        let jobs = usize::from(self.cluster.spec.restores.jobs);
        let import = self.import(job, roles).await?;
        import.prepare(&source.archive).await?;
        let mut writes: Vec<BoxFuture<'_, Result<(), Trouble>>> = Vec::with_capacity(source.contents.parts.len());
        for part in &source.contents.parts {
            writes.push(copy_part(&import, &part.part, flow, || source.read(part)).boxed());
        }
        stream::iter(writes).buffer_unordered(jobs).try_collect::<()>().await?;
        let mut left_out = import.finish(&source.archive).await?;
        left_out.extend(source.contents.left_out.iter().cloned());
        Ok(left_out)
    }

    /// Puts sequences where they are in the source: nothing else of it is written.
    pub(super) async fn set_sequences(&self, job: &Job, source: &Source, roles: RoleMap) -> Result<(), Trouble> {
        let import = self.import(job, roles).await?;
        for part in source.contents.parts.iter().filter(|one| matches!(one.part.kind, PartKind::Sequences)) {
            let flow = Flow::new([&part.part], None);
            copy_part(&import, &part.part, &flow, || source.read(part)).await?;
        }
        Ok(())
    }

    /// Statistics of what has come since the definitions did.
    pub(super) async fn analyze(&self, job: &Job, roles: RoleMap) -> Result<(), Trouble> {
        self.import(job, roles).await?.analyze().await?;
        Ok(())
    }

    async fn import(&self, job: &Job, roles: RoleMap) -> Result<Import, Trouble> {
        let (jobs, tools) = (usize::from(self.cluster.spec.restores.jobs), Tools::clone(&self.engine.tools));
        let options = ImportOptions { admin: self.claim.key.role(Tier::Admin), roles, jobs, tools };
        Ok(Import::begin(&job_options(self.server, job), self.database, options).await?)
    }

    /// Holds the copy against what the snapshot says of itself.
    pub(super) async fn compare(
        &self,
        job: &Job,
        source: &Source,
        left_out: &[LeftOut],
        roles: &RoleMap,
    ) -> Result<Verification, Trouble> {
        let copy = self.count(job, &source.contents.inventory).await?;
        Ok(compare_contents(source.side(), copy.side(), left_out, roles))
    }

    /// What is in the copy, of which the same rows are summed up as in the source.
    pub(super) async fn count(&self, job: &Job, like: &Inventory) -> Result<Counted, Trouble> {
        let options = ExportOptions { jobs: usize::from(self.cluster.spec.restores.jobs), ..ExportOptions::default() };
        let export = Export::begin(&job_options(self.server, job), self.database, &options).await?;
        let archive = export.schema(&self.engine.tools).await?;
        let inventory = export.inventory(Scrutiny { like: Some(like), ..Scrutiny::default() }).await?;
        Ok(Counted { inventory, archive })
    }

    /// Removes the login, and a copy that nothing needs any more.
    pub(super) async fn end(&self, copy: Option<&Beside>) -> Result<(), Trouble> {
        put_away(self.server, self.id, copy, &FREE).await
    }
}

/// Removes the login of job `id`, and its copy.
pub(super) async fn put_away(
    server: &Server,
    id: Uuid,
    copy: Option<&Beside>,
    fence: &impl Fence,
) -> Result<(), Trouble> {
    let mut session = server.maintenance().await?;
    let version = server_version(&mut session).await?;
    if let Some(copy) = copy {
        drop_beside(server, &mut session, copy, fence).await?;
    }
    Ok(end_job(server, &mut session, version, &Job::name(id)).await?)
}

/// The server as a job's login reaches it.
pub(super) fn job_options(server: &Server, job: &Job) -> ServerOptions {
    ServerOptions {
        username: job.login.clone(),
        password: job.password.clone(),
        application_name: "pgtenant restore".to_owned(),
        ..server.options().clone()
    }
}

impl Restoring {
    pub(super) fn snapshot(&self) -> Result<&SnapshotId, Trouble> {
        let snapshot = self.work.restore.view.snapshot.as_ref();
        snapshot.ok_or_else(|| Trouble::last("it is not written down which snapshot is meant"))
    }

    /// Opens a snapshot of the claim's database, of whatever kind.
    pub(super) async fn open(&self, snapshot: &SnapshotId) -> Result<Source, Trouble> {
        let key = self.key()?;
        match snapshot.kind() {
            SnapshotKind::Rds => self.open_cluster_copy(&key, snapshot).await,
            SnapshotKind::PgBackRest => self.open_scratch_server(&key, snapshot).await,
            SnapshotKind::Dump => Source::open(&self.cluster, &key, snapshot).await,
        }
    }

    /// Fills the copy from the snapshot.
    pub(super) async fn copy(&self) -> Result<Next, Trouble> {
        if self.replaces() {
            return self.save_first().await;
        }
        let copy = self.beside(BesideKind::Copy)?;
        let claim = self.present(&copy.key).await?;
        let server = self.cluster.server().await?;
        let copied_on = server_started(&mut server.maintenance().await?).await?;
        let source = self.open(self.snapshot()?).await?;
        let comment = copy.comment();
        let loading = self.loading(&server, &claim, &copy.database, &comment);
        let job = loading.begin(&copy).await?;
        check_room(&self.cluster, &server, source.bytes()).await?;
        let flow = flow_of(&self.cluster, &source.contents.parts);
        let load = loading.load(&job, &source, roles(&self.key()?, &copy.key), &flow);
        let left_out = tokio::select! {
            biased;
            left_out = load => left_out?,
            never = self.tell(&flow) => match never {},
        };
        self.note(&flow).await;
        let steps = Steps { left_out, copied_on, ..self.steps()? };
        let done = StepDone::new(RestorePhase::Verifying, "the copy is compared with the snapshot");
        self.done(StepDone { output: to_json(&steps)?, ..done }).await
    }

    /// Where the primary is another one than the copy was made on, the copy is made anew: a standby that was behind lacks the end of it.
    pub(super) async fn copy_again_if_moved(&self, server: &Server) -> Result<Option<Next>, Trouble> {
        let now = server_started(&mut server.maintenance().await?).await?;
        if now == self.steps()?.copied_on {
            return Ok(None);
        }
        if self.phase() == RestorePhase::Switching {
            // The exchange may have been begun: nobody should wait for the copy.
            reopen(server, &mut server.maintenance().await?, &self.target()?).await?;
            self.let_go().await?;
        }
        let message =
            "the server is another one than the copy was made on, or was started anew: the copy is made again";
        Ok(Some(self.done(StepDone::new(RestorePhase::Copying, message)).await?))
    }

    pub(super) fn loading<'a>(
        &'a self,
        server: &'a Server,
        claim: &'a Claim,
        database: &'a str,
        comment: &'a str,
    ) -> Loading<'a> {
        let id = self.work.restore.view.id;
        let passwords = BTreeMap::new();
        Loading { engine: &self.engine, cluster: &self.cluster, server, claim, database, comment, id, passwords }
    }

    /// Tells people how far it is, for as long as it is under way.
    pub(super) async fn tell(&self, flow: &Flow) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(NOTE).await;
            self.note(flow).await;
        }
    }

    pub(super) async fn note(&self, flow: &Flow) {
        let progress = progress(flow);
        let noted = within_deadline(async {
            note_progress(&mut *self.engine.ledger.acquire().await?, &self.work, &progress).await
        });
        if let Err(error) = noted.await {
            tracing::debug!(error = ?error, "progress is not written down");
        }
    }
}

/// The claim's roles in the snapshot, and those of the claim that gets the data.
pub(super) fn roles(from: &ClaimKey, to: &ClaimKey) -> RoleMap {
    RoleMap::new(Tier::ALL.into_iter().map(|tier| (from.role(tier), to.role(tier))))
}

/// Removes what a restore needed only for itself.
pub(super) async fn clean_up(one: &Restoring) -> Result<(), Trouble> {
    let server = one.cluster.server().await?;
    let mut session = server.maintenance().await?;
    let id = one.work.restore.view.id;
    let version = server_version(&mut session).await?;
    if one.replaces() {
        one.open_again().await?;
    } else if !one.tests() {
        reopen_whole(one, &server, &mut session).await?;
    }
    one.let_go().await?;
    let succeeded = one.work.restore.outcome == Some(RestorePhase::Succeeded);
    let (copied, kept) = (one.steps()?.copy, &one.work.restore.view.before);
    for beside in one.mine(&mut session).await? {
        // What was put aside for a new database is the empty one that it was made with, if it is not kept.
        let empty = beside.kind == BesideKind::Before && copied.is_some() && kept.is_none();
        if beside.kind == BesideKind::Copy || empty {
            drop_beside(&server, &mut session, &beside, &FREE).await?;
        }
    }
    end_job(&server, &mut session, version, &Job::name(id)).await?;
    if copied.is_some() && !succeeded {
        remove_copy(one, &server).await?;
    }
    Ok(())
}

/// An exchange that was begun and not done has closed the database. One that is only half made, or is to go, stays as it is.
async fn reopen_whole(one: &Restoring, server: &Server, session: &mut Session) -> Result<(), Trouble> {
    let target = one.target()?;
    match one.present(&target).await {
        Ok(claim) if claim.roles.is_some() => Ok(reopen(server, session, &target).await?),
        Ok(_) | Err(Trouble { kind: Kind::Final, .. }) => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// The claim that was made for a restore that came to nothing goes again, unless somebody has put something into its database.
async fn remove_copy(one: &Restoring, server: &Server) -> Result<(), Trouble> {
    let target = one.target()?;
    let claim = match one.present(&target).await {
        Err(Trouble { kind: Kind::Final, .. }) => return Ok(()),
        found => found?,
    };
    if claim.wish != Wish::Present {
        return Ok(());
    }
    if claim.roles.is_some()
        && let Some(found) = one.occupant(server, &target).await?
    {
        tracing::warn!(claim = %target, found, "the copy's claim stays: somebody has put something into its database");
        return Ok(());
    }
    let actor = pgtenant_ledger::Actor::new(format!("restore:{}", one.work.restore.view.id));
    let removed = within_deadline(async {
        let mut tx = one.engine.ledger.begin().await?;
        match remove(&mut tx, &target, Door::Api, None, &actor).await {
            Ok(_) => Ok(tx.commit().await?),
            Err(pgtenant_ledger::Refused::Ledger(error)) => Err(error),
            Err(refused) => {
                tracing::warn!(claim = %target, "the copy's claim stays: {refused}");
                Ok(())
            }
        }
    });
    Ok(removed.await?)
}

impl Inner {
    /// The major version of the tools for a server.
    pub(super) async fn tools_for(&self, server: &Server) -> Result<u32, Trouble> {
        let version = server_version(&mut server.maintenance().await?).await?;
        Ok(self.tools.for_server(version.number())?.major)
    }
}
