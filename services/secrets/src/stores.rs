//! Every store of a cluster, together.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use pgtenant_model::{Credential, CredentialTarget, InvalidField, KubernetesStore, StoreSpec};
use uuid::Uuid;

use crate::aws::AwsSecrets;
use crate::kubernetes::{ExternalSecrets, KubernetesSecrets};
use crate::{Access, BoxFuture, Fault, FileSecrets, Findings, Found, Held, Removal, SecretStore, StoreError};

/// Secrets that are asked for at the same time, where a listing does not show them: far below the quota of 500 a second.
const ARNS_AT_ONCE: usize = 16;

/// The stores of a cluster: each of them holds every credential. They are asked at the same time, so that all of them together
/// take as long as the slowest.
#[derive(Debug, Clone)]
pub struct Stores {
    list: Vec<Arc<dyn SecretStore>>,
}

/// The stores that could not do what they were asked to, by their index; never empty. The others have done it.
#[derive(Debug)]
pub struct StoreErrors(pub Vec<(usize, StoreError)>);

impl fmt::Display for StoreErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (_, error)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{}", error.what())?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreErrors {}

impl StoreErrors {
    fn unless_none(errors: Vec<(usize, StoreError)>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// What a person can do about each, said once.
    #[must_use]
    pub fn advice(&self) -> String {
        let mut each: Vec<_> = self.0.iter().map(|(_, error)| error.advice()).collect();
        each.sort_unstable();
        each.dedup();
        each.join("; ")
    }

    /// Whether all of the faults are such.
    pub fn all(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.0.iter().all(|(_, error)| is(&error.fault))
    }

    /// Whether one of the faults is such.
    pub fn any(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.0.iter().any(|(_, error)| is(&error.fault))
    }
}

impl Stores {
    /// The stores of a cluster's spec. Nothing is read or written. `list` is the field's name, for errors.
    ///
    /// # Errors
    /// Names the field that can not be used.
    pub fn from_specs(list: &str, specs: &[StoreSpec], access: &Access) -> Result<Self, InvalidField> {
        let mut stores: Vec<Arc<dyn SecretStore>> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let place = |tail: &str| format!("{list}[{index}].{tail}");
            let client = |kind: &str| access.kubernetes().map_err(|message| InvalidField::new(place(kind), message));
            stores.push(match spec {
                StoreSpec::File(file) => Arc::new(
                    FileSecrets::new(file)
                        .map_err(|fault| InvalidField::new(place(&format!("file.{}", fault.field)), fault.message))?,
                ),
                StoreSpec::Kubernetes(KubernetesStore {}) => Arc::new(KubernetesSecrets::new(client("kubernetes")?)),
                StoreSpec::ExternalSecret(spec) => {
                    Arc::new(ExternalSecrets::new(client("externalSecret")?, spec.clone()))
                }
                StoreSpec::AwsSecretsManager(spec) => Arc::new(AwsSecrets::new(access, spec.clone())),
            });
        }
        Ok(Self { list: stores })
    }

    /// Writes all of `entries` to every store; see [`SecretStore::put_many`].
    ///
    /// # Errors
    /// The stores that could not; the others have them.
    pub async fn put_many(&self, entries: &[(CredentialTarget, Credential)]) -> Result<(), StoreErrors> {
        self.all(|store| store.put_many(entries)).await
    }

    /// Writes one credential to every store.
    ///
    /// # Errors
    /// As [`Stores::put_many`].
    pub async fn put(&self, target: &CredentialTarget, credential: &Credential) -> Result<(), StoreErrors> {
        self.put_many(&[(target.clone(), credential.clone())]).await
    }

    /// Asks every store; see [`SecretStore::get`].
    pub async fn get(&self, target: &CredentialTarget, expected: Option<Uuid>) -> Findings {
        let answers = join_all(self.list.iter().map(|store| store.get(target, expected))).await;
        let found = self.list.iter().zip(answers).map(|(store, answer)| Found {
            store: store.kind(),
            location: store.location(target),
            held: match answer {
                Err(StoreError { fault: Fault::Broken(why), .. }) => Ok(Held::Broken(why)),
                answer => answer,
            },
        });
        found.collect::<Vec<_>>().into()
    }

    /// What AWS calls those of `targets` that are there in `region`: one secret of each, in the first store that has it.
    ///
    /// # Errors
    /// The first store that did not answer.
    pub async fn arns(&self, region: &str, targets: &[CredentialTarget]) -> Result<BTreeSet<String>, StoreError> {
        let mut all = BTreeSet::new();
        for some in targets.chunks(ARNS_AT_ONCE) {
            all.extend(try_join_all(some.iter().map(|target| self.arn(region, target))).await?.into_iter().flatten());
        }
        Ok(all)
    }

    async fn arn(&self, region: &str, target: &CredentialTarget) -> Result<Option<String>, StoreError> {
        for store in &self.list {
            let arn = store.arn(target).await?;
            // arn:PARTITION:secretsmanager:REGION:…
            if arn.as_deref().is_some_and(|arn| arn.split(':').nth(3) == Some(region)) {
                return Ok(arn);
            }
        }
        Ok(None)
    }

    /// Whether every store is there; see [`SecretStore::reach`].
    ///
    /// # Errors
    /// Those that are not.
    pub async fn reach(&self) -> Result<(), StoreErrors> {
        self.all(|store| store.reach()).await
    }

    /// The trial of each store, with its kind; see [`SecretStore::try_out`].
    pub fn trials(&self) -> impl Iterator<Item = (&'static str, BoxFuture<'_, Result<String, StoreError>>)> {
        self.list.iter().map(|store| (store.kind(), store.try_out()))
    }

    /// Removes all of `targets` from every store.
    ///
    /// # Errors
    /// The stores that could not; from the others they are gone.
    pub async fn delete_many(&self, targets: &[CredentialTarget], removal: Removal) -> Result<(), StoreErrors> {
        self.all(|store| store.delete_many(targets, removal)).await
    }

    /// Kind of store and name in it of a credential, in the order of the stores.
    pub fn locations(&self, target: &CredentialTarget) -> impl Iterator<Item = (&'static str, String)> {
        self.list.iter().map(|store| (store.kind(), store.location(target)))
    }

    async fn all<'a, F>(&'a self, ask: impl Fn(&'a dyn SecretStore) -> F) -> Result<(), StoreErrors>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let answers = join_all(self.list.iter().map(|store| ask(&**store))).await;
        let errors = answers.into_iter().enumerate().filter_map(|(index, answer)| Some((index, answer.err()?)));
        StoreErrors::unless_none(errors.collect())
    }
}
