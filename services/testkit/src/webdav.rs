//! A real WebDAV server on this machine: WsgiDAV (PyPI `wsgidav`), on 127.0.0.1 alone, with one user.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use crate::tempdir;

/// What pip is asked for. The cache's folder has the same version in its name.
const PACKAGES: [&str; 2] = ["wsgidav>=4.3,<5", "cheroot>=11,<12"];
const CACHE: &str = "pgtenant/wsgidav-4.3";

/// Serves the folder that it is given, says its port, and ends when its input does: with the process that started it.
const PROGRAM: &str = r#"
import os, sys, threading
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp
root, user, password = sys.argv[1:]
app = WsgiDAVApp({
    "provider_mapping": {"/": root},
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
    "logging": {"enable": False},
    "verbose": 0,
})
server = wsgi.Server(("127.0.0.1", 0), app, numthreads=16)
server.prepare()
print(server.bind_addr[1], flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve()
"#;

/// A running WebDAV server. It ends when this is dropped, and with this process.
#[derive(Debug)]
pub struct WebDavServer {
    url: String,
    folder: PathBuf,
    child: Child,
    _input: Option<ChildStdin>,
}

impl WebDavServer {
    /// Who may log in.
    pub const USER: &str = "pgtenant";
    /// With this password.
    pub const PASSWORD: &str = "an app password: é";

    /// Starts one with an empty folder. The first time, the server is installed into the user's cache with Python's `venv`.
    pub fn start() -> Self {
        static PYTHON: OnceLock<PathBuf> = OnceLock::new();
        let python = PYTHON.get_or_init(installed);
        let folder = tempdir::until_exit();
        let mut command = Command::new(python);
        command.args(["-c", PROGRAM]).arg(&folder).args([Self::USER, Self::PASSWORD]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("no WebDAV server: {error}"));
        let mut port = String::new();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut port));
        assert!(matches!(said, Some(Ok(1..))), "the WebDAV server ended at once");
        let input = child.stdin.take();
        Self { url: format!("http://127.0.0.1:{}", port.trim()), folder, child, _input: input }
    }

    /// Its root.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it serves, on this machine's disk.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for WebDavServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment's Python. Two processes that make it at the same time do not disturb each other.
fn installed() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let Some(cache) = cache else { panic!("neither XDG_CACHE_HOME nor HOME is set") };
    let (home, python) = (cache.join(CACHE), cache.join(CACHE).join("bin/python3"));
    if python.exists() {
        return python;
    }
    let beside = cache.join(format!("{CACHE}-{}", std::process::id()));
    let beside = beside.as_path();
    run(Command::new("python3").args(["-m", "venv"]).arg(beside));
    let mut pip = Command::new(beside.join("bin/python3"));
    run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES));
    // Where somebody else was faster, theirs is there, and as good.
    if fs::rename(beside, &home).is_err() {
        let _ = fs::remove_dir_all(beside);
    }
    python
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
