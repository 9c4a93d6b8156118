//! Local servers, as `pgtenant dev` and other crates' tests use them.

mod ha;
mod haproxy;
mod helper;
mod kubernetes;
mod moto;
mod pgpool;
mod postgresql;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use helper::killed_when_up;

const DEADLINE: Duration = Duration::from_secs(30);

/// Folders of `tempfile` are 0700; a user's own folder is not, normally.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("a mode");
    dir
}
