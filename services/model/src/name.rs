//! Names and the limits that keep them apart.

use std::fmt;

use serde::{Deserialize, Serialize};

/// PostgreSQL cuts identifiers at `NAMEDATALEN - 1` bytes with only a NOTICE, so nothing longer is ever sent.
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// The longest role is `{database}-admin-b`: 8 bytes more than the database's own name.
pub const MAX_DATABASE_BYTES: usize = MAX_IDENTIFIER_BYTES - "-admin-b".len();

/// The claim that no tenant can have: what is written in its name to try a store is nobody's.
const TRIAL: (&str, &str) = ("pgtenant-preflight", "trial");

/// Which rule a name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Empty.
    Empty,
    /// A byte outside of `a-z 0-9 -`, or a hyphen at either end (RFC 1123 label).
    Characters,
    /// Longer than this many bytes.
    TooLong(usize),
    /// The control plane's own.
    Reserved,
}

/// A name that can not be used, with what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", explain(.what, .value, .rule))]
pub struct InvalidName {
    /// What is named: `namespace`, `name`, `database`.
    pub what: &'static str,
    /// The name as it was given.
    pub value: String,
    /// The rule that it breaks.
    pub rule: NameRule,
}

fn explain(what: &str, value: &str, rule: &NameRule) -> String {
    match rule {
        NameRule::Empty => format!("{what} is empty"),
        NameRule::Characters => format!(
            "{what} {value:?} is not a DNS label: use a-z, 0-9 and hyphens, with a letter or digit first and last"
        ),
        NameRule::TooLong(limit) => {
            format!("{what} {value:?} has {} bytes; at most {limit} are allowed", value.len())
        }
        NameRule::Reserved => format!("{what} {value:?} is pgtenant's own; choose another name"),
    }
}

/// Checks an RFC 1123 label: 1 to 63 bytes of `a-z 0-9 -`, no hyphen first or last.
///
/// # Errors
/// The first rule that `value` breaks.
pub fn check_label(what: &'static str, value: &str) -> Result<(), InvalidName> {
    let broken = |rule| InvalidName { what, value: value.to_owned(), rule };
    if value.is_empty() {
        return Err(broken(NameRule::Empty));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !value.bytes().all(allowed) || value.starts_with('-') || value.ends_with('-') {
        return Err(broken(NameRule::Characters));
    }
    if value.len() > MAX_IDENTIFIER_BYTES {
        return Err(broken(NameRule::TooLong(MAX_IDENTIFIER_BYTES)));
    }
    Ok(())
}

/// Who a claim is: a name within a namespace. Always valid; the database's and roles' names follow from it.
///
/// `{namespace}-{name}` is ambiguous (`a-b` + `c` and `a` + `b-c`): the key identifies a claim, the database name
/// alone never does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ClaimKey {
    namespace: String,
    name: String,
}

impl ClaimKey {
    /// A key whose namespace and name are DNS labels and whose database name fits [`MAX_DATABASE_BYTES`].
    ///
    /// # Errors
    /// Says which part breaks which rule; nothing is ever cut to fit.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, InvalidName> {
        let key = Self { namespace: namespace.into(), name: name.into() };
        check_label("namespace", &key.namespace)?;
        check_label("name", &key.name)?;
        let database = key.database();
        if database.len() > MAX_DATABASE_BYTES {
            return Err(InvalidName { what: "database", value: database, rule: NameRule::TooLong(MAX_DATABASE_BYTES) });
        }
        // Whichever way it is split: stores know credentials by the role's name.
        if database == Self::trial().database() {
            return Err(InvalidName { what: "database", value: database, rule: NameRule::Reserved });
        }
        Ok(key)
    }

    /// The key in whose name stores are tried. [`ClaimKey::new`] makes none with its database.
    #[must_use]
    pub fn trial() -> Self {
        Self { namespace: TRIAL.0.to_owned(), name: TRIAL.1.to_owned() }
    }

    /// The tenant.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The claim's name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `{namespace}-{name}`.
    #[must_use]
    pub fn database(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }

    /// `{namespace}-{name}-{tier}`.
    #[must_use]
    pub fn role(&self, tier: Tier) -> String {
        format!("{}-{}-{}", self.namespace, self.name, tier)
    }

    /// A tier's login: the role itself, or its name and `-b`.
    #[must_use]
    pub fn login(&self, tier: Tier, side: Side) -> String {
        match side {
            Side::A => self.role(tier),
            Side::B => self.second_login(tier),
        }
    }

    /// The second login of a tier: the role's name and `-b`.
    #[must_use]
    pub fn second_login(&self, tier: Tier) -> String {
        format!("{}-b", self.role(tier))
    }

    /// Which of a tier's logins has this name.
    #[must_use]
    pub fn side(&self, tier: Tier, login: &str) -> Option<Side> {
        [Side::A, Side::B].into_iter().find(|side| self.login(tier, *side) == login)
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One of the two logins of a tier. One is in use; a rotation turns to the other one, so that both work while applications
/// read the new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The tier's role itself.
    #[default]
    A,
    /// The role's name and `-b`: a member of the role, and acting as it.
    B,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What a role may do: `read` selects, `write` changes rows as well, `admin` owns what is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// SELECT.
    Read,
    /// SELECT, INSERT, UPDATE, DELETE, TRUNCATE, and the sequences' USAGE.
    Write,
    /// Owner of schema `public` and of all that its logins make.
    Admin,
}

impl Tier {
    /// Every tier, in the order in which people read them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// `read`, `write` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_database_leaves_room_for_the_longest_role() {
        let key = ClaimKey::new("n".repeat(27), "d".repeat(27)).unwrap();
        assert_eq!(key.database().len(), MAX_DATABASE_BYTES);
        assert_eq!(key.second_login(Tier::Admin).len(), MAX_IDENTIFIER_BYTES);

        let error = ClaimKey::new("n".repeat(28), "d".repeat(27)).unwrap_err();
        assert_eq!(error.rule, NameRule::TooLong(55));
        assert!(error.to_string().ends_with("has 56 bytes; at most 55 are allowed"), "{error}");
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "a b", "a\"b", "a;b", "../a", "ä", "a\0b", "a/b"] {
            assert!(ClaimKey::new("ns", name).is_err(), "{name:?}");
            assert!(ClaimKey::new(name, "db").is_err(), "{name:?}");
        }
        assert!(check_label("name", &"a".repeat(64)).is_err());
    }

    #[test]
    fn no_claim_means_what_stores_are_tried_with() {
        for (namespace, name) in [TRIAL, ("pgtenant", "preflight-trial")] {
            let error = ClaimKey::new(namespace, name).unwrap_err();
            assert_eq!(error.rule, NameRule::Reserved, "{error}");
        }
        assert!(ClaimKey::new("pgtenant-preflight", "other").is_ok());
    }

    #[test]
    fn two_claims_can_mean_one_database() {
        let first = ClaimKey::new("a-b", "c").unwrap();
        let second = ClaimKey::new("a", "b-c").unwrap();
        assert_ne!(first, second);
        assert_eq!(first.database(), second.database());
    }
}
