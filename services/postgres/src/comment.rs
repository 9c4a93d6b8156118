//! The comments that say, on the cluster itself, which claim a database or role belongs to.
//!
//! `{namespace}-{name}` is ambiguous, so the name alone proves nothing; with the comments the ledger can be rebuilt.

use pgtenant_model::{ClaimKey, Tier};

const PREFIX: &str = "pgtenant: ";

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
    fn other_comments_are_nobodys() {
        for text in ["", "pgtenant: ", "pgtenant: a", "pgtenant: a/b/c", "mine: a/b", "pgtenant: A/b"] {
            assert_eq!(parse_database_comment(text), None, "{text:?}");
        }
        for text in ["pgtenant: a/b", "pgtenant: a/b owner", "pgtenant: a/b  read", "a/b read"] {
            assert_eq!(parse_role_comment(text), None, "{text:?}");
        }
    }
}
