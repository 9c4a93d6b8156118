//! What the kernel tells of processes and ports.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Process ids and command lines of all that works in `dir`: it is in the command line, or holds the working directory.
pub fn processes_in(dir: &Path) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    for pid in pids() {
        let command = read_proc(pid, "cmdline").replace('\0', " ");
        // Empty: a zombie, which is gone but for its entry.
        if command.is_empty() {
            continue;
        }
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&real));
        let names = [dir, &real].iter().any(|dir| command.contains(&*dir.to_string_lossy()));
        if works_in || names {
            found.push((pid, command));
        }
    }
    found.retain(|(pid, _)| *pid != std::process::id());
    found
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A file of a process, as `cmdline`, `environ` or `limits`; empty when the process is gone.
pub fn read_proc(pid: u32, file: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
}

/// The user id that a process runs as.
pub fn user_of(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// Whether anybody accepts connections on a port of this machine.
pub fn listens(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
}
