//! Which `pg_dump` and `pg_restore` this machine has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::TransferError;
use crate::version::ServerVersion;

/// What this machine has, by major version.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    sets: BTreeMap<u32, Toolset>,
    looked_in: Vec<PathBuf>,
}

/// `pg_dump` and `pg_restore` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolset {
    /// 17 of 17.10.
    pub major: u32,
    /// The program.
    pub pg_dump: PathBuf,
    /// The program.
    pub pg_restore: PathBuf,
}

/// Folders whose sub-folders are versions: where, how their names begin, and where the programs are in them.
const USUAL: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

impl Tools {
    /// Looks in `dirs`, where distributions put them, and in `PATH`; of two of one version the first stays. It runs each once, for
    /// some milliseconds.
    #[must_use]
    pub fn find(dirs: &[PathBuf]) -> Self {
        let mut looked_in = dirs.to_vec();
        for (folder, prefix, inner) in USUAL {
            let mut versions = versions_in(Path::new(folder), prefix);
            versions.sort();
            looked_in.extend(versions.into_iter().map(|version| version.join(inner)));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        looked_in.extend(std::env::split_paths(&path).filter(|dir| dir.is_absolute()));
        let mut sets = BTreeMap::new();
        for set in looked_in.iter().filter_map(|dir| Toolset::in_dir(dir)) {
            sets.entry(set.major).or_insert(set);
        }
        Self { sets, looked_in }
    }

    /// All that were found.
    pub fn sets(&self) -> impl Iterator<Item = &Toolset> {
        self.sets.values()
    }

    /// For a server whose `server_version_num` is `version`: of the same major version, or else of the next newer one.
    ///
    /// # Errors
    /// There is none; says what to install.
    pub fn for_server(&self, version: u32) -> Result<&Toolset, TransferError> {
        self.at_least(ServerVersion::new(version).major())
    }

    /// Of this major version, or else of the next newer one.
    pub(super) fn at_least(&self, major: u32) -> Result<&Toolset, TransferError> {
        let newer = self.sets.range(major..).next().map(|(_, set)| set);
        newer.ok_or_else(|| TransferError::NoTools { needed: major, found: self.found() })
    }

    fn found(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let places = list(self.looked_in.iter().map(|dir| dir.display().to_string()).collect());
        if self.sets.is_empty() {
            return format!("none was found in {places}");
        }
        let one = |set: &Toolset| format!("{} ({})", set.major, set.pg_dump.display());
        format!("found were only {}, in {places}", list(self.sets().map(one).collect()))
    }
}

impl Toolset {
    fn in_dir(dir: &Path) -> Option<Self> {
        let (pg_dump, pg_restore) = (dir.join("pg_dump"), dir.join("pg_restore"));
        // Debian's wrapper picks a version by itself, and not by the server's.
        let real = std::fs::canonicalize(&pg_dump).ok()?;
        if real.file_name().is_some_and(|name| name == "pg_wrapper") {
            return None;
        }
        let major = major_of(&pg_dump)?;
        (major_of(&pg_restore)? == major).then_some(Self { major, pg_dump, pg_restore })
    }
}

fn versions_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).filter(|path| path.join("bin").is_dir()).collect()
}

fn major_of(program: &Path) -> Option<u32> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
    parse_version(&String::from_utf8_lossy(&command.output().ok()?.stdout))
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)`, `pg_dump (PostgreSQL) 19beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(majors: &[u32]) -> Tools {
        let set =
            |major: &u32| Toolset { major: *major, pg_dump: "/x/pg_dump".into(), pg_restore: "/x/pg_restore".into() };
        Tools { sets: majors.iter().map(|major| (*major, set(major))).collect(), looked_in: vec!["/x".into()] }
    }

    #[test]
    fn the_same_version_is_taken_or_the_next_newer_one() {
        let tools = tools(&[14, 16, 18]);
        for (server, taken) in [(140_001, 14), (150_018, 16), (160_000, 16), (170_010, 18)] {
            assert_eq!(tools.for_server(server).unwrap().major, taken);
        }
        let error = tools.for_server(190_000).unwrap_err().to_string();
        assert!(error.contains("postgresql-client-19") && error.contains("18 (/x/pg_dump)"), "{error}");
        assert!(Tools::default().for_server(150_000).unwrap_err().to_string().contains("none was found"));
    }

    #[test]
    fn a_version_is_read_as_the_programs_say_it() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_version("pg_dump"), None);
    }
}
