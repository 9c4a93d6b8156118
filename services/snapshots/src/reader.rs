//! A dump that is being read.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use pgtenant_model::ClaimKey;
use tokio::task::AbortHandle;

use crate::dumps::Inner;
use crate::keys::Identities;
use crate::label::Label;
use crate::object::ObjectPath;
use crate::pipe::pipe;
use crate::resume::Download;
use crate::unpack::{Wanted, unpack};
use crate::{Manifest, SnapshotError};

/// From whom dumps are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// From holders of a private key of the identity file: what a restore takes unless somebody says otherwise.
    Sealed,
    /// From anybody who can write to the place.
    Anybody,
}

/// A dump that can be read.
pub struct DumpReader {
    inner: Arc<Inner>,
    key: ClaimKey,
    folder: ObjectPath,
    manifest: Manifest,
    identities: Identities,
}

impl std::fmt::Debug for DumpReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpReader").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DumpReader {
    pub(crate) fn new(
        inner: Arc<Inner>,
        key: ClaimKey,
        folder: ObjectPath,
        manifest: Manifest,
        identities: Identities,
    ) -> Self {
        Self { inner, key, folder, manifest, identities }
    }

    /// What is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A part, as it was stored. Several may be read at once. Only a stream that ends without an error was the whole and the
    /// right part: what came before an error is of no use. The error is a [`SnapshotError`], see [`SnapshotError::of`].
    ///
    /// # Errors
    /// There is no such part.
    pub fn read(
        &self,
        part: &str,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static, SnapshotError> {
        let entry = self.manifest.part(part).cloned().ok_or_else(|| SnapshotError::NoPart {
            location: self.inner.place.location(&self.folder),
            part: part.to_owned(),
        })?;
        let path = self.folder.part(part);
        let wanted = Wanted {
            location: self.inner.place.location(&path),
            label: Label::new(&self.manifest.cluster, &self.key, self.manifest.id, part),
            entry,
            recipients: self.manifest.recipients.clone(),
        };
        let download = Download {
            place: Arc::clone(&self.inner.place),
            path,
            length: wanted.entry.stored_bytes,
            patience: self.inner.patience,
        };
        let (stored_in, stored_out) = pipe();
        let (plain_in, plain_out) = pipe();
        let identities = self.identities.clone();
        let download = Stopped(tokio::spawn(download.run(stored_in)).abort_handle());
        // It ends when one of its pipes does.
        tokio::task::spawn_blocking(move || unpack(&wanted, &identities, stored_out, plain_in));
        Ok(Box::pin(plain_out.into_stream().map(move |item| {
            let _held = &download;
            item
        })))
    }
}

/// Stops a task when nobody wants its result any more.
struct Stopped(AbortHandle);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.abort();
    }
}
