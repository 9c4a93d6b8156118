//! The user that the servers run as.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A user other than this process's own. There is one only where this process is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// `None`: this process is not root, and the servers run as it does. PostgreSQL refuses root.
    pub(crate) fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read", "/etc/passwd"))?;
        let named = |name| passwd.lines().find_map(|line| parse_entry(line, name));
        named("postgres").or_else(|| named("nobody")).map(Some).ok_or(Error::NoAccount)
    }

    /// The first folder from the root to `dir` (itself included, without links) which this user may not enter.
    pub(crate) fn blocked_on_the_way_to(&self, dir: &Path) -> Result<Option<PathBuf>> {
        let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
        let mut ancestors: Vec<&Path> = dir.ancestors().collect();
        ancestors.reverse();
        for folder in ancestors {
            if !self.may_enter(folder)? {
                return Ok(Some(folder.to_path_buf()));
            }
        }
        Ok(None)
    }

    fn may_enter(&self, folder: &Path) -> Result<bool> {
        let metadata = fs::metadata(folder).map_err(Error::io("look at", folder))?;
        Ok(may_enter(metadata.mode(), metadata.uid() == self.uid, metadata.gid() == self.gid))
    }
}

/// The kernel looks at one class only: the owner's bits do for the owner, even where others may more.
fn may_enter(mode: u32, owner: bool, group: bool) -> bool {
    let bit = match (owner, group) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    mode & bit != 0
}

/// `postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash`
fn parse_entry(line: &str, wanted: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| *name == wanted)?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name: name.to_owned(), uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_class_of_bits_counts() {
        assert!(may_enter(0o711, false, false));
        assert!(!may_enter(0o700, false, false));
        assert!(!may_enter(0o707, false, true));
        assert!(!may_enter(0o077, true, true));
    }

    #[test]
    fn entries_of_passwd() {
        let line = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        assert_eq!(parse_entry(line, "postgres"), Some(Account { name: "postgres".into(), uid: 101, gid: 104 }));
        assert_eq!(parse_entry(line, "nobody"), None);
        assert_eq!(parse_entry("postgresx:x:1:1::/:/bin/sh", "postgres"), None);
    }
}
