//! Reads one small text file of a folder that others write to, and may have filled with anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::tree::line_of;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: (u64, u64),
    size: u64,
    /// Grows with every write, rename and change of rights. Seconds and nanoseconds.
    pub(crate) changed: (i64, i64),
    /// When its content was last written.
    pub(crate) written: SystemTime,
}

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// There is none.
    Missing,
    /// It is being written.
    Unsettled,
    /// For people; line 0 is the whole file.
    Fault { line: u32, message: String },
}

impl Unread {
    pub(crate) fn fault(message: impl Into<String>) -> Self {
        Self::Fault { line: 0, message: message.into() }
    }

    fn io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::fault(format!("can not be read: {error}")),
        }
    }
}

/// Where a name within the folder leads.
pub(crate) fn resolve(root: &Path, path: &Path) -> Result<PathBuf, Unread> {
    let link = fs::symlink_metadata(path).map_err(|e| Unread::io(&e))?.is_symlink();
    if !link {
        return Ok(path.to_path_buf());
    }
    let target = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::fault("is a symbolic link that leads nowhere"),
        _ => Unread::io(&error),
    })?;
    if target.starts_with(root) {
        Ok(target)
    } else {
        Err(Unread::fault("is a symbolic link that leads out of the apps folder; it is not followed"))
    }
}

/// The stamp of a regular file.
pub(crate) fn stamp(path: &Path) -> Result<Stamp, Unread> {
    regular(&fs::symlink_metadata(path).map_err(|e| Unread::io(&e))?)
}

fn regular(metadata: &fs::Metadata) -> Result<Stamp, Unread> {
    if metadata.is_dir() {
        return Err(Unread::fault("is a folder and must be a file"));
    }
    if !metadata.is_file() {
        return Err(Unread::fault("is not a regular file"));
    }
    Ok(Stamp {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        written: metadata.modified().map_err(|e| Unread::io(&e))?,
    })
}

/// The text of a file that [`resolve`] has returned, and its stamp.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<(String, Stamp), Unread> {
    // Looked at before it is opened: opening a device may do something.
    stamp(path)?;
    // A pipe must not block, and a link put here since must not be followed.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let options = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let mut file = options.map_err(|e| Unread::io(&e))?;
    let before = stamp_of(&file)?;
    if before.size > max_bytes {
        return Err(Unread::fault(format!("has {} bytes; at most {max_bytes} are read", before.size)));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| Unread::io(&e))?;
    if stamp_of(&file)? != before {
        return Err(Unread::Unsettled);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, before)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            Err(Unread::Fault { line: line_of(&text, at), message: "is not UTF-8 text".to_owned() })
        }
    }
}

fn stamp_of(file: &File) -> Result<Stamp, Unread> {
    regular(&file.metadata().map_err(|e| Unread::io(&e))?)
}
