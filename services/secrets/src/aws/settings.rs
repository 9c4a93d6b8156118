//! What a store's settings ask of every secret beside its value, and how a secret tells which settings are in effect.
//!
//! A tag holds a short hash of them, and of the names of the further tags that were written: so a listing alone shows which
//! secrets have older settings, and tags that are not wished any more are removed without touching anybody else's.

use std::fmt::Write as _;

use pgtenant_model::{AwsSecretsManagerStore, CredentialTarget, SECRET_TAGS};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::secret::{Tags, tags_of};

const TAG: &str = SECRET_TAGS[4];
const HASH: usize = 16;
/// Of a tag's name. With all 45 that there can be, the tag's value stays below AWS's 256 characters.
const SHORT: usize = 5;
/// What AWS takes where no key is named.
const DEFAULT_KEY: &str = "alias/aws/secretsmanager";

/// A store's settings for every secret.
#[derive(Debug)]
pub(super) struct Settings {
    kms_key: Option<String>,
    copies: Vec<Copy>,
    policy: Option<String>,
    further: Tags,
    /// The value of the tag.
    mark: String,
}

/// A copy in another region.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) region: String,
    /// None: the region's `aws/secretsmanager`.
    pub(super) kms_key: Option<String>,
}

impl Settings {
    pub(super) fn new(spec: &AwsSecretsManagerStore) -> Self {
        let AwsSecretsManagerStore {
            name: _,
            region: _,
            recovery_window_days: _,
            kms_key_id,
            replica_regions,
            readers,
            tags,
        } = spec;
        let key = kms_key_id.as_deref().and_then(key_in_every_region);
        let mut regions = replica_regions.clone();
        regions.sort();
        regions.dedup();
        let copies: Vec<_> = regions.into_iter().map(|region| Copy { region, kms_key: key.clone() }).collect();
        let mut readers = readers.clone();
        readers.sort();
        readers.dedup();
        let policy = (!readers.is_empty()).then(|| readers_policy(&readers));
        let mark = mark(kms_key_id.as_deref(), &copies, policy.as_deref(), tags);
        Self { kms_key: kms_key_id.clone(), copies, policy, further: tags.clone(), mark }
    }

    pub(super) fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref()
    }

    /// Whether a secret has this key. AWS may show an id or an alias as the ARN that ends so.
    pub(super) fn is_key(&self, found: Option<&str>) -> bool {
        let (found, wanted) = (found.unwrap_or(DEFAULT_KEY), self.kms_key_or_default());
        found.ends_with(wanted) || wanted.ends_with(found)
    }

    pub(super) fn kms_key_or_default(&self) -> &str {
        self.kms_key.as_deref().unwrap_or(DEFAULT_KEY)
    }

    pub(super) fn copies(&self) -> &[Copy] {
        &self.copies
    }

    /// A resource policy, where somebody else is to read.
    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Tags beside pgtenant's own.
    pub(super) fn further(&self) -> &Tags {
        &self.further
    }

    /// All tags of a new secret, but the one that says that the settings are in effect.
    pub(super) fn tags(&self, target: &CredentialTarget) -> Tags {
        let owner = tags_of(target).map(|(key, value)| (key.to_owned(), value));
        self.further.clone().into_iter().chain(owner).collect()
    }

    /// The tag that says that they are in effect.
    pub(super) fn done(&self) -> (String, String) {
        (TAG.to_owned(), self.mark.clone())
    }

    /// Whether a secret with these tags has them.
    pub(super) fn are_in(&self, tags: &Tags) -> bool {
        tags.get(TAG) == Some(&self.mark) && self.further.iter().all(|(key, value)| tags.get(key) == Some(value))
    }

    /// Tags that earlier settings have written and these do not want.
    pub(super) fn left_over(&self, tags: &Tags) -> Vec<String> {
        let Some((_, former)) = tags.get(TAG).and_then(|mark| mark.split_once(':')) else { return Vec::new() };
        let former: Vec<&[u8]> = former.as_bytes().chunks(SHORT).collect();
        let unwanted = |key: &&String| {
            !SECRET_TAGS.contains(&key.as_str())
                && !key.starts_with("aws:")
                && !self.further.contains_key(*key)
                && former.contains(&short(key).as_bytes())
        };
        tags.keys().filter(unwanted).cloned().collect()
    }
}

/// An alias names a key in each region, and so does the id of a multi-Region key; any other key is in one region alone.
fn key_in_every_region(key: &str) -> Option<String> {
    let id = key.rsplit_once('/').map_or(key, |(_, id)| id);
    if key.starts_with("alias/") {
        Some(key.to_owned())
    } else if id.starts_with("mrk-") {
        Some(id.to_owned())
    } else {
        None
    }
}

/// Attached to the secret itself, so that `*` is that secret.
fn readers_policy(readers: &[String]) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "PgtenantReaders",
            "Effect": "Allow",
            "Principal": {"AWS": readers},
            "Action": ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            "Resource": "*",
        }],
    })
    .to_string()
}

fn mark(key: Option<&str>, copies: &[Copy], policy: Option<&str>, further: &Tags) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.len().to_be_bytes());
        hash.update(text.as_bytes());
    };
    add("pgtenant secret settings 1");
    add(key.unwrap_or_default());
    add(policy.unwrap_or_default());
    for copy in copies {
        add(&copy.region);
        add(copy.kms_key.as_deref().unwrap_or_default());
    }
    for (key, value) in further {
        add(key);
        add(value);
    }
    let mut mark = hex::encode(hash.finalize());
    mark.truncate(HASH);
    mark.push(':');
    for key in further.keys() {
        // Writing to a String does not fail.
        write!(mark, "{}", short(key)).ok();
    }
    mark
}

fn short(key: &str) -> String {
    let mut text = hex::encode(Sha256::digest(key.as_bytes()));
    text.truncate(SHORT);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: serde_json::Value) -> AwsSecretsManagerStore {
        serde_json::from_value(change).unwrap()
    }

    fn settings(change: serde_json::Value) -> Settings {
        Settings::new(&spec(change))
    }

    #[test]
    fn every_setting_is_seen_in_the_mark() {
        let all = [
            json!({}),
            json!({"kmsKeyId": "alias/a"}),
            json!({"replicaRegions": ["eu-west-2"]}),
            json!({"replicaRegions": ["eu-west-2", "eu-west-3"]}),
            json!({"readers": ["arn:aws:iam::1:role/a"]}),
            json!({"tags": {"team": "a"}}),
            json!({"tags": {"team": "b"}}),
            json!({"tags": {"tea": "mb"}}),
        ];
        let marks: std::collections::BTreeSet<String> = all.iter().map(|one| settings(one.clone()).done().1).collect();
        assert_eq!(marks.len(), all.len());
        let order = |regions: [&str; 2]| settings(json!({ "replicaRegions": regions })).done();
        assert_eq!(order(["a", "b"]), order(["b", "a"]));
        // What it is not about changes nothing.
        assert_eq!(settings(json!({"name": "x/{role}", "recoveryWindowDays": 30})).done(), settings(json!({})).done());
    }

    #[test]
    fn the_mark_fits_a_tag() {
        let tags: serde_json::Map<_, _> = (0..45).map(|number| (format!("tag-{number}"), json!("x"))).collect();
        let (key, value) = settings(json!({ "tags": tags })).done();
        assert_eq!(key, "pgtenant.io/settings");
        assert!(value.len() <= 256, "{}", value.len());
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':'));
    }

    #[test]
    fn only_tags_of_earlier_settings_are_left_over() {
        let (old, new) =
            (settings(json!({"tags": {"team": "a", "cost": "1"}})), settings(json!({"tags": {"cost": "2"}})));
        let mut tags: Tags = old.further.clone();
        tags.extend([old.done(), ("somebody".to_owned(), "else".to_owned())]);
        assert!(old.are_in(&tags) && !new.are_in(&tags));
        assert!(old.left_over(&tags).is_empty());
        assert_eq!(new.left_over(&tags), ["team"]);
        tags.remove("team");
        assert!(!old.are_in(&tags), "a tag that was removed is seen");
    }

    #[test]
    fn a_copy_has_the_same_key_where_it_can() {
        let key = |id: &str| settings(json!({"kmsKeyId": id, "replicaRegions": ["b"]})).copies[0].kms_key.clone();
        assert_eq!(key("alias/pgtenant").as_deref(), Some("alias/pgtenant"));
        assert_eq!(key("mrk-12ab").as_deref(), Some("mrk-12ab"));
        assert_eq!(key("arn:aws:kms:eu-west-1:1:key/mrk-12ab").as_deref(), Some("mrk-12ab"));
        assert_eq!(key("arn:aws:kms:eu-west-1:1:key/12ab"), None);
    }
}
