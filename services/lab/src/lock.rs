//! A folder is for one process at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Held while a process has the folder open. Released by the kernel when the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct FolderLock(File);

impl FolderLock {
    /// Refused where another process, or another part of this one, has it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", path)(source)),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough where another thread is forking a child just now: that has a copy for a moment.
        let _ = self.0.unlock();
    }
}
