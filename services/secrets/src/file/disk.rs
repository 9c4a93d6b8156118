//! The file system below a store: one step each, relative to open directories, so that no symbolic link is followed and no
//! path leads elsewhere.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::template::Place;
use crate::Fault;
use crate::document::MAX_BYTES;

/// Writers that may be at work on one file at once, in all processes together.
const SLOTS: u8 = 8;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: Mode = Mode::RWXU;

/// The store's directory and those below it on the way to a file, open, outermost first.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) directories: Vec<Arc<OwnedFd>>,
    /// Whether the way goes all through to the file's directory.
    pub(super) complete: bool,
    /// Whether a directory was made.
    pub(super) made: bool,
}

impl Way {
    /// Opens what is there and, if `create`, makes the rest.
    pub(super) fn open(root: &Path, place: &Place, create: bool) -> Result<Option<Self>, Fault> {
        let Some((root, mut made)) = open_root(root, create)? else { return Ok(None) };
        let mut directories = vec![Arc::new(root)];
        for name in &place.directories {
            let Some(parent) = directories.last() else { break };
            let mut next = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
            if create && matches!(next, Err(Errno::NOENT)) {
                match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
                    Ok(()) => made = true,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(Fault::io("make a directory")(errno)),
                }
                next = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
            }
            match next {
                Ok(next) => directories.push(Arc::new(next)),
                Err(Errno::NOENT) if !create => {
                    return Ok(Some(Self { directories, complete: false, made }));
                }
                Err(errno) => return Err(Fault::io("open a directory")(errno)),
            }
        }
        Ok(Some(Self { directories, complete: true, made }))
    }

    /// The innermost directory that is there.
    pub(super) fn last(&self) -> Option<&Arc<OwnedFd>> {
        self.directories.last()
    }
}

/// The store's own directory may be a symbolic link: that is for whoever set it.
fn open_root(root: &Path, create: bool) -> Result<Option<(OwnedFd, bool)>, Fault> {
    let open = || rustix::fs::open(root, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
    match open() {
        Ok(fd) => return Ok(Some((fd, false))),
        Err(Errno::NOENT) if !create => return Ok(None),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(Fault::io("open the store's directory")(errno)),
    }
    let missing: Vec<&Path> = root.ancestors().take_while(|p| !p.exists()).collect();
    for path in missing.into_iter().rev() {
        match rustix::fs::mkdir(path, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::io("make the store's directory")(errno)),
        }
        let parent = path.parent().unwrap_or(path);
        let parent = rustix::fs::open(parent, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())
            .map_err(Fault::io("open the parent of the store's directory"))?;
        sync(&parent)?;
    }
    open().map(|fd| Some((fd, true))).map_err(Fault::io("open the store's directory"))
}

/// Makes a directory's entries durable.
pub(super) fn sync(directory: &OwnedFd) -> Result<(), Fault> {
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(directory)) {
        // Some network file systems have no fsync of directories: their entries are durable at once.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(Fault::io("sync the directory")(errno)),
    }
}

/// A file, read. Not `Debug`: there is a password in it.
pub(super) struct Content {
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) mode: Mode,
}

/// Reads a file of at most [`MAX_BYTES`]; `None` when there is none.
pub(super) fn read(directory: &OwnedFd, file: &str) -> Result<Option<Content>, Fault> {
    let fd = match rustix::fs::openat(directory, file, READ, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Fault::Broken("a symbolic link".to_owned())),
        Err(Errno::NXIO) => return Err(Fault::Broken("not a regular file".to_owned())),
        Err(errno) => return Err(Fault::io("open")(errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(Fault::io("look at the file"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Fault::Broken("not a regular file".to_owned()));
    }
    let too_long = || Fault::Broken(format!("more than {MAX_BYTES} bytes"));
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > MAX_BYTES {
        return Err(too_long());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(size + 1));
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    File::from(fd).take(limit).read_to_end(&mut text).map_err(|source| Fault::Io { step: "read", source })?;
    if text.len() > MAX_BYTES {
        return Err(too_long());
    }
    Ok(Some(Content { text, mode: Mode::from_raw_mode(stat.st_mode) }))
}

/// A file that is written and durable under a temporary name. Dropped before [`Staged::commit`], it is gone.
///
/// Its lock says that its writer lives: what has a temporary name and no lock was left by a kill.
#[derive(Debug)]
pub(super) struct Staged {
    directory: Arc<OwnedFd>,
    temporary: Option<String>,
    file: String,
    /// Holds the lock.
    _locked: File,
}

impl Staged {
    /// Writes `text` beside `file`.
    pub(super) fn write(directory: &Arc<OwnedFd>, file: &str, text: &[u8]) -> Result<Self, Fault> {
        let (temporary, locked) = create(directory, file)?;
        let mut staged = Self {
            directory: Arc::clone(directory),
            temporary: Some(temporary),
            file: file.to_owned(),
            _locked: locked,
        };
        let io = |step| move |source| Fault::Io { step, source };
        staged._locked.write_all(text).map_err(io("write"))?;
        staged._locked.sync_all().map_err(io("sync"))?;
        Ok(staged)
    }

    /// Puts it in the file's place; durable once the directory is synced.
    pub(super) fn commit(mut self) -> Result<(), Fault> {
        if let Some(temporary) = &self.temporary {
            rustix::fs::renameat(&self.directory, temporary, &self.directory, &self.file)
                .map_err(Fault::io("rename"))?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Failing leaves a file without a lock, which the next writer removes.
            let _ = rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

fn temporary_name(file: &str, slot: u8) -> String {
    format!(".{file}.{slot}.tmp")
}

/// A new, locked, empty file under the first free temporary name.
fn create(directory: &OwnedFd, file: &str) -> Result<(String, File), Fault> {
    sweep(directory, file)?;
    for slot in 0..SLOTS {
        let name = temporary_name(file, slot);
        let fd = match rustix::fs::openat(directory, &name, CREATE, FILE_MODE) {
            Ok(fd) => fd,
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(Fault::io("create")(errno)),
        };
        // Between its birth and its lock, another's sweep may have taken it for a leftover.
        let locked = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
        let stat = rustix::fs::fstat(&fd).map_err(Fault::io("look at the temporary file"))?;
        match locked {
            Ok(()) if stat.st_nlink > 0 => return Ok((name, File::from(fd))),
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(Fault::io("lock")(errno)),
        }
    }
    let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
    Err(Fault::Io { step: "find a free temporary name", source })
}

/// Removes what killed writers of `file` have left.
pub(super) fn sweep(directory: &OwnedFd, file: &str) -> Result<(), Fault> {
    for slot in 0..SLOTS {
        let name = temporary_name(file, slot);
        match rustix::fs::openat(directory, &name, READ, Mode::empty()) {
            Ok(fd) => {
                let locked = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
                if locked.is_ok() && is_at(directory, &name, &fd) {
                    remove(directory, &name)?;
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => remove(directory, &name)?,
            Err(errno) => return Err(Fault::io("open a temporary file")(errno)),
        }
    }
    Ok(())
}

/// Whether `name` still is the open file: whoever held its lock before may have renamed it.
fn is_at(directory: &OwnedFd, name: &str, fd: &OwnedFd) -> bool {
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
    matches!((there, rustix::fs::fstat(fd)), (Ok(a), Ok(b)) if identity(a) == identity(b))
}

/// Removes a file; it is no error when there is none.
pub(super) fn remove(directory: &OwnedFd, name: &str) -> Result<(), Fault> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Fault::io("remove")(errno)),
    }
}

/// Removes a directory if it is empty; says whether it is gone.
pub(super) fn remove_empty(parent: &OwnedFd, name: &str) -> bool {
    matches!(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
}
