//! A dump that is being written.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use futures::{Stream, StreamExt as _};
use pgtenant_model::ClaimKey;

use crate::dumps::Inner;
use crate::keys::Identities;
use crate::label::Label;
use crate::manifest::{FORMAT, MOST_BYTES};
use crate::object::{MANIFEST, ObjectPath, check_part};
use crate::pack::{Packed, pack};
use crate::pipe::{Gone, PipeWriter, pipe};
use crate::{DumpFacts, DumpId, Manifest, PartEntry, SnapshotError, seal};

/// Rows come one by one: they go on in pieces of this size.
const COLLECT: usize = 64 << 10;

/// A dump that is being written. It exists when [`DumpWriter::finish`] says so; dropped or killed before that, it does not, and
/// what is there of it is found by [`crate::Dumps::unfinished`].
pub struct DumpWriter {
    inner: std::sync::Arc<Inner>,
    cluster: String,
    key: ClaimKey,
    database: String,
    id: DumpId,
    folder: ObjectPath,
    /// None: the dump is not sealed.
    identities: Option<Identities>,
    /// None: it is being written.
    parts: Mutex<BTreeMap<String, Option<PartEntry>>>,
}

impl std::fmt::Debug for DumpWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpWriter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DumpWriter {
    pub(crate) fn new(
        inner: std::sync::Arc<Inner>,
        (cluster, key, database): (&str, &ClaimKey, &str),
        id: DumpId,
        identities: Option<Identities>,
    ) -> Result<Self, SnapshotError> {
        let folder = ObjectPath::dump(cluster, key, id)?;
        let (cluster, key, database) = (cluster.to_owned(), key.clone(), database.to_owned());
        Ok(Self { inner, cluster, key, database, id, folder, identities, parts: Mutex::default() })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> DumpId {
        self.id
    }

    /// Stores a part. Several are written at once by calling this several times at once. A part that fails is not there, and
    /// may be written again. Dropping the future gives the part up.
    ///
    /// # Errors
    /// The stream broke off ([`SnapshotError::Source`]), the place does not take it, or there is such a part already.
    pub async fn write(
        &self,
        part: &str,
        stream: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<PartEntry, SnapshotError> {
        check_part(part)?;
        let turn = self.begin(part)?;
        let label = Label::new(&self.cluster, &self.key, self.id, part);
        let recipients = self.inner.keys.recipients().to_vec();
        let (plain_in, plain_out) = pipe();
        let (stored_in, stored_out) = pipe();
        let path = self.folder.part(part);
        let packed = tokio::task::spawn_blocking(move || pack(&label, &recipients, plain_out, stored_in));
        let mut broken = None;
        let (packed, put) = {
            let given = pin!(async {
                feed(stream, plain_in, &mut broken).await;
                packed.await.unwrap_or_else(|error| Err(io::Error::other(error)))
            });
            let put = self.inner.place.put(&path, stored_out);
            match select(given, put).await {
                Either::Left((packed, put)) => (packed, put.await),
                Either::Right((Ok(()), given)) => (given.await, Ok(())),
                // The place does not take it: the rest of the stream is not waited for.
                Either::Right((Err(error), _)) => (Err(Gone.into()), Err(error)),
            }
        };
        if let Some(error) = broken {
            return Err(SnapshotError::Source(error));
        }
        put?;
        packed.map(|packed| turn.done(packed)).map_err(|error| {
            let message = format!("it could not be packed: {error}");
            SnapshotError::Unexpected { location: self.inner.place.location(&path), message }
        })
    }

    /// Writes the manifest: from now on the dump exists.
    ///
    /// # Errors
    /// The manifest can not be written; it may be tried again by writing a whole new dump.
    pub async fn finish(self, facts: DumpFacts) -> Result<Manifest, SnapshotError> {
        let DumpFacts { server_version, pg_dump_major, tables } = facts;
        let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        let parts: Vec<PartEntry> = parts.into_values().flatten().collect();
        let manifest = Manifest {
            format: FORMAT,
            id: self.id,
            cluster: self.cluster,
            namespace: self.key.namespace().to_owned(),
            name: self.key.name().to_owned(),
            database: self.database,
            at: self.id.at(),
            server_version,
            pg_dump_major,
            recipients: self.inner.keys.recipient_texts(),
            plain_bytes: parts.iter().map(|part| part.plain_bytes).sum(),
            stored_bytes: parts.iter().map(|part| part.stored_bytes).sum(),
            parts,
            tables,
            seal: None,
        };
        let manifest = match self.identities.as_ref().and_then(|identities| identities.all().first()) {
            Some(identity) => seal::seal(manifest, identity)?,
            None => manifest,
        };
        let path = self.folder.child(MANIFEST);
        let unexpected = |message| SnapshotError::Unexpected { location: self.inner.place.location(&path), message };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| unexpected(error.to_string()))?;
        if text.len() > MOST_BYTES {
            return Err(unexpected(format!("the manifest would have more than {MOST_BYTES} bytes: too many tables")));
        }
        self.inner.place.put_small(&path, text.into()).await?;
        Ok(manifest)
    }

    /// Gives it up, and removes what is there of it.
    ///
    /// # Errors
    /// It can not be removed now; it is found as unfinished.
    pub async fn abandon(self) -> Result<(), SnapshotError> {
        self.inner.place.remove_all(&self.folder).await
    }

    fn begin(&self, part: &str) -> Result<Turn<'_>, SnapshotError> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.contains_key(part) {
            return Err(SnapshotError::Twice(part.to_owned()));
        }
        parts.insert(part.to_owned(), None);
        Ok(Turn { parts: &self.parts, part: part.to_owned() })
    }
}

/// A part that is being written; dropped before it is done, it may be written again.
struct Turn<'a> {
    parts: &'a Mutex<BTreeMap<String, Option<PartEntry>>>,
    part: String,
}

impl Turn<'_> {
    fn done(self, packed: Packed) -> PartEntry {
        let Packed { plain_bytes, stored_bytes, sha256 } = packed;
        let entry = PartEntry { name: self.part.clone(), plain_bytes, stored_bytes, sha256 };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(self.part.clone(), Some(entry.clone()));
        entry
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.get(&self.part).is_some_and(Option::is_none) {
            parts.remove(&self.part);
        }
    }
}

/// Passes a stream on in larger pieces; `broken` is what it broke off with. When the other end goes away, it has said why.
async fn feed(
    stream: impl Stream<Item = io::Result<Bytes>> + Send,
    output: PipeWriter,
    broken: &mut Option<io::Error>,
) {
    let mut stream = pin!(stream);
    let mut collected = BytesMut::new();
    while let Some(item) = stream.next().await {
        let bytes = match item {
            Ok(bytes) => bytes,
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                *broken = Some(error);
                let _ = output.end(Err(told)).await;
                return;
            }
        };
        let sent = if collected.is_empty() && bytes.len() >= COLLECT {
            output.send(bytes).await
        } else {
            collected.extend_from_slice(&bytes);
            if collected.len() < COLLECT {
                continue;
            }
            output.send(collected.split().freeze()).await
        };
        if sent.is_err() {
            return;
        }
    }
    if output.send(collected.freeze()).await.is_ok() {
        let _ = output.end(Ok(())).await;
    }
}
