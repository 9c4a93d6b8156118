//! Where the servers' data lies, so that the servers' user can reach it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};
use crate::files;

/// For data whose own folder the servers' user can not reach. Every user may enter it.
const ELSEWHERE: &str = "/var/lib/pgtenant";

/// The folder of all nodes' folders.
#[derive(Debug)]
pub(crate) struct Place {
    /// Without symbolic links.
    pub(crate) nodes: PathBuf,
    /// Whether it lies outside the cluster's folder, behind a link.
    pub(crate) relocated: bool,
    /// Data of earlier clusters of the same folder, which nothing points to any more.
    pub(crate) orphans: Vec<PathBuf>,
}

/// `{dir}/nodes`, or a link of that name to a folder that `account` can reach. `dir` itself is opened for passing through (0711)
/// if need be; the folders above it are not ours to change.
pub(crate) fn place(dir: &Path, id: &str, account: Option<&Account>) -> Result<Place> {
    let nodes = dir.join("nodes");
    if let Ok(target) = fs::read_link(&nodes) {
        if !target.is_dir() {
            return Err(Error::Lost { link: nodes, target, dir: dir.to_path_buf() });
        }
        return Ok(Place { nodes: target, relocated: true, orphans: Vec::new() });
    }
    if let Some(account) = account {
        open_for_passing(dir)?;
        if account.blocked_on_the_way_to(dir)?.is_some() {
            return relocate(dir, &nodes, id);
        }
    }
    files::make_dir(&nodes, 0o711, None)?;
    let nodes = fs::canonicalize(&nodes).map_err(Error::io("find", &nodes))?;
    Ok(Place { nodes, relocated: false, orphans: Vec::new() })
}

fn relocate(dir: &Path, link: &Path, id: &str) -> Result<Place> {
    let mut hasher = DefaultHasher::new();
    fs::canonicalize(dir).map_err(Error::io("find", dir))?.hash(&mut hasher);
    let prefix = format!("{:08x}-", hasher.finish() >> 32);
    let elsewhere = Path::new(ELSEWHERE);
    files::make_dir(elsewhere, 0o755, None)?;
    // Somebody with a strict umask may have made it.
    open_for_passing(elsewhere)?;
    let target = elsewhere.join(format!("{prefix}{id}"));
    let entries = fs::read_dir(elsewhere).map_err(Error::io("read", elsewhere))?.flatten();
    let same = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    let orphans = entries.map(|entry| entry.path()).filter(|path| same(path) && *path != target).collect();
    // Data that was made here while the folder could be reached.
    if link.is_dir() {
        fs::rename(link, &target).map_err(Error::io("move to where the servers' user can reach it:", link))?;
    }
    files::make_dir(&target, 0o711, None)?;
    symlink(&target, link).map_err(Error::io("create the link", link))?;
    Ok(Place { nodes: target, relocated: true, orphans })
}

fn open_for_passing(dir: &Path) -> Result<()> {
    let mode = fs::metadata(dir).map_err(Error::io("look at", dir))?.mode() & 0o7777;
    if mode & 0o011 != 0o011 {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o011)).map_err(Error::io("open", dir))?;
    }
    Ok(())
}
