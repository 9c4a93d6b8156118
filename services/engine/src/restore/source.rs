//! Where the data comes from: a dump that is opened, or a database that is up for the restore.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use pgtenant_model::{ClaimKey, Inventory, LeftOut, SnapshotId, SnapshotKind};
use pgtenant_postgres::transfer::{Archive, Export, Part, Scrutiny, Side};
use pgtenant_snapshots::{DumpId, DumpReader, Trust};
use serde::{Deserialize, Serialize};

use super::live;
use super::trouble::Trouble;
use crate::cluster::Cluster;

/// The part that holds the definitions.
pub(super) const SCHEMA: &str = "schema";
/// The part that says what is in the others.
pub(super) const CONTENTS: &str = "contents";
/// The most that [`CONTENTS`] may be: a million tables take half of it.
const MOST_CONTENTS: usize = 512 << 20;

/// What is in a dump. It is encrypted as the data are: checksums of short tables would tell what is in them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Contents {
    /// Grows when an earlier version could not read it.
    pub(super) format: u32,
    pub(super) parts: Vec<StoredPart>,
    pub(super) inventory: Inventory,
    /// What was in the database and could not be read.
    pub(super) left_out: Vec<LeftOut>,
}

pub(super) const FORMAT: u32 = 1;

/// A part and the name under which it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPart {
    pub(super) stored: String,
    pub(super) part: Part,
}

/// A part's data, or why they end.
pub(super) type PartData = BoxStream<'static, io::Result<Bytes>>;

/// A snapshot that is opened.
pub(super) struct Source {
    reader: Reader,
    pub(super) archive: Archive,
    pub(super) contents: Contents,
}

/// Where the data of parts come from.
enum Reader {
    /// A dump: each part is a file.
    Dump(Box<DumpReader>),
    /// A database that is up for the restore: one snapshot of it.
    Live(Arc<Export>),
}

impl Source {
    /// A database that is up for the restore.
    pub(super) fn live(export: Arc<Export>, archive: Archive, contents: Contents) -> Self {
        Self { reader: Reader::Live(export), archive, contents }
    }

    /// Opens a dump of the claim's database.
    pub(super) async fn open(cluster: &Cluster, key: &ClaimKey, snapshot: &SnapshotId) -> Result<Self, Trouble> {
        if snapshot.kind() != SnapshotKind::Dump {
            return Err(Trouble::last(format!("{snapshot} is of a whole cluster: it is opened by restoring from it")));
        }
        let unconfigured = || Trouble::last("the cluster has no backups.dumps: nothing can be restored from a dump");
        let dumps = cluster.dumps.as_ref().ok_or_else(unconfigured)?;
        let id: DumpId =
            snapshot.name().parse().map_err(|_| Trouble::last(format!("{snapshot} is not the name of a dump")))?;
        let reader = dumps.open(&cluster.name, key, id, Trust::Sealed).await?;
        let schema = collect(reader.read(SCHEMA)?, usize::MAX).await?;
        let archive = Archive::from_bytes(schema)?;
        let contents = collect(reader.read(CONTENTS)?, MOST_CONTENTS).await?;
        let contents: Contents = serde_json::from_slice(&contents)
            .map_err(|error| Trouble::last(format!("{snapshot}: its contents can not be read: {error}")))?;
        if contents.format != FORMAT {
            let format = contents.format;
            return Err(Trouble::last(format!("{snapshot} has format {format}, and this pgtenant knows {FORMAT}")));
        }
        Ok(Self { reader: Reader::Dump(Box::new(reader)), archive, contents })
    }

    pub(super) fn side(&self) -> Side<'_> {
        Side { inventory: &self.contents.inventory, archive: &self.archive }
    }

    /// Counts what is in it, where that is a database that is up; a dump says it.
    pub(super) async fn count(&self) -> Result<Inventory, Trouble> {
        match &self.reader {
            Reader::Dump(_) => Ok(self.contents.inventory.clone()),
            Reader::Live(export) => Ok(export.inventory(Scrutiny::default()).await?),
        }
    }

    /// Bytes that its rows take on a server, without indexes.
    pub(super) fn bytes(&self) -> u64 {
        let Inventory { tables, large_objects, .. } = &self.contents.inventory;
        tables.iter().map(|table| table.bytes).sum::<u64>().saturating_add(large_objects.bytes)
    }

    /// Reads all of it, to know that it is there and whole.
    pub(super) async fn read_through(&self) -> Result<(), Trouble> {
        for part in &self.contents.parts {
            let mut data = self.read(part)?;
            while data.try_next().await.map_err(trouble)?.is_some() {}
        }
        Ok(())
    }

    /// A part's data.
    pub(super) fn read(&self, part: &StoredPart) -> Result<PartData, Trouble> {
        Ok(match &self.reader {
            Reader::Dump(reader) => reader.read(&part.stored)?.boxed(),
            Reader::Live(export) => live::read(export, part),
        })
    }
}

async fn collect(stream: impl Stream<Item = io::Result<Bytes>>, most: usize) -> Result<Bytes, Trouble> {
    let mut stream = std::pin::pin!(stream);
    let mut all = BytesMut::new();
    while let Some(piece) = stream.try_next().await.map_err(trouble)? {
        if all.len() + piece.len() > most {
            return Err(Trouble::last(format!("more than {most} bytes, where only a list was expected")));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// What a stream of a dump ended with.
pub(super) fn trouble(error: io::Error) -> Trouble {
    match pgtenant_snapshots::SnapshotError::of(&error) {
        Some(known) if known.is_retryable() => Trouble::again(known.explain()),
        Some(known) => Trouble::last(known.explain()),
        None => Trouble::again(error.to_string()),
    }
}
