//! JSON files below a directory.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced: it is there completely or not at all,
//! after a kill and after a power failure. The syncs of several files run at the same time, since the disk does them together.

mod disk;
mod template;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{join_all, try_join_all};
use pgtenant_model::{Credential, CredentialTarget, FileStore, InvalidField};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::disk::{Content, FILE_MODE, Staged, Way};
use self::template::{Place, Template};
use crate::{Action, BoxFuture, Fault, Held, Removal, SecretStore, StoreError, document};

const KIND: &str = "file";

/// Tries at a directory that others remove, as empty, in the same moment.
const TRIES: usize = 32;

/// Directories that are remembered as durable; a bound for memory, far above the namespaces of a cluster.
const REMEMBERED: usize = 20_000;

/// Calls that are worked on at once: enough for the disk to sync many together. For three tiers each takes up to three threads
/// and fifteen open files, which stays far below tokio's 512 threads and the usual limit of 1024 files.
const AT_ONCE: usize = 16;

/// The store `file`: `DIRECTORY/{name}.json`, mode 0600, in directories of mode 0700.
///
/// Any number of processes may share the directory. The last writer of a file wins, and no reader ever sees a part of one.
#[derive(Debug, Clone)]
pub struct FileSecrets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    template: Template,
    /// Directories whose own entries this process knows to be durable.
    durable: Mutex<HashSet<String>>,
    at_once: Arc<Semaphore>,
}

/// A directory that holds a new name, and has to be synced for that.
type ToSync = BTreeMap<String, Arc<OwnedFd>>;

/// Held while a call is worked on.
type Turn = Arc<Option<OwnedSemaphorePermit>>;

impl FileSecrets {
    /// A store as a cluster's spec has it. Nothing is read or written: directories are made when the first file is.
    ///
    /// # Errors
    /// `directory` is not absolute, or `name` leads elsewhere or has no `{role}`.
    pub fn new(spec: &FileStore) -> Result<Self, InvalidField> {
        if !spec.directory.is_absolute() {
            let message = format!("{} is not an absolute path", spec.directory.display());
            return Err(InvalidField::new("directory", message));
        }
        let template = Template::new(&spec.name)?;
        let (durable, at_once) = (Mutex::default(), Arc::new(Semaphore::new(AT_ONCE)));
        let inner = Inner { root: spec.directory.clone(), template, durable, at_once };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits until there is room for one more call.
    async fn turn(&self) -> Turn {
        // It is never closed.
        Arc::new(Arc::clone(&self.inner.at_once).acquire_owned().await.ok())
    }

    /// Runs `work` on a blocking thread, which keeps its turn when the caller goes away; the fault names `location`.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: &Turn,
        action: Action,
        location: String,
        work: impl FnOnce(&Inner) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (inner, turn) = (Arc::clone(&self.inner), Arc::clone(turn));
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&inner)
        })
        .await
        .unwrap_or_else(|error| Err(Fault::Io { step: "run", source: io::Error::other(error) }))
        .map_err(|fault| fault.at(KIND, action, location))
    }

    async fn write(&self, entries: &[(CredentialTarget, Credential)]) -> Result<(), StoreError> {
        let turn = self.turn().await;
        let mut stages = Vec::with_capacity(entries.len());
        for (target, credential) in entries {
            let place = self.inner.template.fill(target);
            let location = place.path();
            let text = document::encode(credential)
                .map_err(|why| Fault::Broken(why).at(KIND, Action::Write, location.clone()))?;
            let turn = &turn;
            stages.push(async move {
                let staged = self
                    .blocking(turn, Action::Write, location.clone(), move |inner| inner.stage(&place, &text))
                    .await?;
                Ok::<_, StoreError>((location, staged))
            });
        }
        // All of them to their end, so that a fault of one leaves no other at work behind the caller's back.
        let mut to_sync = ToSync::new();
        for stage in join_all(stages).await {
            let (location, (staged, directories)) = stage?;
            if let Some(staged) = staged {
                self.blocking(&turn, Action::Write, location, move |_| staged.commit()).await?;
            }
            to_sync.extend(directories);
        }
        let paths: Vec<String> = to_sync.keys().cloned().collect();
        try_join_all(
            to_sync
                .into_iter()
                .map(|(path, directory)| self.blocking(&turn, Action::Write, path, move |_| disk::sync(&directory))),
        )
        .await?;
        self.inner.remember(paths);
        Ok(())
    }
}

impl SecretStore for FileSecrets {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn location(&self, target: &CredentialTarget) -> String {
        self.inner.template.fill(target).path()
    }

    fn put_many<'a>(&'a self, entries: &'a [(CredentialTarget, Credential)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.write(entries))
    }

    fn get<'a>(
        &'a self,
        target: &'a CredentialTarget,
        _expected: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Held, StoreError>> {
        let place = self.inner.template.fill(target);
        Box::pin(async move {
            let turn = self.turn().await;
            let read = self.blocking(&turn, Action::Read, place.path(), move |inner| inner.read(&place)).await?;
            Ok(read.map_or(Held::Missing, Held::Credential))
        })
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let location = self.inner.root.display().to_string();
        Box::pin(async move {
            let turn = self.turn().await;
            let look = |inner: &Inner| {
                let open = |source| Fault::Io { step: "open the store's directory", source };
                std::fs::read_dir(&inner.root).map(drop).map_err(open)
            };
            self.blocking(&turn, Action::Read, location, look).await
        })
    }

    fn delete_many<'a>(
        &'a self,
        targets: &'a [CredentialTarget],
        _removal: Removal,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let turn = self.turn().await;
            let mut ways = BTreeMap::new();
            for target in targets {
                let place = self.inner.template.fill(target);
                let found = self
                    .blocking(&turn, Action::Delete, place.path(), move |inner| {
                        Ok(inner.remove(&place)?.map(|way| (place, way)))
                    })
                    .await?;
                if let Some((place, way)) = found {
                    ways.insert(place.directory(), (place, way));
                }
            }
            try_join_all(ways.into_iter().map(|(directory, (place, way))| {
                self.blocking(&turn, Action::Delete, directory, move |inner| inner.tidy(&place, &way))
            }))
            .await
            .map(drop)
        })
    }
}

impl Inner {
    /// Writes a document under a temporary name, unless it is there already. Says which directories are to be synced.
    fn stage(&self, place: &Place, text: &Zeroizing<Vec<u8>>) -> Result<(Option<Staged>, ToSync), Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.stage_once(place, text) {
                // Somebody who deletes removed a directory that was empty for a moment.
                Err(Fault::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                result => return result,
            }
        }
    }

    fn stage_once(&self, place: &Place, text: &Zeroizing<Vec<u8>>) -> Result<(Option<Staged>, ToSync), Fault> {
        let way = Way::open(&self.root, place, true)?;
        let Some((way, directory)) = way.as_ref().and_then(|w| Some((w, w.last()?))) else {
            return Err(Fault::io("open the store's directory")(rustix::io::Errno::NOENT));
        };
        let same = matches!(
            disk::read(directory, &place.file),
            Ok(Some(Content { text: old, mode })) if old == *text && mode == FILE_MODE
        );
        let staged = match same {
            true => {
                disk::sweep(directory, &place.file)?;
                None
            }
            false => Some(Staged::write(directory, &place.file, text)?),
        };
        Ok((staged, self.to_sync(place, way)))
    }

    /// The file's directory, and those above it until one whose entry is known to be durable.
    fn to_sync(&self, place: &Place, way: &Way) -> ToSync {
        let path = |depth: usize| place.directories[..depth].join("/");
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let known = !way.made && durable.contains(&place.directory());
        let first = if known { way.directories.len() - 1 } else { 0 };
        let directories = way.directories.iter().enumerate().skip(first);
        directories.map(|(depth, fd)| (path(depth), Arc::clone(fd))).collect()
    }

    fn remember(&self, paths: Vec<String>) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() > REMEMBERED {
            durable.clear();
        }
        durable.extend(paths);
    }

    fn read(&self, place: &Place) -> Result<Option<Credential>, Fault> {
        let Some(way) = Way::open(&self.root, place, false)?.filter(|way| way.complete) else {
            return Ok(None);
        };
        let Some(directory) = way.last() else { return Ok(None) };
        match disk::read(directory, &place.file)? {
            Some(Content { text, .. }) => document::decode(&text).map(Some).map_err(Fault::Broken),
            None => Ok(None),
        }
    }

    /// Removes a file and its leftovers; the way to it, as far as there is one, is to be tidied.
    fn remove(&self, place: &Place) -> Result<Option<Way>, Fault> {
        let Some(way) = Way::open(&self.root, place, false)? else { return Ok(None) };
        if let (true, Some(directory)) = (way.complete, way.last()) {
            disk::sweep(directory, &place.file)?;
            disk::remove(directory, &place.file)?;
        }
        Ok(Some(way))
    }

    /// Removes directories that are empty now, and makes that durable.
    fn tidy(&self, place: &Place, way: &Way) -> Result<(), Fault> {
        let mut depth = way.directories.len() - 1;
        while depth > place.keep && disk::remove_empty(&way.directories[depth - 1], &place.directories[depth - 1]) {
            let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.remove(&place.directories[..depth].join("/"));
            depth -= 1;
        }
        disk::sync(&way.directories[depth])
    }
}
