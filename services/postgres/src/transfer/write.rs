//! Writing one part.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, Stream, TryStreamExt as _};
use pgtenant_model::LeftOut;
use tokio_postgres::types::{ToSql, Type};

use super::catalog::SequenceState;
use super::connect::{Lease, Wire};
use super::export::cause;
use super::import::{Import, is_refusal};
use super::large_objects::{Piece, Reader};
use super::part::{LargeObject, Part, PartKind, Rows};
use super::{TransferError, sql};
use crate::error::PostgresError;
use crate::sql::ident;

const SET_SEQUENCE: &str = "SELECT setval(format('%I.%I', $1::text, $2::text)::regclass, $3, $4)";
const PUT: &str = "SELECT lo_put($1, $2, $3)";

/// How long it is asked what became of a commit.
const ASK_FOR: Duration = Duration::from_secs(30);

pub(super) async fn write(
    import: &Import,
    part: &Part,
    stream: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<(), TransferError> {
    let stream = pin!(stream);
    let written = match &part.kind {
        PartKind::Rows(rows) => write_rows(import, rows, &part.name, stream).await,
        PartKind::Sequences => write_sequences(import, &part.name, stream).await,
        PartKind::LargeObjects(objects) => write_large_objects(import, objects, &part.name, stream).await,
    };
    match (&part.kind, written) {
        (PartKind::Rows(Rows { extension: Some(extension), .. }), Err(error)) if not_ours(&error) => {
            leave_out(import, &part.name, extension, &error);
            Ok(())
        }
        (_, written) => written,
    }
}

/// Of an extension that the target does not have, or that somebody else made there.
fn not_ours(error: &TransferError) -> bool {
    matches!(error.sqlstate(), Some("42501" | "42P01" | "3F000"))
}

fn leave_out(import: &Import, name: &str, extension: &str, error: &TransferError) {
    let remedy = format!("have whoever made extension {extension:?} copy them");
    import.leave_out(LeftOut { object: format!("content of {name}"), reason: error.to_string(), remedy });
}

type Incoming<'a> = Pin<&'a mut (dyn Stream<Item = io::Result<Bytes>> + Send)>;

async fn write_rows(import: &Import, rows: &Rows, name: &str, mut stream: Incoming<'_>) -> Result<(), TransferError> {
    let writing = |error: &tokio_postgres::Error| PostgresError::new(format!("write {name}"), error);
    let lease = import.pool.take().await?;
    let transaction = begin(&lease.wire, name).await?;
    let sink = lease.wire.client.copy_in(&sql::copy_in(rows)).await.map_err(|error| writing(&error))?;
    let mut sink = pin!(sink);
    while let Some(bytes) = stream.try_next().await.map_err(|error| cause(name, error))? {
        if sink.send(bytes).await.is_err() {
            // Why is what the server answers in the end.
            break;
        }
    }
    sink.finish().await.map_err(|error| writing(&error))?;
    commit(import, lease, transaction, name).await
}

/// Puts sequences where they were. That is no part of any transaction, and can be done again.
async fn write_sequences(import: &Import, name: &str, stream: Incoming<'_>) -> Result<(), TransferError> {
    let bytes = stream.try_fold(Vec::new(), |mut all, bytes| async move {
        all.extend_from_slice(&bytes);
        Ok(all)
    });
    let bytes = bytes.await.map_err(|error| cause(name, error))?;
    let lease = import.pool.take().await?;
    let types = [Type::TEXT, Type::TEXT, Type::INT8, Type::BOOL];
    let statement = lease.wire.client.prepare_typed(SET_SEQUENCE, &types).await;
    let statement = statement.map_err(|error| PostgresError::new("set a sequence", &error))?;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read: Result<SequenceState, _> = serde_json::from_slice(line);
        let state =
            read.map_err(|error| TransferError::Damaged { part: name.to_owned(), reason: error.to_string() })?;
        let values: [&(dyn ToSql + Sync); 4] = [&state.schema, &state.name, &state.last, &state.called];
        let what = || format!("set sequence {:?}.{:?}", state.schema, state.name);
        let set = lease.wire.client.query(&statement, &values).await;
        match (set.map_err(|error| TransferError::from(PostgresError::new(what(), &error))), &state.extension) {
            (Err(error), Some(extension)) if not_ours(&error) => leave_out(
                import,
                &format!("sequence {}.{}", ident(&state.schema), ident(&state.name)),
                extension,
                &error,
            ),
            (set, _) => drop(set?),
        }
    }
    lease.give_back();
    Ok(())
}

async fn write_large_objects(
    import: &Import,
    objects: &[LargeObject],
    name: &str,
    mut stream: Incoming<'_>,
) -> Result<(), TransferError> {
    let damaged = |reason: &str| TransferError::Damaged { part: name.to_owned(), reason: reason.to_owned() };
    let lease = import.pool.take().await?;
    let transaction = begin(&lease.wire, name).await?;
    lease.wire.run("make large objects", &sql::create_large_objects(objects)).await?;
    let statement = lease.wire.client.prepare_typed(PUT, &[Type::OID, Type::INT8, Type::BYTEA]).await;
    let statement = statement.map_err(|error| PostgresError::new("write a large object", &error))?;
    let mut reader = Reader::default();
    while let Some(bytes) = stream.try_next().await.map_err(|error| cause(name, error))? {
        let put = reader.push(&bytes).map_err(damaged)?.into_iter().map(|piece| {
            let (client, statement) = (&lease.wire.client, &statement);
            async move {
                let Piece { oid, at, bytes } = piece;
                client.query(statement, &[&oid, &at, &&bytes[..]]).await
            }
        });
        // Sent together.
        let put = futures::future::try_join_all(put).await;
        put.map_err(|error| PostgresError::new(format!("write {name}"), &error))?;
    }
    if !reader.is_complete() {
        return Err(damaged("they end too early"));
    }
    commit(import, lease, transaction, name).await?;
    let lease = import.pool.take().await?;
    for object in objects {
        say_of_large_object(import, &lease.wire, object).await?;
    }
    lease.give_back();
    Ok(())
}

/// Its comment and privileges, which can be given again.
async fn say_of_large_object(import: &Import, wire: &Wire, object: &LargeObject) -> Result<(), TransferError> {
    for statement in sql::about_large_object(object, import.roles()) {
        match wire.run("say something of a large object", &statement).await {
            Err(error) if is_refusal(&error) => {
                let (reason, remedy) = (error.to_string(), format!("run it when that is mended: {statement}"));
                import.leave_out(LeftOut {
                    object: format!("privileges on large object {}", object.oid),
                    reason,
                    remedy,
                });
            }
            said => said?,
        }
    }
    Ok(())
}

/// Begins a transaction; gives its number.
async fn begin(wire: &Wire, name: &str) -> Result<String, PostgresError> {
    wire.text(&format!("begin to write {name}"), "BEGIN; SELECT pg_current_xact_id()::text").await
}

/// Ends a transaction. If the connection breaks meanwhile, another one is asked what became of it.
async fn commit(import: &Import, lease: Lease, transaction: String, name: &str) -> Result<(), TransferError> {
    let Err(error) = lease.wire.run(&format!("commit {name}"), "COMMIT").await else {
        lease.give_back();
        return Ok(());
    };
    drop(lease);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < ASK_FOR {
        match status(import, &transaction).await.as_deref() {
            Ok("committed") => return Ok(()),
            Ok("aborted") => return Err(error.into()),
            // It is still running, or the server can not be asked now.
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    Err(TransferError::Unknown { part: name.to_owned() })
}

async fn status(import: &Import, transaction: &str) -> Result<String, PostgresError> {
    let lease = import.pool.take().await?;
    let status = lease.wire.text("ask what became of a transaction", &sql::transaction_status(transaction)).await?;
    lease.give_back();
    Ok(status)
}
