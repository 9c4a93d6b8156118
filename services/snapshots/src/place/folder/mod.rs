//! Dumps below a folder: directories of mode 0700, files of mode 0600, written under another name, synced, renamed, synced.

mod disk;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use pgtenant_model::{FolderPlace, InvalidField};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use self::disk::{Fault, Unfinished};
use super::{Body, BoxFuture, Entry, Opened, Place};
use crate::SnapshotError;
use crate::object::ObjectPath;
use crate::pipe::{PIECE, PipeReader};

/// A folder on this machine.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Arc<PathBuf>,
}

impl Folder {
    pub(crate) fn new(FolderPlace { directory }: &FolderPlace) -> Result<Self, InvalidField> {
        match directory.is_absolute() {
            true => Ok(Self { root: Arc::new(directory.clone()) }),
            false => Err(InvalidField::new("to.folder.directory", "use an absolute path")),
        }
    }

    /// Runs `work` on a thread where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        path: &ObjectPath,
        work: impl FnOnce(&Path, &ObjectPath) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let (root, of) = (Arc::clone(&self.root), path.clone());
        tokio::task::spawn_blocking(move || work(&root, &of))
            .await
            .unwrap_or_else(|error| Err(Fault::other(error)))
            .map_err(|fault| fault.at(self.location(path)))
    }

    async fn write(&self, path: &ObjectPath, mut body: PipeReader) -> Result<(), SnapshotError> {
        let (unfinished, file) = self.blocking(path, disk::create).await?;
        let fault = |error: std::io::Error| Fault::io("write")(error).at(self.location(path));
        let mut file = File::from_std(file);
        while let Some(piece) = body.next().await {
            file.write_all(&piece.map_err(fault)?).await.map_err(fault)?;
        }
        file.flush().await.map_err(fault)?;
        file.sync_all().await.map_err(fault)?;
        self.blocking(path, move |_, _| unfinished.finish()).await
    }
}

impl Place for Folder {
    fn location(&self, path: &ObjectPath) -> String {
        format!("{}/{path}", self.root.display())
    }

    fn put<'a>(&'a self, path: &'a ObjectPath, body: PipeReader) -> BoxFuture<'a, ()> {
        Box::pin(self.write(path, body))
    }

    fn put_small<'a>(&'a self, path: &'a ObjectPath, body: Bytes) -> BoxFuture<'a, ()> {
        let write = move |root: &Path, path: &ObjectPath| {
            let (unfinished, mut file): (Unfinished, std::fs::File) = disk::create(root, path)?;
            std::io::Write::write_all(&mut file, &body).map_err(Fault::io("write"))?;
            file.sync_all().map_err(Fault::io("sync"))?;
            unfinished.finish()
        };
        Box::pin(self.blocking(path, write))
    }

    fn get<'a>(&'a self, path: &'a ObjectPath, from: u64, version: Option<&'a str>) -> BoxFuture<'a, Opened> {
        Box::pin(async move {
            let (file, length, found) = self.blocking(path, disk::open).await?;
            let location = self.location(path);
            if version.is_some_and(|version| version != found) {
                return Err(SnapshotError::Changed { location });
            }
            let mut file = File::from_std(file);
            file.seek(std::io::SeekFrom::Start(from)).await.map_err(|error| Fault::io("read")(error).at(&location))?;
            Ok(Opened { body: pieces(file, location), length, version: Some(found) })
        })
    }

    fn list<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, Vec<Entry>> {
        Box::pin(self.blocking(folder, |root, folder| disk::list(root, folder.names())))
    }

    fn remove<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, ()> {
        Box::pin(self.blocking(path, disk::remove))
    }

    fn remove_all<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, ()> {
        Box::pin(self.blocking(folder, disk::remove_all))
    }
}

fn pieces(file: File, location: String) -> Body {
    let read = move |mut file: File| {
        let location = location.clone();
        async move {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await;
            read.map_err(|error| Fault::io("read")(error).at(location))?;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
        }
    };
    Box::pin(stream::try_unfold(file, read))
}

/// What is held open on the way to a file.
type Directory = Arc<OwnedFd>;
