//! moto, which plays Amazon on this machine (PyPI `moto[server]`): Secrets Manager and RDS over their own protocols.
//!
//! It keeps everything in memory, takes any credentials, and listens on 127.0.0.1 alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::error::{Error, Result};
use crate::files;
use crate::part::Part;
use crate::ports;
use crate::process::{Runner, last_lines};

/// What pip is asked for. The cache's folder has the same version in its name.
const PACKAGE: &str = "moto[server]>=5.2,<6";
const CACHE: &str = "pgtenant/moto-5.2";
const NAME: &str = "moto";
/// 3 s on an idle machine: Python reads many files.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// 220 MB come from the package index.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How moto is started.
#[derive(Debug, Clone)]
pub struct MotoProgram {
    program: PathBuf,
    args: Vec<String>,
}

impl MotoProgram {
    /// The one in the user's cache, which is made with Python's `venv` and pip where it is missing; where it can not be made,
    /// `moto_server` of the `PATH`. Two that make it at the same time do not disturb each other.
    ///
    /// # Errors
    /// Says what to install.
    pub async fn locate_or_install(mut progress: impl FnMut(&str) + Send) -> Result<Self> {
        let home = cache_folder()?.join(CACHE);
        let found = Self::in_environment(&home);
        if !found.program.exists() {
            progress(&format!("installing {PACKAGE} into {}: the first time, this takes a minute", home.display()));
            if let Err(error) = install(&home).await {
                let program = on_path("moto_server").ok_or(error)?;
                return Ok(Self { program, args: Vec::new() });
            }
        }
        Ok(found)
    }

    /// As a module: the programs of an environment name the folder that it was made in.
    fn in_environment(home: &Path) -> Self {
        Self { program: home.join("bin/python3"), args: vec!["-m".into(), "moto.server".into()] }
    }
}

async fn install(home: &Path) -> Result<()> {
    let cache = home.parent().unwrap_or(home);
    fs::create_dir_all(cache).map_err(Error::io("create", cache))?;
    let beside = cache.join(format!(".moto-{}", std::process::id()));
    let python = on_path("python3").ok_or_else(|| missing("python3 was not found"))?;
    let made = async {
        run(&python, &["-m", "venv", &beside.to_string_lossy()]).await?;
        run(&beside.join("bin/python3"), &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE])
            .await
    };
    let made = made.await.map_err(|why| missing(&why));
    if made.is_ok() {
        // Where somebody else was faster, theirs is there, and as good.
        fs::rename(&beside, home).ok();
    }
    files::remove_dir(&beside)?;
    made
}

/// With this process's own environment: it may say where the package index is.
async fn run(program: &Path, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(INSTALL_DEADLINE, command.output()).await {
        Err(_) => Err(format!("{} was not done after {} s", program.display(), INSTALL_DEADLINE.as_secs())),
        Ok(Err(error)) => Err(format!("{}: {error}", program.display())),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let all = [output.stdout, output.stderr].concat();
            Err(last_lines(&String::from_utf8_lossy(&all), 5))
        }
    }
}

fn missing(why: &str) -> Error {
    Error::MissingMoto { package: PACKAGE, why: why.to_owned() }
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    cache.ok_or_else(|| missing("neither XDG_CACHE_HOME nor HOME is set"))
}

/// A running moto. It ends with this process, also when that is killed; dropping it ends it too.
#[derive(Debug)]
pub struct Moto {
    url: String,
    part: Part,
}

impl Moto {
    /// Starts it, with its log in `dir`, on the port that the last one there had, where that is free. It knows nothing of what
    /// the last one knew.
    ///
    /// # Errors
    /// It does not come up; the end of its log is said.
    pub async fn start(dir: &Path, program: MotoProgram) -> Result<Self> {
        files::make_dir(dir, 0o700, None)?;
        let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
        let file = dir.join("port");
        let kept = files::read_if_there(&file)?.and_then(|text| text.trim().parse().ok());
        let kept = kept.filter(|port| ports::require_free(*port, NAME).is_ok());
        let port = kept.unwrap_or_else(ports::free_port);
        files::write(&file, port.to_string().as_bytes(), 0o600, None)?;

        let MotoProgram { program, mut args } = program;
        args.extend(["-H".into(), "127.0.0.1".into(), "-p".into(), port.to_string()]);
        let mut part = Part::new(NAME, program, args, Runner { account: None, dir, env: Vec::new() });
        part.start()?;
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            part.wait_more(deadline).await?;
        }
        // What answers may be another program that was faster.
        part.require_running()?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), part })
    }

    /// The endpoint of every service.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it; what it knew is gone.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.part.stop(STOP_PATIENCE).await
    }
}
