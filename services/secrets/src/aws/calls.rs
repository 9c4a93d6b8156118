//! The calls to Secrets Manager, each by its name in IAM and at the pace of its quota.

use std::fmt;
use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryPartition;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, ReplicaRegionType, StatusType, Tag};
use pgtenant_aws::Aws;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;

use super::fault::AwsFault;
use super::pace::{Kind, Pace};
use super::secret::{AWSCURRENT, Secret, Seen, Tags};
use super::settings::{Copy, Settings};

/// What IAM calls the actions.
pub(super) mod action {
    pub(crate) const CREATE: &str = "secretsmanager:CreateSecret";
    pub(crate) const DESCRIBE: &str = "secretsmanager:DescribeSecret";
    pub(crate) const GET: &str = "secretsmanager:GetSecretValue";
    pub(crate) const LIST: &str = "secretsmanager:ListSecrets";
    pub(crate) const PUT: &str = "secretsmanager:PutSecretValue";
    pub(crate) const UPDATE: &str = "secretsmanager:UpdateSecret";
    pub(crate) const STAGE: &str = "secretsmanager:UpdateSecretVersionStage";
    pub(crate) const REPLICATE: &str = "secretsmanager:ReplicateSecretToRegions";
    pub(crate) const UNREPLICATE: &str = "secretsmanager:RemoveRegionsFromReplication";
    pub(crate) const RESTORE: &str = "secretsmanager:RestoreSecret";
    pub(crate) const DELETE: &str = "secretsmanager:DeleteSecret";
    pub(crate) const TAG: &str = "secretsmanager:TagResource";
    pub(crate) const UNTAG: &str = "secretsmanager:UntagResource";
    pub(crate) const PUT_POLICY: &str = "secretsmanager:PutResourcePolicy";
    pub(crate) const DELETE_POLICY: &str = "secretsmanager:DeleteResourcePolicy";
}

/// There is no such secret, or it has no value.
pub(super) const NOT_FOUND: &str = "ResourceNotFoundException";
/// There is one of that name.
pub(super) const EXISTS: &str = "ResourceExistsException";
/// Most often: it is scheduled for deletion.
pub(super) const INVALID_REQUEST: &str = "InvalidRequestException";
/// Also: it still has copies in other regions.
pub(super) const INVALID_PARAMETER: &str = "InvalidParameterException";

/// As many as there can be.
const PAGE: i32 = 100;

/// Secrets Manager in one region. The client is made at its first use.
pub(super) struct Calls {
    aws: Aws,
    region: Option<String>,
    pace: Arc<Pace>,
    client: OnceCell<Client>,
}

/// A secret to be made.
pub(super) struct New<'a> {
    pub(super) name: &'a str,
    pub(super) description: String,
    pub(super) version: &'a str,
    pub(super) text: &'a SecretString,
    pub(super) tags: Tags,
    pub(super) settings: &'a Settings,
}

/// How long a removed secret can be had back.
pub(super) enum Window {
    Days(u8),
    None,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn new(aws: Aws, region: Option<String>, pace: Arc<Pace>) -> Self {
        Self { aws, region, pace, client: OnceCell::new() }
    }

    pub(super) async fn client(&self) -> &Client {
        self.client
            .get_or_init(|| async {
                let shared = self.aws.config(self.region.as_deref()).await;
                let config = aws_sdk_secretsmanager::config::Builder::from(&shared);
                // What one endpoint throttles says nothing about another.
                let partition =
                    format!("{} {}", shared.region().map_or("", |r| r.as_ref()), shared.endpoint_url().unwrap_or(""));
                Client::from_conf(config.retry_partition(RetryPartition::new(partition)).build())
            })
            .await
    }

    /// Waits for its turn, and for the answer.
    pub(super) async fn ask<T, E, R>(
        &self,
        kind: Kind,
        action: &'static str,
        call: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, AwsFault>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        self.pace.turn(kind).await;
        call.await.map_err(|error| AwsFault::of(action, &error))
    }

    /// With a value, tags, key and copies at once.
    pub(super) async fn create(&self, new: New<'_>) -> Result<(), AwsFault> {
        let copies: Vec<_> = new.settings.copies().iter().map(replica).collect();
        let call = self
            .client()
            .await
            .create_secret()
            .name(new.name)
            .description(new.description)
            .client_request_token(new.version)
            .secret_string(new.text.expose_secret())
            .set_tags(Some(tags(&new.tags)))
            .set_kms_key_id(new.settings.kms_key().map(ToOwned::to_owned))
            .set_add_replica_regions((!copies.is_empty()).then_some(copies));
        self.ask(Kind::Create, action::CREATE, call.send()).await.map(drop)
    }

    /// Everything but the value; also of one that is scheduled for deletion.
    pub(super) async fn describe(&self, name: &str) -> Result<Secret, AwsFault> {
        let call = self.client().await.describe_secret().secret_id(name);
        self.ask(Kind::Read, action::DESCRIBE, call.send()).await.map(Secret::from)
    }

    /// The text that is current, where it is text.
    pub(super) async fn read(&self, name: &str) -> Result<Option<SecretString>, AwsFault> {
        let call = self.client().await.get_secret_value().secret_id(name).version_stage(AWSCURRENT);
        let answer = self.ask(Kind::Read, action::GET, call.send()).await?;
        Ok(answer.secret_string.map(SecretString::from))
    }

    /// Adds a version and makes it the current one. Says whether it is: it is not where AWS had the version before.
    pub(super) async fn put(&self, name: &str, version: &str, text: &SecretString) -> Result<bool, AwsFault> {
        let call = self.client().await.put_secret_value().secret_id(name).client_request_token(version);
        let call = call.secret_string(text.expose_secret());
        let answer = self.ask(Kind::Change, action::PUT, call.send()).await?;
        Ok(answer.version_stages().iter().any(|stage| stage == AWSCURRENT))
    }

    /// Makes a version that is there the current one, in the place of `from`.
    pub(super) async fn make_current(&self, name: &str, version: &str, from: Option<&str>) -> Result<(), AwsFault> {
        let call = self.client().await.update_secret_version_stage().secret_id(name).version_stage(AWSCURRENT);
        let call = call.move_to_version_id(version).set_remove_from_version_id(from.map(ToOwned::to_owned));
        self.ask(Kind::Change, action::STAGE, call.send()).await.map(drop)
    }

    /// Encrypts it with another key.
    pub(super) async fn set_key(&self, name: &str, key: &str) -> Result<(), AwsFault> {
        let call = self.client().await.update_secret().secret_id(name).kms_key_id(key);
        self.ask(Kind::Change, action::UPDATE, call.send()).await.map(drop)
    }

    /// Has it copied. Says which copies can not be made, and why.
    pub(super) async fn copy_to(&self, name: &str, copies: &[&Copy]) -> Result<Vec<String>, AwsFault> {
        let regions = copies.iter().map(|copy| replica(copy)).collect();
        let call = self.client().await.replicate_secret_to_regions().secret_id(name);
        let call = call.set_add_replica_regions(Some(regions));
        let answer = self.ask(Kind::Change, action::REPLICATE, call.send()).await?;
        let failed = answer.replication_status().iter().filter(|copy| copy.status() == Some(&StatusType::Failed));
        let say = |region: Option<&str>, why: Option<&str>| {
            format!("{}: {}", region.unwrap_or_default(), why.unwrap_or("no reason was given"))
        };
        Ok(failed.map(|copy| say(copy.region(), copy.status_message())).collect())
    }

    pub(super) async fn remove_copies(&self, name: &str, regions: Vec<String>) -> Result<(), AwsFault> {
        let call = self.client().await.remove_regions_from_replication().secret_id(name);
        let call = call.set_remove_replica_regions(Some(regions));
        self.ask(Kind::Change, action::UNREPLICATE, call.send()).await.map(drop)
    }

    /// Cancels its deletion.
    pub(super) async fn restore(&self, name: &str) -> Result<(), AwsFault> {
        let call = self.client().await.restore_secret().secret_id(name);
        self.ask(Kind::Restore, action::RESTORE, call.send()).await.map(drop)
    }

    pub(super) async fn delete(&self, name: &str, window: Window) -> Result<(), AwsFault> {
        let call = self.client().await.delete_secret().secret_id(name);
        let call = match window {
            Window::Days(days) => call.recovery_window_in_days(days.into()),
            Window::None => call.force_delete_without_recovery(true),
        };
        self.ask(Kind::Delete, action::DELETE, call.send()).await.map(drop)
    }

    pub(super) async fn tag(&self, name: &str, new: &Tags) -> Result<(), AwsFault> {
        let call = self.client().await.tag_resource().secret_id(name).set_tags(Some(tags(new)));
        self.ask(Kind::Tag, action::TAG, call.send()).await.map(drop)
    }

    pub(super) async fn untag(&self, name: &str, keys: Vec<String>) -> Result<(), AwsFault> {
        let call = self.client().await.untag_resource().secret_id(name).set_tag_keys(Some(keys));
        self.ask(Kind::Tag, action::UNTAG, call.send()).await.map(drop)
    }

    /// Public policies are refused by AWS itself.
    pub(super) async fn set_policy(&self, name: &str, policy: String) -> Result<(), AwsFault> {
        let call = self.client().await.put_resource_policy().secret_id(name);
        let call = call.resource_policy(policy).block_public_policy(true);
        self.ask(Kind::Policy, action::PUT_POLICY, call.send()).await.map(drop)
    }

    pub(super) async fn remove_policy(&self, name: &str) -> Result<(), AwsFault> {
        let call = self.client().await.delete_resource_policy().secret_id(name);
        self.ask(Kind::Policy, action::DELETE_POLICY, call.send()).await.map(drop)
    }

    /// One page of pgtenant's secrets whose names begin so, those that are scheduled for deletion among them, and where the next
    /// one begins.
    pub(super) async fn page(
        &self,
        prefix: &str,
        from: Option<String>,
        settings: &Settings,
    ) -> Result<(Vec<(String, Seen)>, Option<String>), AwsFault> {
        let [(by, pgtenant), ..] = super::secret::MANAGED_BY;
        let is = |key: FilterNameStringType, value: &str| Filter::builder().key(key).values(value).build();
        let mut filters = vec![is(FilterNameStringType::TagKey, by), is(FilterNameStringType::TagValue, pgtenant)];
        if !prefix.is_empty() {
            filters.push(is(FilterNameStringType::Name, prefix));
        }
        let call = self.client().await.list_secrets().max_results(PAGE).include_planned_deletion(true);
        let call = call.set_filters(Some(filters)).set_next_token(from);
        let answer = self.ask(Kind::List, action::LIST, call.send()).await?;
        let seen = answer.secret_list.unwrap_or_default().into_iter().filter_map(|entry| {
            let name = entry.name.clone()?;
            Some((name, Seen::of(&Secret::from(entry), settings)))
        });
        Ok((seen.collect(), answer.next_token))
    }

    /// Whether anything can be had at all: the least call that there is.
    pub(super) async fn reach(&self) -> Result<(), AwsFault> {
        let call = self.client().await.list_secrets().max_results(1);
        self.ask(Kind::List, action::LIST, call.send()).await.map(drop)
    }
}

fn tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn replica(copy: &Copy) -> ReplicaRegionType {
    ReplicaRegionType::builder().region(&copy.region).set_kms_key_id(copy.kms_key.clone()).build()
}
