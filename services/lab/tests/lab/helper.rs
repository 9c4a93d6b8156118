//! A process with servers of its own, which is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::DEADLINE;

const DIR: &str = "PGTENANT_LAB_TEST_DIR";

/// Runs an ignored test, by its whole name, in a process of its own, and kills that when it says that it is up.
pub(crate) async fn killed_when_up(name: &str, dir: &Path) {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--ignored"]).env(DIR, dir);
    let mut helper = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
    let start = Instant::now();
    while !dir.join("up").exists() {
        assert!(start.elapsed() < DEADLINE, "the helper is not up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    helper.kill().expect("SIGKILL");
    helper.wait().expect("its end");
}

/// For the process itself: where its servers are to be.
pub(crate) fn dir() -> PathBuf {
    PathBuf::from(std::env::var_os(DIR).expect("started by a test"))
}

/// For the process itself: waits for its end.
pub(crate) async fn is_up(dir: &Path) {
    fs::write(dir.join("up"), "").expect("written");
    std::future::pending::<()>().await;
}
