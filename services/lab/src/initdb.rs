//! A data folder from nothing.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use crate::binaries::Binaries;
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::process::Runner;

/// Makes `data`, which is not there yet. It takes its configuration from `../server.conf`.
pub(crate) async fn run(
    runner: &Runner,
    binaries: &Binaries,
    data: &Path,
    superuser: &str,
    password: &SecretString,
    fsync: bool,
) -> Result<()> {
    let file = runner.dir.join("password");
    files::write(&file, password.expose_secret().as_bytes(), 0o600, runner.account.as_ref())?;
    let mut args = vec![
        format!("--pgdata={}", data.display()),
        format!("--username={superuser}"),
        format!("--pwfile={}", file.display()),
    ];
    let fixed = "--auth-host=scram-sha-256 --auth-local=scram-sha-256 --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
                 --no-instructions";
    args.extend(fixed.split_whitespace().map(str::to_owned));
    args.extend((!fsync).then(|| "--no-sync".to_owned()));
    let made = runner.run(&binaries.program("initdb")?, args).await;
    files::remove_file(&file)?;
    made?;
    let conf = data.join("postgresql.conf");
    let mut conf_file = OpenOptions::new().append(true).open(&conf).map_err(Error::io("open", &conf))?;
    conf_file.write_all(config::INCLUDE.as_bytes()).map_err(Error::io("write", &conf))
}
