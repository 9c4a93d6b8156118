//! The comments that say, on the cluster itself, which claim a database or role belongs to.
//!
//! `{namespace}-{name}` is ambiguous, so the name alone proves nothing; with the comments the ledger can be rebuilt.

use pgtenant_model::{ClaimKey, Tier};

/// What every comment of pgtenant begins with.
pub(crate) const PREFIX: &str = "pgtenant: ";

/// `pgtenant: {namespace}/{name}`.
#[must_use]
pub fn database_comment(key: &ClaimKey) -> String {
    format!("{PREFIX}{key}")
}

/// `pgtenant: {namespace}/{name} {tier}`; a tier's second login carries the same.
#[must_use]
pub fn role_comment(key: &ClaimKey, tier: Tier) -> String {
    format!("{PREFIX}{key} {tier}")
}

/// What the comment of a role begins with that was put aside.
pub(crate) const PUT_ASIDE: &str = "pgtenant: dropped role ";

/// What a role is called, whose number is `oid`, when it was put aside. No claim's name has an underscore.
pub(crate) fn put_aside_role(oid: u32) -> String {
    format!("pgtenant_dropped_{oid}")
}

/// Says what a role was that was put aside.
pub(crate) fn put_aside_comment(role: &str) -> String {
    format!("{PUT_ASIDE}{role:?}; it goes when the privileges are gone that it was given in other databases")
}

/// The claim that a database's comment names.
#[must_use]
pub fn parse_database_comment(comment: &str) -> Option<ClaimKey> {
    let (namespace, name) = comment.strip_prefix(PREFIX)?.split_once('/')?;
    ClaimKey::new(namespace, name).ok()
}

/// The claim and tier that a role's comment names.
#[must_use]
pub fn parse_role_comment(comment: &str) -> Option<(ClaimKey, Tier)> {
    let (claim, tier) = comment.rsplit_once(' ')?;
    let tier = Tier::ALL.into_iter().find(|t| t.as_str() == tier)?;
    Some((parse_database_comment(claim)?, tier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_read_as_they_were_written() {
        let key = ClaimKey::new("a-b", "c").unwrap();
        assert_eq!(database_comment(&key), "pgtenant: a-b/c");
        assert_eq!(parse_database_comment("pgtenant: a-b/c"), Some(key.clone()));
        for tier in Tier::ALL {
            assert_eq!(parse_role_comment(&role_comment(&key, tier)), Some((key.clone(), tier)));
        }
    }

    #[test]
    fn what_was_put_aside_is_no_claims() {
        let (role, comment) = (put_aside_role(u32::MAX), put_aside_comment("a-b-read"));
        assert!(role.len() <= 63 && ClaimKey::new("pgtenant_dropped_1", "x").is_err(), "{role}");
        assert_eq!((parse_database_comment(&comment), parse_role_comment(&comment)), (None, None));
    }

    #[test]
    fn other_comments_are_nobodys() {
        for text in ["", "pgtenant: ", "pgtenant: a", "pgtenant: a/b/c", "mine: a/b", "pgtenant: A/b"] {
            assert_eq!(parse_database_comment(text), None, "{text:?}");
        }
        for text in ["pgtenant: a/b", "pgtenant: a/b owner", "pgtenant: a/b  read", "a/b read"] {
            assert_eq!(parse_role_comment(text), None, "{text:?}");
        }
    }
}
