//! The store `awsSecretsManager`: a secret for each role, with the JSON document that files and Kubernetes Secrets have.
//!
//! Reading costs money, and secrets are many: whether they are as they should be is known from listings (see [`listing`]), since
//! the id of a version tells its content ([`version`](crate::version)). A value is read only where that is not so.

mod calls;
mod fault;
mod listing;
mod login;
mod pace;
mod policy;
mod reference;
mod remove;
mod secret;
mod settings;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use pgtenant_model::{AwsSecretsManagerStore, Credential, CredentialTarget};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;
use uuid::Uuid;

use self::calls::{Calls, INVALID_REQUEST, NOT_FOUND, action};
use self::listing::{Due, Known, Listing};
use self::secret::Seen;
use self::settings::Settings;
use crate::{Access, Action, BoxFuture, Fault, Held, Removal, SecretStore, StoreError, document, fingerprint, version};

pub use fault::AwsFault;
pub use login::{AwsLogin, IdleLogin};
pub(crate) use pace::Paces;
pub use policy::{PolicyOptions, control_plane_policy, external_secrets_policy, login_policy};

const KIND: &str = "awsSecretsManager";

/// For all calls about one secret: shorter than the engine's lease of 15 s.
const DEADLINE: Duration = Duration::from_secs(12);
/// Who needs to know of one secret waits no longer for the listing of all, and asks for that one.
const LISTING_PATIENCE: Duration = Duration::from_secs(5);
/// For a whole listing; at 50 pages a second, a hundred thousand secrets take 20 s.
const LISTING_DEADLINE: Duration = Duration::from_secs(120);
/// Pages of a listing: far above the 500,000 secrets that an account may have.
const PAGES: usize = 10_000;
/// Between tries at something that AWS does not show yet: it is consistent after a while only.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// The store `awsSecretsManager`. Any number of processes may write to it.
#[derive(Debug, Clone)]
pub struct AwsSecrets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: AwsSecretsManagerStore,
    settings: Settings,
    calls: Calls,
    listing: Listing,
}

impl AwsSecrets {
    /// A store as a cluster's spec has it. Nothing is asked.
    #[must_use]
    pub fn new(access: &Access, spec: AwsSecretsManagerStore) -> Self {
        let pace = access.paces().of(spec.region.as_deref());
        let calls = Calls::new(access.aws().clone(), spec.region.clone(), pace);
        let settings = Settings::new(&spec);
        Self { inner: Arc::new(Inner { spec, settings, calls, listing: Listing::default() }) }
    }

    /// What is known of a secret from the last listing, which is made anew when it is too old; none: nothing.
    async fn known(&self, name: &str) -> Option<Option<Seen>> {
        let known = |known| match known {
            Known::Is(seen) => Some(seen),
            Known::Nothing => None,
        };
        let inner = &self.inner;
        if let Some(seen) = known(inner.listing.known(name, Instant::now())) {
            return Some(seen);
        }
        let mut done = match inner.listing.due(Instant::now()) {
            Due::Wait(done) => done,
            Due::NotNow => return None,
            Due::Make(working) => {
                let done = working.subscribe();
                // A task of its own: the listing serves all, and whoever happened to begin it may be cancelled.
                tokio::spawn({
                    let inner = Arc::clone(inner);
                    async move {
                        inner.list().await;
                        drop(working);
                    }
                });
                done
            }
        };
        // It is never sent to, only closed.
        timeout(LISTING_PATIENCE, done.changed()).await.ok();
        known(inner.listing.known(name, Instant::now()))
    }

    async fn look(&self, target: &CredentialTarget, expected: Option<Uuid>) -> Result<Held, Fault> {
        let name = self.inner.name(target);
        let expected = expected.map(|version| version.to_string());
        if let Some(expected) = &expected
            && self.known(&name).await.flatten().is_some_and(|seen| seen.is_right(target, expected))
        {
            return Ok(Held::Unread);
        }
        self.inner.read(target, &name, expected.as_deref()).await
    }

    /// A listing may not show yet what another process has just made or taken back, so only that a secret is there is believed.
    async fn find_arn(&self, target: &CredentialTarget) -> Result<Option<String>, Fault> {
        let arn = |seen: &Seen| seen.arn_for(target).map(ToOwned::to_owned);
        let name = self.inner.name(target);
        if let Some(arn) = self.known(&name).await.flatten().as_ref().and_then(arn) {
            return Ok(Some(arn));
        }
        let seen = match self.inner.calls.describe(&name).await {
            Ok(found) => Seen::of(&found, &self.inner.settings),
            Err(fault) if fault.is(NOT_FOUND) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        let arn = arn(&seen);
        self.inner.listing.note(&name, Some(seen), Instant::now());
        Ok(arn)
    }
}

impl Inner {
    fn name(&self, target: &CredentialTarget) -> String {
        self.spec.name.replace("{namespace}", target.key.namespace()).replace("{role}", &target.role())
    }

    /// Lists all of pgtenant's secrets.
    async fn list(&self) {
        let began = Instant::now();
        let listed = timeout(LISTING_DEADLINE, self.pages()).await;
        let listed = listed.unwrap_or_else(|_| Err(AwsFault::late(action::LIST, LISTING_DEADLINE)));
        if let Err(fault) = &listed {
            let (error, advice) = (fault.text(), fault.advice());
            tracing::warn!(store = KIND, error, advice, "secrets can not be listed: each is asked for by itself");
        }
        self.listing.finish(listed.ok(), began, Instant::now());
    }

    async fn pages(&self) -> Result<HashMap<String, Seen>, AwsFault> {
        let prefix = policy::prefix(&self.spec.name);
        let (mut all, mut next) = (HashMap::new(), None);
        for _ in 0..PAGES {
            let (page, more) = self.calls.page(prefix, next, &self.settings).await?;
            all.extend(page);
            match more.filter(|token| !token.is_empty()) {
                Some(token) => next = Some(token),
                None => break,
            }
        }
        Ok(all)
    }

    /// Asks for this one secret, and reads its value unless the current version is `expected`.
    async fn read(&self, target: &CredentialTarget, name: &str, expected: Option<&str>) -> Result<Held, Fault> {
        let found = match self.calls.describe(name).await {
            Ok(found) => found,
            Err(fault) if fault.is(NOT_FOUND) => {
                self.listing.note(name, None, Instant::now());
                return Ok(Held::Missing);
            }
            Err(fault) => return Err(fault.into()),
        };
        found.check_ours(target)?;
        let seen = Seen::of(&found, &self.settings);
        self.listing.note(name, Some(seen.clone()), Instant::now());
        if found.scheduled_for_deletion {
            return Ok(Held::Missing);
        }
        if expected.is_some_and(|expected| seen.is_right(target, expected)) {
            return Ok(Held::Unread);
        }
        let text = match self.calls.read(name).await {
            Ok(text) => text,
            // It has no value, or was removed in this moment.
            Err(fault) if fault.is(NOT_FOUND) || fault.is(INVALID_REQUEST) => return Ok(Held::Missing),
            Err(fault) => return Err(fault.into()),
        };
        let Some(text) = text else { return Ok(Held::Broken("it is binary".to_owned())) };
        let text = text.expose_secret().as_bytes();
        if text.len() > document::MAX_BYTES {
            return Ok(Held::Broken(format!("it has more than {} bytes", document::MAX_BYTES)));
        }
        Ok(match document::decode(text) {
            Err(why) => Held::Broken(why),
            // The same content under the id of another version would be read at every look.
            Ok(there) if seen.is_right(target, &id(&there)) => Held::Credential(there),
            Ok(there) => Held::Blemished(there),
        })
    }
}

/// The id of the version that has this content.
fn id(credential: &Credential) -> String {
    version(credential, &fingerprint(&credential.password)).to_string()
}

/// Gives up when it can be of no use any more. What was begun is found, and gone on with, by the next try.
async fn in_time<T>(action: &'static str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(AwsFault::late(action, DEADLINE).into()))
}

/// Writes and removals go to their end, all of them, so that a fault of one leaves no other at work behind the caller's back.
impl SecretStore for AwsSecrets {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn location(&self, target: &CredentialTarget) -> String {
        self.inner.name(target)
    }

    fn put_many<'a>(&'a self, entries: &'a [(CredentialTarget, Credential)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let writes = entries.iter().map(|(target, credential)| async move {
                let write = in_time(action::PUT, self.inner.write(target, credential));
                write.await.map_err(|fault| fault.at(KIND, Action::Write, self.location(target)))
            });
            join_all(writes).await.into_iter().collect()
        })
    }

    fn get<'a>(
        &'a self,
        target: &'a CredentialTarget,
        expected: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Held, StoreError>> {
        Box::pin(async move {
            let look = in_time(action::GET, self.look(target, expected));
            look.await.map_err(|fault| fault.at(KIND, Action::Read, self.location(target)))
        })
    }

    fn arn<'a>(&'a self, target: &'a CredentialTarget) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        Box::pin(async move {
            let found = in_time(action::DESCRIBE, self.find_arn(target));
            found.await.map_err(|fault| fault.at(KIND, Action::Read, self.location(target)))
        })
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let reached = in_time(action::LIST, async { Ok(self.inner.calls.reach().await?) });
            reached.await.map_err(|fault| fault.at(KIND, Action::Read, "Secrets Manager".to_owned()))
        })
    }

    fn delete_many<'a>(
        &'a self,
        targets: &'a [CredentialTarget],
        removal: Removal,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let removals = targets.iter().map(|target| async move {
                let remove = in_time(action::DELETE, self.inner.remove(target, removal));
                remove.await.map_err(|fault| fault.at(KIND, Action::Delete, self.location(target)))
            });
            join_all(removals).await.into_iter().collect()
        })
    }
}
