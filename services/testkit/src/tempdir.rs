//! Folders that are removed when this process ends, however it ends.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A memory file system makes a claim twice as fast, but a full one ends the tests.
const WANTED_FREE: u64 = 2 << 30;

/// Reads folders until this process ends (end of file), waits until the servers in them have ended, which the kernel told them to,
/// and removes them. The pid file of a killed server stays, so that its process is to be one of that folder.
const WATCHER: &str = r#"
trap '' INT TERM HUP
set --
while IFS= read -r dir; do set -- "$@" "$dir"; done
running() {
    for file in "$1"/nodes/*/data/postmaster.pid; do
        [ -f "$file" ] && read -r pid < "$file" || continue
        if tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$(readlink -f "${file%/postmaster.pid}")"; then return 0; fi
    done
    return 1
}
for dir do
    tries=100
    while running "$dir" && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); sleep 0.1; done
    if running "$dir"; then kill -QUIT "$pid"; sleep 1; fi
    nodes=$(readlink -f "$dir/nodes")
    # A server that was killed with this process may write until it is gone.
    rm -rf -- "$nodes" "$dir" || { sleep 1; rm -rf -- "$nodes" "$dir"; }
done
"#;

pub(crate) fn until_exit() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("pgtenant-test-").tempdir_in(base());
    let dir = dir.unwrap_or_else(|error| panic!("no temporary folder: {error}")).keep();
    let mut watcher = watcher().lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = writeln!(watcher, "{}", dir.display()) {
        panic!("nobody would remove {}: {error}", dir.display());
    }
    dir
}

fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail * stat.f_frsize > WANTED_FREE => memory.to_path_buf(),
        _ => std::env::temp_dir(),
    }
}

/// The pipe is closed when this process ends. In a group of its own, so that Ctrl-C does not end it.
fn watcher() -> &'static Mutex<ChildStdin> {
    static WATCHER_INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    WATCHER_INPUT.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let input = command.current_dir("/").process_group(0).spawn().map(|mut child| child.stdin.take());
        match input {
            Ok(Some(input)) => Mutex::new(input),
            other => panic!("no shell to remove temporary folders: {other:?}"),
        }
    })
}
