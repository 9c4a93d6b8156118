//! Every store of a cluster, together.

use std::sync::Arc;

use futures::future::join_all;
use pgtenant_model::{Credential, CredentialTarget, InvalidField, KubernetesStore, StoreLocation, StoreSpec};
use secrecy::SecretString;

use crate::kubernetes::{ExternalSecrets, KubernetesSecrets};
use crate::{Access, Fault, FileSecrets, Held, SecretStore, StoreError, fingerprint, same};

/// The stores of a cluster: each of them holds every credential.
#[derive(Debug, Clone)]
pub struct Stores {
    list: Vec<Arc<dyn SecretStore>>,
}

/// What the stores of a cluster hold for one role.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// None of them has it.
    Missing,
    /// All of them have this one.
    Same(Credential),
    /// They do not agree: at least one has a credential, and another has none, another one, or something broken.
    Differs(Vec<Found>),
    /// At least one has something that is no credential, and none has one.
    Broken {
        /// The first such store.
        store: &'static str,
        /// The name in it.
        location: String,
        /// Why it can not be read; quotes nothing.
        why: String,
    },
}

/// What one store holds.
#[derive(Debug, Clone)]
pub struct Found {
    /// The store's kind.
    pub store: &'static str,
    /// The name in it.
    pub location: String,
    /// What is there.
    pub held: Held,
}

impl Stores {
    /// The stores of a cluster's spec. Nothing is read or written.
    ///
    /// # Errors
    /// Names the field that can not be used.
    pub fn from_specs(specs: &[StoreSpec], access: &Access) -> Result<Self, InvalidField> {
        let mut list: Vec<Arc<dyn SecretStore>> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let place = |tail: &str| format!("stores[{index}].{tail}");
            let client = |kind: &str| access.kubernetes().map_err(|message| InvalidField::new(place(kind), message));
            list.push(match spec {
                StoreSpec::File(file) => Arc::new(
                    FileSecrets::new(file)
                        .map_err(|fault| InvalidField::new(place(&format!("file.{}", fault.field)), fault.message))?,
                ),
                StoreSpec::Kubernetes(KubernetesStore {}) => Arc::new(KubernetesSecrets::new(client("kubernetes")?)),
                StoreSpec::ExternalSecret(spec) => {
                    Arc::new(ExternalSecrets::new(client("externalSecret")?, spec.clone()))
                }
            });
        }
        Ok(Self { list })
    }

    /// Writes all of `entries` to one store after the other; see [`SecretStore::put_many`].
    ///
    /// # Errors
    /// The first store that could not; stores behind it were not asked.
    pub async fn put_many(&self, entries: &[(CredentialTarget, Credential)]) -> Result<(), StoreError> {
        for store in &self.list {
            store.put_many(entries).await?;
        }
        Ok(())
    }

    /// Writes one credential to every store.
    ///
    /// # Errors
    /// As [`Stores::put_many`].
    pub async fn put(&self, target: &CredentialTarget, credential: &Credential) -> Result<(), StoreError> {
        self.put_many(&[(target.clone(), credential.clone())]).await
    }

    /// Asks every store and compares.
    ///
    /// # Errors
    /// A store that did not answer. Nothing follows from that for the credential: try later, do not make a new one.
    pub async fn get(&self, target: &CredentialTarget) -> Result<Verdict, StoreError> {
        let mut found = Vec::with_capacity(self.list.len());
        let answers = join_all(self.list.iter().map(|store| store.get(target))).await;
        for (store, answer) in self.list.iter().zip(answers) {
            let held = match answer {
                Ok(held) => held,
                Err(StoreError { fault: Fault::Broken(why), .. }) => Held::Broken(why),
                Err(error) => return Err(error),
            };
            found.push(Found { store: store.kind(), location: store.location(target), held });
        }
        Ok(Verdict::of(found))
    }

    /// Whether every store is there; see [`SecretStore::reach`].
    ///
    /// # Errors
    /// The first that is not.
    pub async fn reach(&self) -> Result<(), StoreError> {
        for store in &self.list {
            store.reach().await?;
        }
        Ok(())
    }

    /// Removes all of `targets` from every store.
    ///
    /// # Errors
    /// The first store that could not; the others were asked all the same.
    pub async fn delete_many(&self, targets: &[CredentialTarget]) -> Result<(), StoreError> {
        let mut result = Ok(());
        for store in &self.list {
            let one = store.delete_many(targets).await;
            result = result.and(one);
        }
        result
    }

    /// Removes one credential from every store.
    ///
    /// # Errors
    /// As [`Stores::delete_many`].
    pub async fn delete(&self, target: &CredentialTarget) -> Result<(), StoreError> {
        self.delete_many(std::slice::from_ref(target)).await
    }

    /// Every place of a credential, in the order of the stores.
    #[must_use]
    pub fn locations(&self, target: &CredentialTarget) -> Vec<StoreLocation> {
        let location = |store: &Arc<dyn SecretStore>| StoreLocation {
            store: store.kind().to_owned(),
            location: store.location(target),
        };
        self.list.iter().map(location).collect()
    }
}

impl Verdict {
    fn of(found: Vec<Found>) -> Self {
        let mut credentials = found.iter().filter_map(Found::credential);
        let Some(first) = credentials.next() else {
            return found
                .into_iter()
                .find_map(|Found { store, location, held }| match held {
                    Held::Broken(why) => Some(Self::Broken { store, location, why }),
                    Held::Missing | Held::Credential(_) | Held::Blemished(_) | Held::Reference => None,
                })
                .unwrap_or(Self::Missing);
        };
        let blemished = found.iter().any(|one| matches!(one.held, Held::Blemished(_)));
        let references = found.iter().filter(|one| matches!(one.held, Held::Reference)).count();
        if !blemished && credentials.filter(|other| same(first, other)).count() + 1 + references == found.len() {
            Self::Same(first.clone())
        } else {
            Self::Differs(found)
        }
    }

    /// The credential whose password has this [`fingerprint`], wherever it was found: the one to write to all stores again.
    #[must_use]
    pub fn with_fingerprint(&self, wanted: &str) -> Option<&Credential> {
        let matches = |password: &SecretString| fingerprint(password) == wanted;
        match self {
            Self::Missing | Self::Broken { .. } => None,
            Self::Same(credential) => Some(credential).filter(|c| matches(&c.password)),
            Self::Differs(found) => found.iter().filter_map(Found::credential).find(|c| matches(&c.password)),
        }
    }

    /// For people, without anything secret; empty for [`Verdict::Same`].
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Missing => "no store has the credential".to_owned(),
            Self::Same(_) => String::new(),
            Self::Broken { store, location, why } => {
                format!("store {store:?}: {location} is not a credential: {why}")
            }
            Self::Differs(found) => {
                let first = found.iter().find_map(Found::credential);
                let says = |one: &Found| {
                    let what = match &one.held {
                        Held::Missing => "has none".to_owned(),
                        Held::Reference => "refers to another store".to_owned(),
                        Held::Broken(why) => format!("is not a credential: {why}"),
                        Held::Blemished(_) => "was changed by somebody else".to_owned(),
                        Held::Credential(c) if first.is_some_and(|f| same(f, c)) => "has one".to_owned(),
                        Held::Credential(_) => "has another one".to_owned(),
                    };
                    format!("store {:?}: {} {what}", one.store, one.location)
                };
                found.iter().map(says).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

impl Found {
    fn credential(&self) -> Option<&Credential> {
        self.held.credential()
    }
}
