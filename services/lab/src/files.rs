//! Files that are whole or not there, owned by whom they are for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};

/// Writes beside the file and renames, so that readers see the old or the new one, and so that nobody's symbolic link is followed.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, owner: Option<&Account>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = path.with_file_name(name);
    remove_file(&beside)?;
    let create = || -> std::io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(Account { uid, gid, .. }) = owner {
            fchown(&file, Some(*uid), Some(*gid))?;
        }
        file.write_all(content)?;
        file.sync_data()?;
        Ok(file)
    };
    create().map_err(Error::io("write", path))?;
    fs::rename(&beside, path).map_err(Error::io("write", path))
}

/// Makes the folder, and the ones above it, unless it is there.
pub(crate) fn make_dir(dir: &Path, mode: u32, owner: Option<&Account>) -> Result<()> {
    if !dir.is_dir() {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        fs::DirBuilder::new().mode(mode).create(dir).map_err(Error::io("create", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(Error::io("create", dir))?;
    }
    if let Some(Account { uid, gid, .. }) = owner {
        chown(dir, Some(*uid), Some(*gid)).map_err(Error::io("hand over", dir))?;
    }
    Ok(())
}

/// Not being there is success.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    gone(fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// Not being there is success.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    gone(fs::remove_dir_all(path)).map_err(Error::io("remove", path))
}

/// `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The newest file of a folder.
pub(crate) fn newest(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries.max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok()).map(|entry| entry.path())
}

fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
