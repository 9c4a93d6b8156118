//! Puts new text in the place of a file, all of it or nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use crate::file::{self, Stamp};

/// Replaces the file at `path`, a real one without links on its way, if it still is what was read. Whoever reads the
/// folder sees the old text or the new one, also after a power failure.
pub(crate) fn replace(path: &Path, read: Stamp, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Hidden: who follows the folder does not look at it.
    let mut new = tempfile::Builder::new().prefix(".pgtenant-").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    let was = fs::symlink_metadata(path)?;
    let is = new.as_file().metadata()?;
    if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
        // Only root may give files away, and who may write the folder may own what is in it.
        let _ = fchown(new.as_file(), Some(was.uid()), Some(was.gid()));
    }
    new.as_file().set_permissions(was.permissions())?;
    new.as_file().sync_all()?;
    let real = fs::canonicalize(path)? == path;
    if !real || file::stamp(path).ok() != Some(read) {
        return Err(io::Error::other("it was changed since it was read; try again"));
    }
    new.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}
