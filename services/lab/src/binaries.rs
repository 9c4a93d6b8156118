//! Where PostgreSQL's programs are, and which version they have.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Major versions that pgtenant manages.
pub const SUPPORTED_VERSIONS: RangeInclusive<u32> = 14..=18;

/// A folder with `postgres`, `initdb` and `pg_ctl` of a supported version.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
    version: String,
    major: u32,
    chosen: bool,
}

impl Binaries {
    /// Finds the programs: in `dir` or else `PGTENANT_PG_BIN` if given (and nowhere else then), in the highest supported
    /// `/usr/lib/postgresql/*/bin`, on `PATH`.
    pub fn locate(dir: Option<&Path>) -> Result<Self> {
        let from_env = || env::var_os("PGTENANT_PG_BIN").filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(dir) = dir.map(Path::to_path_buf).or_else(from_env) {
            return Ok(Self { chosen: true, ..Self::in_dir(&dir)? });
        }
        let mut unsupported = None;
        for dir in distribution_dirs().into_iter().chain(path_dirs()) {
            match Self::in_dir(&dir) {
                Ok(found) => return Ok(found),
                Err(error @ Error::UnsupportedVersion { .. }) => unsupported = unsupported.or(Some(error)),
                Err(_) => {}
            }
        }
        Err(unsupported.unwrap_or(Error::MissingBinary { name: "postgres", package: "postgresql".into() }))
    }

    /// The version `major` as the distribution or else `.ci/postgres-versions` installed it.
    pub fn of_major(major: u32) -> Result<Self> {
        match Self::in_dir(&PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))) {
            Ok(found) => Ok(found),
            Err(_) => Self::cached(major),
        }
    }

    /// The version `major` that `.ci/postgres-versions` fetched into `${XDG_CACHE_HOME:-$HOME/.cache}/pgtenant/postgresql`.
    /// These have no `pg_basebackup`, so they run without a standby.
    pub fn cached(major: u32) -> Result<Self> {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let dir = cache.or_else(home).unwrap_or_default().join(format!("pgtenant/postgresql/{major}/bin"));
        if !dir.join("postgres").exists() {
            return Err(Error::NotCached { major, dir });
        }
        Self::in_dir(&dir)
    }

    /// Major version, 14 to 18.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Version as `postgres --version` says it, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a standby can be made and kept with these: it takes `pg_basebackup` and `pg_controldata`.
    pub fn can_replicate(&self) -> bool {
        self.dir.join("pg_basebackup").exists() && self.dir.join("pg_controldata").exists()
    }

    /// Path of one program of this folder.
    pub fn program(&self, name: &'static str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(path);
        }
        let package = match name {
            "psql" | "pg_dump" | "pg_restore" | "pg_basebackup" => {
                format!("postgresql-client-{}", self.major)
            }
            _ => format!("postgresql-{}", self.major),
        };
        Err(Error::MissingBinary { name, package })
    }

    /// Whether a person named this folder, so that no other is to be taken in its place.
    pub(crate) fn chosen(&self) -> bool {
        self.chosen
    }

    fn in_dir(dir: &Path) -> Result<Self> {
        for name in ["postgres", "initdb", "pg_ctl"] {
            if !dir.join(name).exists() {
                return Err(Error::MissingBinary { name, package: "postgresql".into() });
            }
        }
        let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
        let output = Command::new(dir.join("postgres")).arg("--version").output();
        let output = output.map_err(Error::io("run", dir.join("postgres")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((version, major)) = parse_version(&text) else {
            let output = format!("{text}{}", String::from_utf8_lossy(&output.stderr)).trim().to_owned();
            return Err(Error::Command { program: format!("{}/postgres --version", dir.display()), output });
        };
        if !SUPPORTED_VERSIONS.contains(&major) {
            return Err(Error::UnsupportedVersion { found: version, dir });
        }
        Ok(Self { dir, version, major, chosen: false })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → `15.18`, 15.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

fn distribution_dirs() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut majors: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))).collect()
}

/// Folders of PATH; where `postgres` is a link into the real folder, that one.
fn path_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let real = |dir: PathBuf| Some(fs::canonicalize(dir.join("postgres")).ok()?.parent()?.to_path_buf());
    env::split_paths(&path).filter_map(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_servers_say_them() {
        let debian = parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(debian, Some(("15.18".into(), 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1\n"), Some(("19beta1".into(), 19)));
        assert_eq!(parse_version("command not found"), None);
    }
}
