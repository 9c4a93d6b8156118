//! What differs between the supported major versions. Nothing else in this crate compares version numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A server's `server_version_num`, as `150018`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerVersion(u32);

/// The database that bootstrap makes for servers on which `template0` will not do.
pub const OWN_TEMPLATE: &str = "pgtenant_template";

impl ServerVersion {
    /// The oldest major version that is supported.
    pub const OLDEST: u32 = 14;
    /// The newest major version that is supported.
    pub const NEWEST: u32 = 18;

    /// From `server_version_num`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// `server_version_num`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// `15` of `150018`.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Whether this crate is tested with it.
    #[must_use]
    pub const fn supported(self) -> bool {
        self.major() >= Self::OLDEST && self.major() <= Self::NEWEST
    }

    /// Before 15 the schema `public` of `template0` belongs to the bootstrap superuser, from whom only a superuser
    /// can take it, and lets everybody create: bootstrap makes a template in which that has been done.
    #[must_use]
    pub const fn needs_own_template(self) -> bool {
        self.major() < 15
    }

    /// What databases are copied from. Nobody can be connected to either of them, so that a copy never waits or fails
    /// with 55006, and no tenant can leave objects there for the next one.
    #[must_use]
    pub const fn template(self) -> &'static str {
        if self.needs_own_template() { OWN_TEMPLATE } else { "template0" }
    }

    /// From 16 on a role with CREATEROLE and REPLICATION makes logins that replicate, and members of `pg_create_subscription` subscribe:
    /// before, only superusers do.
    #[must_use]
    pub const fn replicates_without_superuser(self) -> bool {
        self.major() >= 16
    }

    /// From 16 on a membership says whether it inherits and whether it may SET ROLE, each grant is its grantor's own,
    /// and CREATEROLE reaches only roles on which one has ADMIN OPTION.
    #[must_use]
    pub const fn has_membership_options(self) -> bool {
        self.major() >= 16
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let version = ServerVersion::new(150_018);
        assert_eq!((version.major(), version.to_string().as_str()), (15, "15.18"));
        assert!(version.supported());
        assert!(!ServerVersion::new(130_020).supported());
        assert!(!ServerVersion::new(190_000).supported());
        assert_eq!(ServerVersion::new(140_023).template(), OWN_TEMPLATE);
        assert_eq!(version.template(), "template0");
    }
}
