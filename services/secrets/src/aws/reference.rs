//! A login that is kept in one secret, which a description names: the provisioner's, and the master login that RDS keeps.

use pgtenant_model::AwsSecretRef;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::calls::{Calls, EXISTS, NOT_FOUND, action};
use super::pace::Kind;
use super::{AwsFault, DEADLINE, KIND};
use crate::{Access, Action, Fault, StoreError};

const MADE_BY: &str = "pgtenant";

/// A login as a secret holds it: JSON with the keys `username` and `password`. Other keys are passed over.
#[derive(Debug, Clone, Deserialize)]
pub struct AwsLogin {
    /// Who logs in.
    pub username: String,
    /// The password.
    pub password: SecretString,
    #[serde(default, rename = "madeBy")]
    made_by: Option<String>,
}

impl AwsLogin {
    /// One that pgtenant makes itself.
    #[must_use]
    pub fn made(username: &str, password: SecretString) -> Self {
        Self { username: username.to_owned(), password, made_by: Some(MADE_BY.to_owned()) }
    }

    /// Whether pgtenant has made it: then pgtenant may set its password on the cluster.
    #[must_use]
    pub fn is_made_by_pgtenant(&self) -> bool {
        self.made_by.as_deref() == Some(MADE_BY)
    }

    fn document(&self) -> SecretString {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let password = Zeroizing::new(text(self.password.expose_secret()));
        let made_by = self.made_by.as_deref().map(|by| format!(",\"madeBy\":{}", text(by))).unwrap_or_default();
        let username = text(&self.username);
        SecretString::from(format!("{{\"username\":{username},\"password\":{}{made_by}}}", *password))
    }
}

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
            Ok(Some(text)) => login(&text).map(Some).map_err(at),
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
        let text = login.document();
        let answer = timeout(DEADLINE, calls.make(&secret.name, "Login of the pgtenant control plane", &text)).await;
        match answer.unwrap_or_else(|_| Err(AwsFault::late(action::CREATE, DEADLINE))) {
            Ok(()) => Ok(true),
            Err(fault) if fault.is(EXISTS) => Ok(false),
            Err(fault) => Err(Fault::from(fault).at(KIND, Action::Write, secret.name.clone())),
        }
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

/// What is wrong with it is told without quoting it.
fn login(text: &SecretString) -> Result<AwsLogin, Fault> {
    let wrong = || Fault::Broken("it is not JSON with the keys username and password".to_owned());
    let login: AwsLogin = serde_json::from_str(text.expose_secret()).map_err(|_| wrong())?;
    let whole = !login.username.is_empty() && !login.password.expose_secret().is_empty();
    if whole { Ok(login) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_survives_its_document() {
        let made = AwsLogin::made("prov_a", "a\"b\\c".into());
        let read = login(&made.document()).unwrap();
        assert_eq!((read.username.as_str(), read.password.expose_secret()), ("prov_a", "a\"b\\c"));
        assert!(read.is_made_by_pgtenant());
        assert!(!format!("{made:?}").contains("a\\"), "{made:?}");
    }

    #[test]
    fn what_is_no_login_is_refused_without_a_quote() {
        let theirs = login(&r#"{"username":"u","password":"p","port":5432,"host":"db"}"#.into()).unwrap();
        assert!(!theirs.is_made_by_pgtenant());
        for text in ["", "hunter2", r#"{"username":"u"}"#, r#"{"username":"","password":"hunter2"}"#] {
            let fault = login(&text.into()).unwrap_err().to_string();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
