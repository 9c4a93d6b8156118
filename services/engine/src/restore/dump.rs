//! A dump of one database, and a try of one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use metrics::{counter, histogram};
use pgtenant_ledger::{
    BackupEnd, BackupWork, Claim, Wish, claim, end_backup, note_dump, put_back_backup, renew_backup, within_deadline,
};
use pgtenant_model::{ClaimKey, InventoryTable, OperationKind, SnapshotId};
use pgtenant_postgres::transfer::{Export, ExportOptions, Part, Scrutiny};
use pgtenant_postgres::{Beside, BesideKind, Job, JobOptions, ServerOptions, end_job, server_version};
use pgtenant_snapshots::{DumpFacts, DumpId, DumpWriter, Dumps, Manifest, TableEntry};
use tracing::Instrument as _;
use uuid::Uuid;

use super::load::{JOB_VALID, Loading, flow_of, job_options, put_away, roles};
use super::prepare::check_room;
use super::schedule;
use super::source::{CONTENTS, Contents, FORMAT, SCHEMA, Source, StoredPart};
use super::trouble::{Kind, Trouble, worn_out};
use crate::Inner;
use crate::cluster::Cluster;
use crate::lease::Lease;

/// A dump or a try under work.
struct Backup {
    engine: Arc<Inner>,
    cluster: Arc<Cluster>,
    work: BackupWork,
}

/// Works on a dump or a try until it is over, has to wait, or is another replica's.
pub(super) async fn attend(engine: Arc<Inner>, cluster: Arc<Cluster>, work: BackupWork, since: Instant) {
    let span = tracing::info_span!("backup", operation = %work.operation, claim = %work.key);
    let lease = Lease::new(since, engine.settings.lease);
    let one = Backup { engine, cluster, work };
    async {
        let renew = |length| {
            let (ledger, work) = (one.engine.ledger.clone(), one.work.clone());
            async move { Ok(renew_backup(&mut *ledger.acquire().await?, &work, length).await?.then_some(())) }
        };
        let stopped = tokio::select! {
            biased;
            () = std::future::ready(()), if one.work.room => Some(()),
            () = one.attend() => return,
            stopped = lease.keep(renew) => stopped,
        };
        match stopped {
            Some(()) => one.make_room(&lease).await,
            None => {
                counter!("pgtenant_fenced_total").increment(1);
                tracing::warn!("another replica has taken it; this one stops");
            }
        }
    }
    .instrument(span)
    .await;
}

impl Backup {
    async fn attend(&self) {
        let begun = Instant::now();
        let done = match (worn_out(self.work.attempts), self.work.kind) {
            (Some(trouble), _) => Err(trouble),
            (None, OperationKind::Verify) => self.try_out().await,
            (None, _) => self.make().await,
        };
        let (end, message) = match done {
            Ok((id, message)) => (BackupEnd::Done(id), message),
            Err(Trouble { kind: Kind::LeaseLost, .. }) => return,
            Err(trouble) if trouble.is_final(self.work.attempts) => (BackupEnd::GivenUp, trouble.message),
            Err(trouble) => (BackupEnd::Again(trouble.next_try(self.work.attempts)), trouble.message),
        };
        let result = match end {
            BackupEnd::Done(_) => "succeeded",
            BackupEnd::GivenUp => "failed",
            BackupEnd::Again(_) => "retried",
        };
        let kind = if self.work.kind == OperationKind::Verify { "verify" } else { "dump" };
        counter!("pgtenant_backups_total", "cluster" => self.cluster.name.clone(), "kind" => kind, "result" => result)
            .increment(1);
        if result == "succeeded" {
            histogram!("pgtenant_backup_seconds", "cluster" => self.cluster.name.clone(), "kind" => kind)
                .record(begun.elapsed().as_secs_f64());
            tracing::info!("{message}");
        } else {
            tracing::warn!(attempts = self.work.attempts, "{message}");
        }
        let written = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            end_backup(&mut tx, &self.work, &end, &message).await?;
            Ok(tx.commit().await?)
        });
        if let Err(error) = written.await {
            tracing::warn!(error = ?error, "not written down; the lease runs out and it is done again");
        }
    }

    /// Drops what was copied for a try, and gives it back until nobody waits for a restore.
    async fn make_room(&self, lease: &Lease) {
        tracing::info!("the try waits: somebody waits for a restore");
        let copy = Beside::new(BesideKind::Copy, &self.work.key, self.work.operation);
        let dropped = async { put_away(&self.cluster.server().await?, self.work.operation, Some(&copy), lease).await };
        if let Err(trouble) = dropped.await {
            tracing::warn!("what was copied stays until the try goes on: {}", trouble.message);
        }
        let back = async { put_back_backup(&mut *self.engine.ledger.acquire().await?, &self.work).await };
        if let Err(error) = within_deadline(back).await {
            tracing::warn!(error = ?error, "not given back; the lease runs out");
        }
    }

    async fn claim(&self) -> Result<Claim, Trouble> {
        let read = async { claim(&mut *self.engine.ledger.acquire().await?, &self.work.key).await };
        let found = within_deadline(read).await?.filter(|one| one.id == self.work.claim && one.wish == Wish::Present);
        let gone = || Trouble::last(format!("the claim {} is not there any more", self.work.key));
        let claim = found.ok_or_else(gone)?;
        if claim.roles.is_none() {
            return Err(Trouble::wait(format!("the database {} is being made", self.work.key)));
        }
        Ok(claim)
    }

    async fn make(&self) -> Result<(SnapshotId, String), Trouble> {
        let (dumps, claim) = (dumps(&self.cluster)?, self.claim().await?);
        let manifest = make(&self.engine, &self.cluster, &claim, self.work.operation).await?;
        let key = &self.work.key;
        if let Err(error) = schedule::prune(&self.cluster, dumps, key).await {
            tracing::warn!("old dumps are not removed: {}", error.explain());
        }
        note(&self.engine, self.work.claim, manifest.at, false).await;
        let id = snapshot_of(&manifest)?;
        let message = format!(
            "{id}: {} tables, {} bytes, {} stored",
            manifest.tables.len(),
            manifest.plain_bytes,
            manifest.stored_bytes
        );
        if let Err(trouble) = schedule::try_in_turn(&self.engine, &self.cluster, dumps, key, &id).await {
            tracing::warn!("{id} is not tried: {}", trouble.message);
        }
        Ok((id, message))
    }

    /// Restores a dump beside the database, compares, and drops it again.
    async fn try_out(&self) -> Result<(SnapshotId, String), Trouble> {
        let snapshot = self.work.snapshot.clone().ok_or_else(|| Trouble::last("no snapshot is named"))?;
        let claim = self.claim().await?;
        let server = self.cluster.server().await?;
        let copy = Beside::new(BesideKind::Copy, &claim.key, self.work.operation);
        let source = Source::open(&self.cluster, &claim.key, &snapshot).await?;
        let (engine, cluster, id) = (&*self.engine, &*self.cluster, self.work.operation);
        let (database, comment) = (copy.database.as_str(), copy.comment());
        let (comment, passwords) = (comment.as_str(), BTreeMap::new());
        let loading = Loading { engine, cluster, server: &server, claim: &claim, database, comment, id, passwords };
        let tried = async {
            let job = loading.begin(&copy).await?;
            check_room(cluster, &server, source.bytes()).await?;
            let same = roles(&claim.key, &claim.key);
            let flow = flow_of(cluster, &source.contents.parts);
            let left_out = loading.load(&job, &source, same.clone(), &flow).await?;
            loading.compare(&job, &source, &left_out, &same).await
        };
        let tried = tried.await;
        loading.end(Some(&copy)).await?;
        let report = tried?;
        if let Some(first) = report.differences.first() {
            let message = format!("{snapshot} is not whole: {}: {}", first.object, first.message);
            return Err(Trouble::last(message));
        }
        verified(&self.engine, &self.cluster, self.work.claim, &claim.key, &snapshot).await?;
        let message = format!(
            "{snapshot} was restored and is whole: {} objects, {} tables, {} rows",
            report.objects, report.tables, report.rows
        );
        Ok((snapshot, message))
    }
}

/// Writes down that a dump was restored and is whole.
pub(super) async fn verified(
    engine: &Inner,
    cluster: &Cluster,
    claim: Uuid,
    key: &ClaimKey,
    snapshot: &SnapshotId,
) -> Result<(), Trouble> {
    let id: DumpId = snapshot.name().parse().map_err(|_| Trouble::last("is not the name of a dump"))?;
    dumps(cluster)?.mark_verified(&cluster.name, key, id, Utc::now(), "pgtenant").await?;
    note(engine, claim, id.at(), true).await;
    Ok(())
}

/// Where dumps of the cluster's databases are kept.
pub(super) fn dumps(cluster: &Cluster) -> Result<&Dumps, Trouble> {
    let unconfigured = || {
        Trouble::last(
            "the cluster has no backups.dumps, so there is no place for a dump: ask the platform team for one",
        )
    };
    cluster.dumps.as_ref().ok_or_else(unconfigured)
}

/// The snapshot that a dump is.
pub(super) fn snapshot_of(manifest: &Manifest) -> Result<SnapshotId, Trouble> {
    manifest.id.snapshot().map_err(|error| Trouble::last(error.to_string()))
}

/// How old the claim's dumps are, for metrics; it is said again by the next one.
pub(super) async fn note(engine: &Inner, claim: Uuid, at: DateTime<Utc>, verified: bool) {
    let noted = within_deadline(async { note_dump(&mut *engine.ledger.acquire().await?, claim, at, verified).await });
    if let Err(error) = noted.await {
        tracing::warn!(error = ?error, "the age of the dump is not written down");
    }
}

/// Dumps the claim's database, under the login of job `id`.
async fn make(engine: &Inner, cluster: &Cluster, claim: &Claim, id: Uuid) -> Result<Manifest, Trouble> {
    let server = cluster.server().await?;
    let mut session = server.maintenance().await?;
    let version = server_version(&mut session).await?;
    let (login, key) = (Job::name(id), &claim.key);
    let options = JobOptions { login, key, acts_as: None, replicates: false, valid: JOB_VALID };
    let job = Job::begin(&server, &mut session, options).await?;
    drop(session);
    let made = make_as(engine, cluster, claim, job_options(&server, &job)).await;
    end_job(&server, &mut server.maintenance().await?, version, &job.login).await?;
    made
}

/// Dumps the claim's database as `login`.
pub(super) async fn make_as(
    engine: &Inner,
    cluster: &Cluster,
    claim: &Claim,
    login: ServerOptions,
) -> Result<Manifest, Trouble> {
    let (database, jobs) = (claim.key.database(), usize::from(cluster.spec.restores.jobs));
    let export = Export::begin(&login, &database, &ExportOptions { jobs, ..ExportOptions::default() }).await?;
    let id = DumpId::new(Utc::now(), &mut rand::rng());
    let writer = dumps(cluster)?.begin(&cluster.name, &claim.key, &database, id).await?;
    match write(engine, cluster, &export, &writer).await {
        Ok(facts) => Ok(writer.finish(facts).await?),
        Err(trouble) => {
            writer.abandon().await.ok();
            Err(trouble)
        }
    }
}

async fn write(engine: &Inner, cluster: &Cluster, export: &Export, writer: &DumpWriter) -> Result<DumpFacts, Trouble> {
    let archive = export.schema(&engine.tools).await?;
    writer.write(SCHEMA, once(archive.bytes().clone())).await?;
    let named = |(index, part): (usize, &Part)| StoredPart { stored: format!("data-{index:05}"), part: part.clone() };
    let parts: Vec<_> = export.parts().iter().enumerate().map(named).collect();
    let flow = &flow_of(cluster, &parts);
    let mut writes: Vec<BoxFuture<'_, Result<(), Trouble>>> = Vec::with_capacity(parts.len());
    for StoredPart { stored, part } in &parts {
        let write = async move {
            writer.write(stored, flow.through(part, export.read(part).await?)).await?;
            Ok(())
        };
        writes.push(write.boxed());
    }
    stream::iter(writes).buffer_unordered(cluster.spec.restores.jobs.into()).try_collect::<()>().await?;
    let inventory = export.inventory(Scrutiny::default()).await?;
    let facts = DumpFacts {
        server_version: export.server_version(),
        pg_dump_major: archive.dumped_by(),
        tables: inventory.tables.iter().map(entry).collect(),
    };
    let contents = Contents { format: FORMAT, parts, inventory, left_out: export.left_out().to_vec() };
    let contents = serde_json::to_vec(&contents).map_err(|error| Trouble::last(error.to_string()))?;
    writer.write(CONTENTS, once(contents.into())).await?;
    Ok(facts)
}

fn entry(table: &InventoryTable) -> TableEntry {
    let InventoryTable { schema, name, rows, bytes, .. } = table.clone();
    TableEntry { schema, name, rows, bytes }
}

fn once(bytes: Bytes) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter([Ok(bytes)])
}
