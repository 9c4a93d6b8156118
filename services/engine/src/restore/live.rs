//! A database that is up for one restore: it is read as a dump is, part by part, from one snapshot of it.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use pgtenant_model::ClaimKey;
use pgtenant_postgres::transfer::{Export, ExportOptions};
use pgtenant_postgres::{Job, JobOptions, Server, database_comment, observe};
use uuid::Uuid;

use super::load::{JOB_VALID, job_options};
use super::source::{Contents, FORMAT, PartData, Source, StoredPart};
use super::trouble::Trouble;
use crate::Inner;

/// Where a database is up for a restore.
pub(super) struct Live<'a> {
    pub(super) engine: &'a Inner,
    /// Logged in as one who may make logins and give them the claim's roles.
    pub(super) server: &'a Server,
    pub(super) key: &'a ClaimKey,
    /// Of the restore.
    pub(super) id: Uuid,
    pub(super) jobs: usize,
    /// It is a copy of a server that was recovered from a backup: what is in no backup is not in it.
    pub(super) recovered: bool,
    /// What it is, for people: as `the snapshot rds:shared-2026-11-20`.
    pub(super) what: &'a str,
}

impl Live<'_> {
    /// Opens it, under a login that has the rights of the claim's roles and no others.
    pub(super) async fn open(&self) -> Result<Source, Trouble> {
        let Self { server, key, id, what, .. } = *self;
        let mut session = server.maintenance().await?;
        let found = observe(server, &mut session, key, &key.database(), &[]).await?;
        let lacks = || Trouble::last(format!("{what} has no database of {key}: it was made later, or dropped before"));
        let comment = found.database.ok_or_else(lacks)?.comment;
        if comment.as_deref() != Some(&database_comment(key)) {
            tracing::warn!(claim = %key, comment, "the snapshot's database of this name is another's");
            return Err(Trouble::last(format!("{what} has a database of this name that was not {key}'s")));
        }
        let options = JobOptions { login: Job::name(id), key, acts_as: None, replicates: false, valid: JOB_VALID };
        let made = Job::begin(server, &mut session, options).await;
        let job = match made {
            // There is no such role.
            Err(error) if error.sqlstate() == Some("42704") => return Err(lacks()),
            made => made?,
        };
        drop(session);
        self.read_as(&job).await
    }

    /// Opens it under a login that may read it, and counts what is in it.
    pub(super) async fn read_as(&self, job: &Job) -> Result<Source, Trouble> {
        let mut source = self.open_as(job).await?;
        source.contents.inventory = source.count().await?;
        Ok(source)
    }

    /// Opens it under a login that may read it; of its rows nothing is known yet.
    pub(super) async fn open_as(&self, job: &Job) -> Result<Source, Trouble> {
        let Self { engine, server, key, jobs, recovered, .. } = *self;
        let options = ExportOptions { jobs, recovered, ..ExportOptions::default() };
        let export = Arc::new(Export::begin(&job_options(server, job), &key.database(), &options).await?);
        let archive = export.schema(&engine.tools).await?;
        let part = |part: &_| StoredPart { stored: String::new(), part: Clone::clone(part) };
        let contents = Contents {
            format: FORMAT,
            parts: export.parts().iter().map(part).collect(),
            inventory: export.outline(),
            left_out: export.left_out().to_vec(),
        };
        Ok(Source::live(export, archive, contents))
    }
}

/// A part's data, asked for when the first of it is taken.
pub(super) fn read(export: &Arc<Export>, part: &StoredPart) -> PartData {
    let (export, part) = (Arc::clone(export), part.part.clone());
    async move { export.read(&part).await.map_err(std::io::Error::other) }.into_stream().try_flatten().boxed()
}
