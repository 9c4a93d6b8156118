//! Which database is meant.

use clap::Args;
use pgtenant_model::ClaimKey;

use super::error::{CliError, Result};

/// `NS/NAME`, or `-n NS NAME`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The database, as NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "NS/NAME")]
    pub(crate) name: String,
    /// The namespace, where it does not stand before the name
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
}

impl Target {
    /// The claim that is meant.
    ///
    /// # Errors
    /// No namespace, two of them, or a name that no database can have.
    pub(crate) fn key(&self) -> Result<ClaimKey> {
        let (namespace, name) = match (self.name.split_once('/'), self.namespace.as_deref()) {
            (Some((namespace, name)), None) => (namespace, name),
            (None, Some(namespace)) => (namespace, self.name.as_str()),
            (Some((first, name)), Some(second)) if first == second => (second, name),
            (Some((first, _)), Some(second)) => {
                return Err(CliError::usage(format!("two namespaces: {first:?} and {second:?}")));
            }
            (None, None) => {
                return Err(CliError::usage(format!("which namespace is {:?} in?", self.name))
                    .hint(format!("write NAMESPACE/{0}, or -n NAMESPACE {0}", self.name)));
            }
        };
        ClaimKey::new(namespace, name).map_err(|error| CliError::usage(error.to_string()))
    }
}

/// The path of a database.
pub(crate) fn database_path(key: &ClaimKey) -> [&str; 5] {
    ["v1", "namespaces", key.namespace(), "databases", key.name()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, namespace: Option<&str>) -> Result<String> {
        let target = Target { name: name.to_owned(), namespace: namespace.map(str::to_owned) };
        target.key().map(|key| key.to_string())
    }

    #[test]
    fn both_ways_to_name_a_database() {
        assert_eq!(key("a/b", None).unwrap(), "a/b");
        assert_eq!(key("b", Some("a")).unwrap(), "a/b");
        assert_eq!(key("a/b", Some("a")).unwrap(), "a/b");
        for (name, namespace) in [("b", None), ("a/b", Some("c")), ("a/b/c", None), ("/b", None), ("A/b", None)] {
            assert!(matches!(key(name, namespace), Err(CliError::Usage { .. })), "{name}");
        }
    }
}
