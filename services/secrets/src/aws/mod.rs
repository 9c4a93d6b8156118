//! Secrets in AWS Secrets Manager.

use pgtenant_aws::Aws;
use pgtenant_model::{AwsSecretsManagerStore, Credential, CredentialTarget};
use uuid::Uuid;

use crate::{Action, BoxFuture, Fault, Held, Removal, SecretStore, StoreError};

const KIND: &str = "awsSecretsManager";

/// The store `awsSecretsManager`.
#[derive(Debug)]
pub struct AwsSecrets {
    spec: AwsSecretsManagerStore,
}

impl AwsSecrets {
    /// A store as a cluster's spec has it. Nothing is asked.
    #[must_use]
    pub fn new(_aws: &Aws, spec: AwsSecretsManagerStore) -> Self {
        Self { spec }
    }

    fn unmade<T>(&self, action: Action) -> Result<T, StoreError> {
        Err(Fault::Broken("is being written".to_owned()).at(KIND, action, self.spec.name.clone()))
    }
}

impl SecretStore for AwsSecrets {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn location(&self, target: &CredentialTarget) -> String {
        self.spec.name.replace("{namespace}", target.key.namespace()).replace("{role}", &target.role())
    }

    fn put_many<'a>(&'a self, _entries: &'a [(CredentialTarget, Credential)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { self.unmade(Action::Write) })
    }

    fn get<'a>(
        &'a self,
        _target: &'a CredentialTarget,
        _expected: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Held, StoreError>> {
        Box::pin(async { self.unmade(Action::Read) })
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { self.unmade(Action::Read) })
    }

    fn delete_many<'a>(
        &'a self,
        _targets: &'a [CredentialTarget],
        _removal: Removal,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { self.unmade(Action::Delete) })
    }
}
