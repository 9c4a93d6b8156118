//! A login that is kept in one secret, which a description names: the provisioner's, and the master login that RDS keeps.

use pgtenant_model::AwsSecretRef;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use uuid::Uuid;

use super::calls::{Calls, EXISTS, NOT_FOUND, action};
use super::login::AwsLogin;
use super::pace::Kind;
use super::{AwsFault, DEADLINE, KIND};
use crate::{Access, Action, Fault, StoreError};

impl Access {
    /// The login in a secret; none: there is no such secret. `secretsmanager:GetSecretValue`.
    ///
    /// # Errors
    /// AWS refused or did not answer, or the secret is no login.
    pub async fn read_aws(&self, secret: &AwsSecretRef) -> Result<Option<AwsLogin>, StoreError> {
        let at = |fault: Fault| fault.at(KIND, Action::Read, secret.name.clone());
        let calls = self.calls(secret);
        let answer = timeout(DEADLINE, calls.read(&secret.name)).await;
        match answer.unwrap_or_else(|_| Err(AwsFault::late(action::GET, DEADLINE))) {
            Ok(Some(text)) => AwsLogin::read(&text).map(Some).map_err(at),
            Ok(None) => Err(at(Fault::Broken("it is not text".to_owned()))),
            Err(fault) if fault.is(NOT_FOUND) => Ok(None),
            Err(fault) => Err(at(fault.into())),
        }
    }

    /// Makes a secret of a login; false: there is one of this name, which is left as it is. `secretsmanager:CreateSecret`.
    ///
    /// # Errors
    /// AWS refused or did not answer.
    pub async fn make_aws(&self, secret: &AwsSecretRef, login: &AwsLogin) -> Result<bool, StoreError> {
        let calls = self.calls(secret);
        let at = |fault: Fault| fault.at(KIND, Action::Write, secret.name.clone());
        let text = login.document().map_err(at)?;
        let answer = timeout(DEADLINE, calls.make(&secret.name, "Login of the pgtenant control plane", &text)).await;
        match answer.unwrap_or_else(|_| Err(AwsFault::late(action::CREATE, DEADLINE))) {
            Ok(()) => Ok(true),
            Err(fault) if fault.is(EXISTS) => Ok(false),
            Err(fault) => Err(at(fault.into())),
        }
    }

    /// Writes a login to a secret that is there. `secretsmanager:PutSecretValue`.
    ///
    /// # Errors
    /// AWS refused or did not answer; then nobody knows whether it is written.
    pub async fn write_aws(&self, secret: &AwsSecretRef, login: &AwsLogin) -> Result<(), StoreError> {
        let at = |fault: Fault| fault.at(KIND, Action::Write, secret.name.clone());
        let calls = self.calls(secret);
        let (text, version) = (login.document().map_err(at)?, Uuid::new_v4().to_string());
        let answer = timeout(DEADLINE, calls.put(&secret.name, &version, &text)).await;
        let written = answer.unwrap_or_else(|_| Err(AwsFault::late(action::PUT, DEADLINE)));
        written.map(drop).map_err(|fault| at(fault.into()))
    }

    fn calls(&self, secret: &AwsSecretRef) -> Calls {
        // An ARN names its region: arn:aws:secretsmanager:eu-west-1:…
        let named = secret.name.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)).map(ToOwned::to_owned);
        let region = secret.region.clone().or(named);
        let pace = self.paces().of(region.as_deref());
        Calls::new(self.aws().clone(), region, pace)
    }
}

impl Calls {
    async fn make(&self, name: &str, description: &str, text: &SecretString) -> Result<(), AwsFault> {
        let call = self.client().await.create_secret().name(name).description(description);
        let call = call.secret_string(text.expose_secret());
        self.ask(Kind::Create, action::CREATE, call.send()).await.map(drop)
    }
}
