//! The source: one snapshot that several sessions read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use pgtenant_model::LeftOut;
use tokio_postgres::CopyOutStream;

use super::archive::{Archive, DUMP_ARGUMENTS, LIMIT};
use super::catalog::{self, Catalog};
use super::connect::{Access, Lease, Pool, Wire};
use super::part::{Part, PartKind, Relation, Rows, chunk_size, of_large_objects, split};
use super::process::Program;
use super::tools::Tools;
use super::{TransferError, sql};
use crate::error::{PostgresError, chain};
use crate::server::ServerOptions;

/// A part's data.
pub type PartStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How a database is read.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// How many sessions read at once.
    pub jobs: usize,
    /// Tables that are larger are split into parts of about so many bytes; none: as it suits their sizes and the jobs.
    pub chunk: Option<u64>,
    /// How long it is waited for somebody who changes a table's definition.
    pub lock_timeout: Duration,
    /// The server was made by recovery, or may have been: unlogged tables were emptied then, so that nothing is known of their rows
    /// (PostgreSQL 14 to 18, "CREATE TABLE").
    pub recovered: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { jobs: 2, chunk: None, lock_timeout: Duration::from_secs(60), recovered: false }
    }
}

/// A database as it is at one instant. It can be read for as long as this lives.
#[derive(Debug)]
pub struct Export {
    /// Keeps the snapshot and the locks.
    keeper: Wire,
    pub(super) pool: Arc<Pool>,
    snapshot: String,
    version: u32,
    encoding: String,
    jobs: usize,
    lock_timeout: Duration,
    parts: Vec<Part>,
    pub(super) catalog: Catalog,
}

/// Rows come one by one; they go on in pieces of about this size.
const CHUNK: usize = 128 << 10;

/// How long between two tries to get a lock.
const LOCK_RETRY: Duration = Duration::from_millis(500);

/// Tables that are locked by one statement.
const LOCKS_AT_ONCE: usize = 500;

impl Export {
    /// Connects as the login of `server` and takes a snapshot of `database`. Nobody can change the definition of a table until this
    /// is dropped; rows change as ever.
    ///
    /// # Errors
    /// The server does not let the login in; a table can not be read whole, or somebody is changing its definition.
    pub async fn begin(server: &ServerOptions, database: &str, options: &ExportOptions) -> Result<Self, TransferError> {
        let access = Access::new(server, database)?;
        // A table's size is not told while somebody changes its definition.
        let wait = sql::lock_timeout(options.lock_timeout.as_millis());
        let keeper = access.open(&format!("{wait}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await?;
        let snapshot = keeper.text("export a snapshot", "SELECT pg_export_snapshot()").await?;
        let version = keeper.text("ask for the version", "SHOW server_version_num").await?;
        let encoding = keeper.text("ask for the encoding", "SHOW server_encoding").await?;
        let standby = keeper.text("ask for the server's role", "SELECT pg_is_in_recovery()::text").await? == "true";
        let mut catalog = catalog::read(&keeper, standby || options.recovered).await?;
        let tables: Vec<Relation> = catalog.tables.iter().map(|table| table.rows.table.clone()).collect();
        for some in tables.chunks(LOCKS_AT_ONCE) {
            keeper.run("lock the tables against changes of their definitions", &sql::lock(some, true)).await?;
        }
        // What was appended before the locks were there is seen by the snapshot.
        catalog.tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        let chunk = options.chunk.unwrap_or_else(|| chunk_size(&catalog.tables, options.jobs));
        let setup = format!("{}; {}", sql::join_snapshot(&snapshot), sql::client_encoding(&encoding));
        let pool = Pool::in_transactions(access, setup, options.jobs);
        Ok(Self {
            keeper,
            pool,
            snapshot,
            version: version.parse().unwrap_or(0),
            encoding,
            jobs: options.jobs.max(1),
            lock_timeout: options.lock_timeout,
            parts: parts(&catalog, chunk),
            catalog,
        })
    }

    /// The server's `server_version_num`.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.version
    }

    /// All the data, the largest first.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    /// What is in the database and is not read.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.catalog.left_out
    }

    /// The definitions, as of the same instant.
    ///
    /// # Errors
    /// There is no `pg_dump` for this server, or it failed.
    pub async fn schema(&self, tools: &Tools) -> Result<Archive, TransferError> {
        let pg_dump = &tools.for_server(self.version)?.pg_dump;
        let mut arguments: Vec<_> = DUMP_ARGUMENTS.map(Into::into).into();
        arguments.push(format!("--snapshot={}", self.snapshot).into());
        arguments.push(format!("--encoding={}", sql::encoding_of(&self.encoding)).into());
        let access = &self.pool.access;
        let what = format!("the definitions of database {:?}", access.database);
        let server = self.version / 10_000;
        let program = Program { path: pg_dump, access, arguments, server, limit: LIMIT, what };
        let output = program.run().await?;
        if !output.success {
            let (program, status) = (pg_dump.display().to_string(), output.status);
            return Err(TransferError::Tool { program, status, stderr: brief(&output.stderr) });
        }
        Archive::from_bytes(output.stdout.into())
    }

    /// A part's data. They come as fast as they are taken; as many parts as jobs are read at once, further ones wait for
    /// their turn.
    ///
    /// # Errors
    /// The server refuses. What fails later is the last item of the stream; its inner error is a [`TransferError`]. Either
    /// way the part can be read again.
    pub async fn read(&self, part: &Part) -> Result<PartStream, TransferError> {
        match &part.kind {
            PartKind::Rows(rows) => self.read_rows(rows, &part.name).await,
            PartKind::Sequences => Ok(self.read_sequences()),
            PartKind::LargeObjects(oids) => {
                let lease = self.session().await?;
                let stream = lease.wire.client.copy_out(&sql::copy_large_objects(oids)).await;
                let stream = stream.map_err(|error| PostgresError::new(reading(&part.name), &error))?;
                Ok(pieces(lease, stream, part.name.clone()))
            }
        }
    }

    async fn read_rows(&self, rows: &Rows, name: &str) -> Result<PartStream, TransferError> {
        let lease = self.session().await?;
        self.lock(&lease.wire, rows).await?;
        let stream = lease.wire.client.copy_out(&sql::copy_out(rows)).await;
        let stream = stream.map_err(|error| PostgresError::new(reading(name), &error))?;
        Ok(pieces(lease, stream, name.to_owned()))
    }

    /// One of the sessions that see the snapshot.
    pub(super) async fn session(&self) -> Result<Lease, PostgresError> {
        let taken = self.pool.take().await;
        taken.map_err(|error| match self.keeper.client.is_closed() {
            true => PostgresError::Connection {
                what: "see the snapshot".into(),
                reason: "the session that kept it was ended; begin the export again".into(),
            },
            false => error,
        })
    }

    /// Somebody who waits to change a table's definition waits for the keeper's lock; behind him in the queue this session
    /// would wait for ever, so it never queues.
    pub(super) async fn lock(&self, wire: &Wire, rows: &Rows) -> Result<(), PostgresError> {
        let lock = sql::lock(std::slice::from_ref(&rows.table), false);
        let what = format!("lock {} against changes of its definition", sql::relation(&rows.table));
        let begun = tokio::time::Instant::now();
        loop {
            match wire.run(&what, &format!("SAVEPOINT lock; {lock}; RELEASE lock")).await {
                Err(error) if error.sqlstate() == Some("55P03") && begun.elapsed() < self.lock_timeout => {
                    wire.run(&what, "ROLLBACK TO lock").await?;
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                result => return result,
            }
        }
    }

    fn read_sequences(&self) -> PartStream {
        let line = |state| serde_json::to_string(state).map(|line| line + "\n").map_err(io::Error::other);
        let lines: io::Result<String> = self.catalog.sequences.iter().map(line).collect();
        Box::pin(futures::stream::iter([lines.map(Bytes::from)]))
    }
}

fn parts(catalog: &Catalog, chunk: u64) -> Vec<Part> {
    let mut parts: Vec<_> = catalog.tables.iter().flat_map(|table| split(table, chunk)).collect();
    parts.extend(of_large_objects(&catalog.large_objects, catalog.large_object_bytes));
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    if !catalog.sequences.is_empty() {
        parts.push(Part { name: "sequences".into(), bytes: 0, kind: PartKind::Sequences });
    }
    parts
}

/// Joins what COPY gives into pieces, and gives the session back when it has ended.
fn pieces(lease: Lease, stream: CopyOutStream, name: String) -> PartStream {
    let state = Some((lease, Box::pin(stream), BytesMut::new()));
    let pieces = futures::stream::try_unfold(state, move |state| {
        let what = reading(&name);
        async move {
            let Some((lease, mut stream, mut buffer)) = state else { return Ok(None) };
            while buffer.len() < CHUNK {
                match stream.try_next().await {
                    Ok(Some(bytes)) => buffer.extend_from_slice(&bytes),
                    Ok(None) => {
                        lease.give_back();
                        return Ok((!buffer.is_empty()).then(|| (buffer.freeze(), None)));
                    }
                    Err(error) => return Err(TransferError::from(PostgresError::new(what, &error))),
                }
            }
            let piece = buffer.split().freeze();
            buffer.reserve(CHUNK * 2);
            Ok(Some((piece, Some((lease, stream, buffer)))))
        }
    });
    Box::pin(pieces.map_err(io::Error::other).fuse())
}

fn reading(part: &str) -> String {
    format!("read {part}")
}

/// What a program said, for an error: the beginning and the end say most.
pub(super) fn brief(stderr: &str) -> String {
    const KEPT: usize = 2000;
    let clean = crate::verifier::redact(stderr.trim());
    if clean.len() <= 2 * KEPT {
        return clean;
    }
    let (begin, end) = (clean.floor_char_boundary(KEPT), clean.ceil_char_boundary(clean.len() - KEPT));
    format!("{} […] {}", &clean[..begin], &clean[end..])
}

/// The error inside what a stream ended with.
pub(super) fn cause(part: &str, error: io::Error) -> TransferError {
    tracing::debug!(error = %chain(&error), part, "a stream of a part broke");
    match error.downcast::<TransferError>() {
        Ok(inner) => inner,
        Err(source) => TransferError::Data { part: part.to_owned(), source },
    }
}
