//! A secret as AWS describes it, and whose it is.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::types::{ReplicationStatusType, SecretListEntry, StatusType, Tag};
use pgtenant_model::CredentialTarget;

use super::settings::Settings;
use crate::Fault;

/// The stage of the version that readers get.
pub(super) const AWSCURRENT: &str = "AWSCURRENT";
/// The tag of everything that pgtenant makes.
pub(super) const MANAGED_BY: [(&str, &str); 1] = [("managed-by", "pgtenant")];

pub(super) type Tags = BTreeMap<String, String>;

/// Everything of a secret but its value.
#[derive(Debug, Default)]
pub(super) struct Secret {
    pub(super) arn: Option<String>,
    pub(super) tags: Tags,
    /// Stages by version; those without a stage are not shown.
    versions: BTreeMap<String, Vec<String>>,
    pub(super) scheduled_for_deletion: bool,
    /// None: `aws/secretsmanager`.
    pub(super) kms_key: Option<String>,
    /// Regions that have a copy, or are getting one.
    pub(super) copies: Vec<String>,
    /// Regions in which one could not be made.
    pub(super) failed_copies: Vec<String>,
}

impl From<DescribeSecretOutput> for Secret {
    fn from(found: DescribeSecretOutput) -> Self {
        let copies = found.replication_status.into_iter().flatten();
        let (failed, made): (Vec<_>, Vec<_>) = copies.partition(|copy| copy.status == Some(StatusType::Failed));
        let regions = |copies: Vec<ReplicationStatusType>| copies.into_iter().filter_map(|copy| copy.region).collect();
        Self {
            arn: found.arn,
            tags: read(found.tags),
            versions: found.version_ids_to_stages.unwrap_or_default().into_iter().collect(),
            scheduled_for_deletion: found.deleted_date.is_some(),
            kms_key: found.kms_key_id,
            copies: regions(made),
            failed_copies: regions(failed),
        }
    }
}

/// A listing does not say which copies there are.
impl From<SecretListEntry> for Secret {
    fn from(found: SecretListEntry) -> Self {
        Self {
            arn: found.arn,
            tags: read(found.tags),
            versions: found.secret_versions_to_stages.unwrap_or_default().into_iter().collect(),
            scheduled_for_deletion: found.deleted_date.is_some(),
            kms_key: found.kms_key_id,
            copies: Vec::new(),
            failed_copies: Vec::new(),
        }
    }
}

fn read(tags: Option<Vec<Tag>>) -> Tags {
    tags.into_iter().flatten().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect()
}

impl Secret {
    pub(super) fn current(&self) -> Option<&str> {
        let current = |stages: &Vec<String>| stages.iter().any(|stage| stage == AWSCURRENT);
        self.versions.iter().find(|(_, stages)| current(stages)).map(|(version, _)| version.as_str())
    }

    pub(super) fn has(&self, version: &str) -> bool {
        self.versions.contains_key(version)
    }

    /// Nothing that somebody else has made is ever read, overwritten or deleted.
    pub(super) fn check_ours(&self, target: &CredentialTarget) -> Result<(), Fault> {
        let ours = tags_of(target);
        if ours.iter().all(|(key, value)| self.tags.get(*key) == Some(value)) {
            return Ok(());
        }
        let tags = ours.map(|(key, value)| format!("{key}={value}")).join(", ");
        let when = if self.scheduled_for_deletion { ", scheduled for deletion" } else { "" };
        Err(Fault::Foreign(format!(
            "a secret of this name is there{when}, which pgtenant has not made for this claim: it lacks the tags {tags} (with \
             them it would be taken over, and its value replaced)"
        )))
    }
}

/// The tags of a secret that say whose it is.
pub(super) fn tags_of(target: &CredentialTarget) -> [(&'static str, String); 4] {
    let [(by, pgtenant)] = MANAGED_BY;
    [
        (by, pgtenant.to_owned()),
        ("namespace", target.key.namespace().to_owned()),
        ("claim", target.key.name().to_owned()),
        ("tier", target.tier.as_str().to_owned()),
    ]
}

/// What is remembered of a secret: enough to know, without asking, that it is as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    arn: Option<Box<str>>,
    /// Of the four tags; none: it is not pgtenant's.
    owner: Option<Box<str>>,
    current: Option<Box<str>>,
    /// Whether the store's settings are in effect.
    pub(super) settled: bool,
    pub(super) scheduled_for_deletion: bool,
}

impl Seen {
    pub(super) fn of(secret: &Secret, settings: &Settings) -> Self {
        let [(by, pgtenant)] = MANAGED_BY;
        let tag = |key: &str| secret.tags.get(key).map_or("", String::as_str);
        let owner = format!("{} {} {}", tag("namespace"), tag("claim"), tag("tier"));
        Self {
            arn: secret.arn.as_deref().map(Into::into),
            owner: (tag(by) == pgtenant).then(|| owner.into()),
            current: secret.current().map(Into::into),
            settled: settings.are_in(&secret.tags),
            scheduled_for_deletion: secret.scheduled_for_deletion,
        }
    }

    /// As it is after it was written completely.
    pub(super) fn written(target: &CredentialTarget, version: &str, arn: Option<String>) -> Self {
        let (arn, owner) = (arn.map(Into::into), Some(owner(target).into()));
        Self { arn, owner, current: Some(version.into()), settled: true, scheduled_for_deletion: false }
    }

    /// Its ARN, where it is this one's and there to stay.
    pub(super) fn arn_for(&self, target: &CredentialTarget) -> Option<&str> {
        let there = !self.scheduled_for_deletion && self.owner.as_deref() == Some(owner(target).as_str());
        self.arn.as_deref().filter(|_| there)
    }

    /// Whether it is this one's, with this version, and nothing has to be done about it.
    pub(super) fn is_right(&self, target: &CredentialTarget, version: &str) -> bool {
        self.settled
            && !self.scheduled_for_deletion
            && self.current.as_deref() == Some(version)
            && self.owner.as_deref() == Some(owner(target).as_str())
    }
}

fn owner(target: &CredentialTarget) -> String {
    format!("{} {} {}", target.key.namespace(), target.key.name(), target.tier.as_str())
}
