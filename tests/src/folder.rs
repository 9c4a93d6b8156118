//! Folders that go when the test process ends, however it ends.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const WANTED_FREE: u64 = 4 << 30;

/// Reads folders until this process ends, waits until no process works in them, and removes them together with what the servers of a
/// folder that can not be entered keep elsewhere.
const WATCHER: &str = r#"
trap '' INT TERM HUP
set --
while IFS= read -r dir; do set -- "$@" "$dir"; done
busy() {
    for link in /proc/[0-9]*/cwd; do
        case $(readlink "$link" 2>/dev/null) in "$1"/*|"$2"/*) return 0 ;; esac
    done
    return 1
}
for dir do
    [ -e "$dir" ] || continue
    elsewhere=$(readlink "$dir"/cluster/nodes "$dir"/ledger/nodes "$dir"/*/cluster/nodes "$dir"/*/ledger/nodes)
    tries=100
    while busy "$dir" "${elsewhere:-/nowhere}" && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); sleep 0.1; done
    rm -rf -- "$dir" $elsewhere
done
"#;

/// A folder that every user may pass through, as a user's own normally is.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// In memory where there is room, since that makes a claim twice as fast.
    pub fn new(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("pgtenant-{prefix}-")).tempdir_in(base());
        let path = folder.expect("a temporary folder").keep();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).expect("a mode");
        let mut watcher = watcher().lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(watcher, "{}", path.display()).expect("somebody who removes temporary folders");
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Servers in it may be ending; what is left now the watcher removes.
        fs::remove_dir_all(&self.path).ok();
    }
}

fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail * stat.f_frsize > WANTED_FREE => memory.to_path_buf(),
        _ => std::env::temp_dir(),
    }
}

fn watcher() -> &'static Mutex<ChildStdin> {
    static INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    INPUT.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // It outlives this process, so nobody here waits for it.
        let spawned = command.current_dir("/").process_group(0).spawn().map(|mut child| child.stdin.take());
        Mutex::new(spawned.expect("a shell").expect("its input"))
    })
}
