//! Names in a place: only what is made here, from parts that were checked, ever becomes a path.

use std::fmt;

use pgtenant_model::{ClaimKey, check_label};

use crate::{DumpId, SnapshotError};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const VERIFIED: &str = "verified.json";
const SUFFIX: &str = ".zst.age";
const LONGEST_PART: usize = 100;

/// A file or folder, by its names from the place's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectPath(Vec<String>);

impl ObjectPath {
    /// The folder of a cluster.
    pub(crate) fn cluster(cluster: &str) -> Result<Self, SnapshotError> {
        check_label("cluster", cluster)
            .map_err(|_| SnapshotError::Name { what: "cluster", value: cluster.to_owned() })?;
        Ok(Self(vec![cluster.to_owned()]))
    }

    /// The folder of a claim.
    pub(crate) fn claim(cluster: &str, key: &ClaimKey) -> Result<Self, SnapshotError> {
        Ok(Self::cluster(cluster)?.child(key.namespace()).child(key.name()))
    }

    /// The folder of a dump.
    pub(crate) fn dump(cluster: &str, key: &ClaimKey, id: DumpId) -> Result<Self, SnapshotError> {
        Ok(Self::claim(cluster, key)?.child(&id.to_string()))
    }

    /// A name below it, which is known to be one.
    pub(crate) fn child(&self, name: &str) -> Self {
        debug_assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..", "{name:?}");
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }

    /// The file of a part.
    pub(crate) fn part(&self, part: &str) -> Self {
        self.child(&format!("{part}{SUFFIX}"))
    }

    /// The names, outermost first; never none.
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    /// The folder that it is in, and its own name.
    pub(crate) fn split(&self) -> (&[String], &str) {
        match self.0.split_last() {
            Some((name, folders)) => (folders, name),
            None => (&[], ""),
        }
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Lower case alone: some places do not tell `A` from `a`.
pub(crate) fn check_part(name: &str) -> Result<(), SnapshotError> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits =
        (1..=LONGEST_PART).contains(&name.len()) && name.bytes().all(|byte| letter(byte) || b"-._".contains(&byte));
    if fits && name.bytes().next().is_some_and(letter) {
        return Ok(());
    }
    Err(SnapshotError::Name { what: "part", value: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_no_path() {
        let key = ClaimKey::new("shop", "orders").unwrap();
        for cluster in ["", "..", "../x", "a/b", "A", "a\0"] {
            assert!(ObjectPath::claim(cluster, &key).is_err(), "{cluster:?}");
        }
        for part in ["", ".", "..", "../x", "a/b", "a\\b", "-x", ".x", "_x", "A", "ä", "a b", "a\n", "a%2fb", "a?b"] {
            assert!(check_part(part).is_err(), "{part:?}");
        }
        assert!(check_part(&"a".repeat(101)).is_err());
        for part in ["inventory", "data-0001.copy", "0_x"] {
            check_part(part).unwrap();
        }
    }

    #[test]
    fn paths_are_as_documented() {
        let key = ClaimKey::new("shop", "orders").unwrap();
        let id = "20261122T020000Z-1a2b3c4d".parse().unwrap();
        let dump = ObjectPath::dump("default", &key, id).unwrap();
        assert_eq!(dump.part("data").to_string(), "default/shop/orders/20261122T020000Z-1a2b3c4d/data.zst.age");
    }
}
