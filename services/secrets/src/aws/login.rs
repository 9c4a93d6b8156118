//! The control plane's own login as a secret holds it, and how its password is replaced: a second login gets a new one and takes the
//! place of the first, which gets a new one itself when nobody uses it any more.

use std::fmt;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::Fault;

const MADE_BY: &str = "pgtenant";
/// More than any such document: it is not copied while it grows.
const ROOM: usize = 16 * 1024;

/// JSON with the keys `username` and `password`, and where its password is to be replaced those of [`IdleLogin`]. Other keys are kept.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsLogin {
    /// Who logs in.
    pub username: String,
    /// The password.
    pub password: SecretString,
    /// When it took the other one's place.
    #[serde(default)]
    pub turned_at: Option<DateTime<Utc>>,
    #[serde(default)]
    made_by: Option<String>,
    #[serde(default)]
    idle_username: Option<String>,
    #[serde(default)]
    idle_password: Option<SecretString>,
    #[serde(default)]
    idle_next: Option<SecretString>,
    #[serde(default)]
    idle_replaced_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The login that is not in use.
#[derive(Debug, Clone, Copy)]
pub struct IdleLogin<'a> {
    /// Its name: `idleUsername`.
    pub username: &'a str,
    /// Its password: `idlePassword`; none: nobody knows it.
    pub password: Option<&'a SecretString>,
    /// The one that it is about to get, or has got already: `idleNext`.
    pub next: Option<&'a SecretString>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    username: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turned_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_next: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_replaced_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    others: &'a Map<String, Value>,
}

impl AwsLogin {
    /// One that pgtenant makes itself, with the other login that is to take its place one day.
    #[must_use]
    pub fn made(username: &str, password: SecretString, idle: (&str, SecretString)) -> Self {
        Self {
            username: username.to_owned(),
            password,
            turned_at: None,
            made_by: Some(MADE_BY.to_owned()),
            idle_username: Some(idle.0.to_owned()),
            idle_password: Some(idle.1),
            idle_next: None,
            idle_replaced_at: None,
            others: Map::new(),
        }
    }

    /// What a secret's text says. What is wrong with it is told without quoting it.
    pub(crate) fn read(text: &SecretString) -> Result<Self, Fault> {
        let wrong = || Fault::Broken("it is not JSON with the keys username and password".to_owned());
        let login: Self = serde_json::from_str(text.expose_secret()).map_err(|_| wrong())?;
        let whole = !login.username.is_empty() && !login.password.expose_secret().is_empty();
        if whole { Ok(login) } else { Err(wrong()) }
    }

    pub(crate) fn document(&self) -> Result<SecretString, Fault> {
        let text = |secret: &'_ Option<SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        let (idle_password, idle_next) =
            (text(&self.idle_password).map(Zeroizing::new), text(&self.idle_next).map(Zeroizing::new));
        let document = Document {
            username: &self.username,
            password: self.password.expose_secret(),
            made_by: self.made_by.as_deref(),
            turned_at: self.turned_at,
            idle_username: self.idle_username.as_deref(),
            idle_password: idle_password.as_ref().map(|text| text.as_str()),
            idle_next: idle_next.as_ref().map(|text| text.as_str()),
            idle_replaced_at: self.idle_replaced_at,
            others: &self.others,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *bytes, &document).map_err(|error| Fault::Broken(error.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| Fault::Broken(error.to_string()))?;
        Ok(SecretString::from(text))
    }

    /// Whether pgtenant has made it: then pgtenant may set its password on the cluster.
    #[must_use]
    pub fn is_made_by_pgtenant(&self) -> bool {
        self.made_by.as_deref() == Some(MADE_BY)
    }

    /// The login that is not in use, where the secret names one.
    #[must_use]
    pub fn idle(&self) -> Option<IdleLogin<'_>> {
        let username = self.idle_username.as_deref().filter(|idle| *idle != self.username)?;
        Some(IdleLogin { username, password: self.idle_password.as_ref(), next: self.idle_next.as_ref() })
    }

    /// Whether the idle login still has the password with which it was in use.
    #[must_use]
    pub fn idle_is_stale(&self) -> bool {
        self.turned_at.is_some_and(|turned| self.idle_replaced_at.is_none_or(|replaced| replaced < turned))
    }

    /// The idle login is about to get this password.
    #[must_use]
    pub fn with_next(&self, next: SecretString) -> Self {
        Self { idle_next: Some(next), ..self.clone() }
    }

    /// The idle login has got its next password.
    #[must_use]
    pub fn idle_replaced(&self, now: DateTime<Utc>) -> Self {
        let idle_password = self.idle_next.clone().or_else(|| self.idle_password.clone());
        Self { idle_password, idle_next: None, idle_replaced_at: Some(now), ..self.clone() }
    }

    /// The idle login takes the place of the one in use; none: its password is not known.
    #[must_use]
    pub fn turned(&self, now: DateTime<Utc>) -> Option<Self> {
        let (username, password) = (self.idle_username.clone()?, self.idle_password.clone()?);
        Some(Self {
            username,
            password,
            turned_at: Some(now),
            idle_username: Some(self.username.clone()),
            idle_password: Some(self.password.clone()),
            idle_next: None,
            idle_replaced_at: None,
            ..self.clone()
        })
    }

    /// Whether both say the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self.document(), other.document()) {
            (Ok(one), Ok(other)) => one.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

impl fmt::Debug for AwsLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody knows what the other keys hold.
        f.debug_struct("AwsLogin").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secret: Option<&SecretString>) -> Option<&str> {
        secret.map(|secret| secret.expose_secret())
    }

    #[test]
    fn a_login_survives_its_document() {
        let made = AwsLogin::made("prov_a", "a\"b\\c".into(), ("prov_b", "idle".into()));
        let read = AwsLogin::read(&made.document().unwrap()).unwrap();
        assert_eq!((read.username.as_str(), read.password.expose_secret()), ("prov_a", "a\"b\\c"));
        assert!(read.is_made_by_pgtenant() && read.same(&made));
        assert!(!format!("{made:?}").contains("a\\"), "{made:?}");
    }

    #[test]
    fn what_is_no_login_is_refused_without_a_quote() {
        for text in ["", "hunter2", r#"{"username":"u"}"#, r#"{"username":"","password":"hunter2"}"#] {
            let fault = AwsLogin::read(&text.into()).unwrap_err().to_string();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn somebody_elses_keys_are_kept() {
        let theirs = r#"{"username":"u","password":"p","port":5432,"host":"db"}"#;
        let login = AwsLogin::read(&theirs.into()).unwrap();
        assert!(!login.is_made_by_pgtenant() && login.idle().is_none() && !login.idle_is_stale());
        let again: Value = serde_json::from_str(login.document().unwrap().expose_secret()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(theirs).unwrap());
    }

    #[test]
    fn logins_turn_and_the_former_one_gets_a_new_password_too() {
        let (first, later) = (Utc::now(), Utc::now() + chrono::TimeDelta::minutes(5));
        let made = AwsLogin::made("prov_a", "a1".into(), ("prov_b", "b1".into()));
        let noted = made.with_next("b2".into());
        assert_eq!(text(noted.idle().unwrap().next), Some("b2"));
        let turned = noted.idle_replaced(first).turned(first).unwrap();
        assert_eq!((turned.username.as_str(), turned.password.expose_secret()), ("prov_b", "b2"));
        let idle = turned.idle().unwrap();
        assert_eq!((idle.username, text(idle.password), text(idle.next)), ("prov_a", Some("a1"), None));
        assert!(turned.idle_is_stale(), "whoever has read the secret before knows it");
        let replaced = turned.with_next("a2".into()).idle_replaced(later);
        assert!(!replaced.idle_is_stale());
        assert_eq!(text(replaced.idle().unwrap().password), Some("a2"));
    }
}
