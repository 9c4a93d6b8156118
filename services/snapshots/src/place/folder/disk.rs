//! The file system: one step each, relative to open directories, so that no symbolic link below the root is followed and no path
//! leads elsewhere.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rand::Rng as _;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::Entry;
use super::Directory;
use crate::SnapshotError;
use crate::object::ObjectPath;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without waiting for the other end of a named pipe that somebody has put there.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY_MODE: Mode = Mode::RWXU;

/// What the system refused, and at which step.
#[derive(Debug)]
pub(super) enum Fault {
    Io { step: &'static str, error: io::Error },
    NotThere,
    Odd(&'static str),
}

impl Fault {
    pub(super) fn io<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Self + Copy {
        move |error| Self::Io { step, error: error.into() }
    }

    pub(super) fn other(error: impl fmt::Display) -> Self {
        Self::Io { step: "run", error: io::Error::other(error.to_string()) }
    }

    pub(super) fn at(self, location: impl Into<String>) -> SnapshotError {
        let location = location.into();
        let (step, error) = match self {
            Self::Io { step, error } => (step, error),
            Self::NotThere => return SnapshotError::NotThere { location },
            Self::Odd(what) => return SnapshotError::corrupt(location, what),
        };
        let message = format!("{step}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SnapshotError::Full { location, message },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                SnapshotError::Denied { location, message }
            }
            io::ErrorKind::NotFound => SnapshotError::NotThere { location },
            io::ErrorKind::NotADirectory => {
                let message = format!("{message}; symbolic links are not followed");
                SnapshotError::Unexpected { location, message }
            }
            _ => SnapshotError::Unexpected { location, message },
        }
    }
}

/// A file that has not its name yet. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The root and those below it, down to the file's, which hold new names.
    directories: Vec<Directory>,
    beside: String,
    name: String,
    renamed: bool,
}

impl Unfinished {
    /// Gives it its name, durably; the content is synced before.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        let Some(directory) = self.directories.last() else { return Err(Fault::NotThere) };
        rustix::fs::renameat(directory, &self.beside, directory, &self.name).map_err(Fault::io("rename"))?;
        self.renamed = true;
        self.directories.iter().rev().try_for_each(|directory| sync(directory))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (false, Some(directory)) = (self.renamed, self.directories.last()) {
            // What can not be removed is found later, with the dump that was never finished.
            let _ = rustix::fs::unlinkat(directory, &self.beside, AtFlags::empty());
        }
    }
}

/// Begins a file, with the directories that it needs.
pub(super) fn create(root: &Path, path: &ObjectPath) -> Result<(Unfinished, File), Fault> {
    let (folders, name) = path.split();
    let directories = way(root, folders, true)?;
    let directory = directories.last().ok_or(Fault::NotThere)?;
    let beside = format!(".{name}.{:016x}.tmp", rand::rng().next_u64());
    let file = rustix::fs::openat(directory, &beside, CREATE, FILE_MODE).map_err(Fault::io("create"))?;
    Ok((Unfinished { directories, beside, name: name.to_owned(), renamed: false }, file.into()))
}

/// Opens a file, with its length and what changes when it does.
pub(super) fn open(root: &Path, path: &ObjectPath) -> Result<(File, u64, String), Fault> {
    let (folders, name) = path.split();
    let directories = way(root, folders, false)?;
    let directory = directories.last().ok_or(Fault::NotThere)?;
    let file = match rustix::fs::openat(directory, name, READ, Mode::empty()) {
        Err(Errno::LOOP) => return Err(Fault::Odd("it is a symbolic link, which is not followed")),
        Err(Errno::NXIO) => return Err(Fault::Odd("it is not a regular file")),
        opened => opened.map_err(Fault::io("open"))?,
    };
    let stat = rustix::fs::fstat(&file).map_err(Fault::io("look at the file"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Fault::Odd("it is not a regular file"));
    }
    let version = format!("{}-{}-{}.{}", stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    Ok((file.into(), u64::try_from(stat.st_size).unwrap_or_default(), version))
}

/// Files and directories directly below; links and all else are none.
pub(super) fn list(root: &Path, folders: &[String]) -> Result<Vec<Entry>, Fault> {
    let directories = match way(root, folders, false) {
        Err(Fault::NotThere) => return Ok(Vec::new()),
        other => other?,
    };
    let directory = directories.last().ok_or(Fault::NotThere)?;
    let mut found = Vec::new();
    for entry in Dir::read_from(directory).map_err(Fault::io("list"))? {
        let entry = entry.map_err(Fault::io("list"))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let bytes = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => None,
                    FileType::RegularFile => u64::try_from(stat.st_size).ok(),
                    _ => continue,
                };
                found.push(Entry { name: name.to_owned(), bytes });
            }
            // Somebody has removed it in the same moment.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Fault::io("list")(errno)),
        }
    }
    Ok(found)
}

/// Removes a file, durably.
pub(super) fn remove(root: &Path, path: &ObjectPath) -> Result<(), Fault> {
    let (folders, name) = path.split();
    let directories = match way(root, folders, false) {
        Err(Fault::NotThere) => return Ok(()),
        other => other?,
    };
    let directory = directories.last().ok_or(Fault::NotThere)?;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => sync(directory),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Fault::io("remove")(errno)),
    }
}

/// Removes a directory with the files in it. What a dump has no use for, as directories, stops it.
pub(super) fn remove_all(root: &Path, path: &ObjectPath) -> Result<(), Fault> {
    let directories = match way(root, path.names(), false) {
        Err(Fault::NotThere) => return Ok(()),
        other => other?,
    };
    let [.., parent, directory] = &directories[..] else { return Err(Fault::NotThere) };
    for entry in Dir::read_from(directory).map_err(Fault::io("list"))? {
        let entry = entry.map_err(Fault::io("list"))?;
        if is_dots(entry.file_name()) {
            continue;
        }
        match rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Fault::io("remove")(errno)),
        }
    }
    let (_, name) = path.split();
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => sync(parent),
        Err(errno) => Err(Fault::io("remove the directory")(errno)),
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// The root and the directories below it, open, outermost first.
fn way(root: &Path, folders: &[String], create: bool) -> Result<Vec<Directory>, Fault> {
    let mut directories = vec![Arc::new(open_root(root, create)?)];
    for name in folders {
        let parent = directories.last().ok_or(Fault::NotThere)?;
        let mut next = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        if create && matches!(next, Err(Errno::NOENT)) {
            match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Fault::io("make a directory")(errno)),
            }
            next = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        }
        match next {
            Ok(next) => directories.push(Arc::new(next)),
            Err(Errno::NOENT) => return Err(Fault::NotThere),
            Err(errno) => return Err(Fault::io("open a directory")(errno)),
        }
    }
    Ok(directories)
}

/// The root may be a symbolic link: that is for whoever set it.
fn open_root(root: &Path, create: bool) -> Result<OwnedFd, Fault> {
    let open = || rustix::fs::open(root, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
    match open() {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) if create => {}
        Err(Errno::NOENT) => return Err(Fault::NotThere),
        Err(errno) => return Err(Fault::io("open the directory")(errno)),
    }
    let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match rustix::fs::mkdir(path, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::io("make the directory")(errno)),
        }
        let parent = path.parent().unwrap_or(path);
        let parent = rustix::fs::open(parent, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
        sync(&parent.map_err(Fault::io("open the parent of the directory"))?)?;
    }
    open().map_err(Fault::io("open the directory"))
}

/// Makes a directory's entries durable.
fn sync(directory: &OwnedFd) -> Result<(), Fault> {
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(directory)) {
        // Some network file systems have no fsync of directories: their entries are durable at once.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(Fault::io("sync the directory")(errno)),
    }
}
