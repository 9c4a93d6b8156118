//! Who runs the programs: PostgreSQL refuses root.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use tokio::process::Command;

use super::PgBackRestError;

/// Whose processes and files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Another one than this process's: user and group.
    other: Option<(u32, u32)>,
}

impl Account {
    /// This process's own, or, where that is root, the owner's of the folder in which servers are made.
    ///
    /// # Errors
    /// The folder is not there, or is root's as this process is.
    pub fn of(folder: &Path) -> Result<Self, PgBackRestError> {
        let found = std::fs::metadata(folder).map_err(|error| {
            PgBackRestError::Settings(format!("backups.pgbackrest.scratch: {}: {error}", folder.display()))
        })?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        if found.uid() == 0 {
            return Err(PgBackRestError::Settings(format!(
                "PostgreSQL refuses to run as root, and pgtenant runs as root: give {} to another user, as with `chown postgres`, and \
                 what is restored in it runs as that one; or run pgtenant as another user",
                folder.display()
            )));
        }
        Ok(Self { other: Some((found.uid(), found.gid())) })
    }

    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/");
        if let Some((uid, gid)) = self.other {
            command.as_std_mut().uid(uid).gid(gid);
        }
        command
    }

    /// Makes a folder that nobody else may enter.
    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.give(path)
    }

    pub(super) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        std::fs::write(path, text)?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.other {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}
