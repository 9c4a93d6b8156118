//! A file in memory that child processes can open: what is in it is on no disk in clear.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Goes with its content when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryFile {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _file: File,
    #[cfg(not(target_os = "linux"))]
    _file: tempfile::NamedTempFile,
}

impl MemoryFile {
    /// Children open it anew by its path, so that each has a position of its own.
    #[cfg(target_os = "linux")]
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        let mut file = File::from(rustix::fs::memfd_create("pgtenant", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(content)?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Ok(Self { path, _file: file })
    }

    /// Where there are no such files: one that only its owner reads.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(content: &[u8]) -> io::Result<Self> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content)?;
        Ok(Self { path: file.path().to_owned(), _file: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
