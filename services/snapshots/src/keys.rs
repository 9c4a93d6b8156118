//! Who can read dumps: recipients, which are public, and identities, which are not.

use std::path::PathBuf;

use age::x25519::{Identity, Recipient};
use pgtenant_model::InvalidField;
use secrecy::SecretString;

use crate::{SnapshotError, private};

/// How many private keys one file may have: each costs a try for each part.
const MOST_IDENTITIES: usize = 16;

/// A new private key, as a line of an identity file of age (`AGE-SECRET-KEY-1…`), and its public key (`age1…`).
#[must_use]
pub fn generate_identity() -> (SecretString, String) {
    let identity = Identity::generate();
    (identity.to_string(), identity.to_public().to_string())
}

/// The public keys that dumps are encrypted for, and where the private one is.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    recipients: Vec<Recipient>,
    file: Option<PathBuf>,
}

impl Keys {
    pub(crate) fn new(recipients: &[String], file: Option<PathBuf>) -> Result<Self, InvalidField> {
        let mut read: Vec<Recipient> = Vec::with_capacity(recipients.len());
        for (index, text) in recipients.iter().enumerate() {
            let wrong = |why: &str| InvalidField::new(format!("recipients[{index}]"), why);
            let recipient = recipient(text).map_err(|why| wrong(&why))?;
            if read.contains(&recipient) {
                return Err(wrong("is listed twice"));
            }
            read.push(recipient);
        }
        if read.is_empty() {
            return Err(InvalidField::new("recipients", "name at least one public key of age"));
        }
        Ok(Self { recipients: read, file })
    }

    pub(crate) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// As they are in a manifest.
    pub(crate) fn recipient_texts(&self) -> Vec<String> {
        self.recipients.iter().map(ToString::to_string).collect()
    }

    /// The private keys, read now: a file that is mounted may change.
    pub(crate) async fn identities(&self) -> Result<Identities, SnapshotError> {
        let file = self.file.clone().ok_or(SnapshotError::NoIdentity)?;
        let work = move || {
            let text = private::read(&file)?;
            let unusable = |why| SnapshotError::KeyFile { file: file.display().to_string(), why };
            identities(&text).map(Identities).map_err(unusable)
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| Err(SnapshotError::KeyFile { file: "it".to_owned(), why: error.to_string() }))
    }

    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

/// Private keys. There is no `Debug`.
#[derive(Clone)]
pub(crate) struct Identities(Vec<Identity>);

impl From<Vec<Identity>> for Identities {
    fn from(identities: Vec<Identity>) -> Self {
        Self(identities)
    }
}

impl Identities {
    pub(crate) fn all(&self) -> &[Identity] {
        &self.0
    }

    /// Their public keys.
    pub(crate) fn held(&self) -> Vec<String> {
        self.0.iter().map(|identity| identity.to_public().to_string()).collect()
    }

    /// The first one that is of a recipient.
    pub(crate) fn of(&self, recipients: &[String]) -> Option<&Identity> {
        self.0.iter().find(|identity| recipients.contains(&identity.to_public().to_string()))
    }
}

/// What is refused is not quoted: it may be a private key.
fn recipient(text: &str) -> Result<Recipient, String> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err("is a private key, which does not belong here; name its public key, and make a new pair".to_owned());
    }
    if !text.starts_with("age1") {
        return Err("is not a public key of age, which begins with age1".to_owned());
    }
    text.parse().map_err(|why| {
        format!(
            "is not a public key as age-keygen makes it ({why}); keys of plugins, hardware, SSH and post-quantum ones are not taken"
        )
    })
}

/// The lines of an identity file of age. What is refused is not quoted.
fn identities(text: &str) -> Result<Vec<Identity>, String> {
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("-----BEGIN AGE") || line.starts_with("age-encryption.org/") {
            return Err("it is encrypted with a passphrase, which nobody could enter".to_owned());
        }
        if !line.starts_with("AGE-SECRET-KEY-1") {
            return Err(format!("line {number} is no private key of age, which begins with AGE-SECRET-KEY-1"));
        }
        let identity = line.parse().map_err(|why| format!("line {number} is no private key of age: {why}"))?;
        read.push(identity);
    }
    match read.len() {
        0 => Err("there is no private key in it".to_owned()),
        1..=MOST_IDENTITIES => Ok(read),
        _ => Err(format!("there are more than {MOST_IDENTITIES} private keys in it")),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn recipients_are_x25519_keys() {
        let (secret, public) = generate_identity();
        assert_eq!(Keys::new(std::slice::from_ref(&public), None).unwrap().recipient_texts().join(" "), public);
        let error = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            Keys::new(&list, None).unwrap_err().to_string()
        };
        assert!(error(&[]).contains("at least one"));
        assert!(error(&[&public, &public]).starts_with("recipients[1]: is listed twice"));
        assert!(error(&["ssh-ed25519 AAAA"]).contains("begins with age1"));
        assert!(
            error(&["age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt"]).contains("plugins")
        );
        let wrong = error(&[secret.expose_secret()]);
        assert!(wrong.contains("private key") && !wrong.contains(&secret.expose_secret()[20..]), "{wrong}");
    }

    #[test]
    fn an_identity_file_is_read_as_age_writes_it() {
        let (secret, public) = generate_identity();
        let secret = secret.expose_secret();
        let text = format!("# created: 2026-11-22T02:00:00Z\n# public key: {public}\n{secret}\n\n");
        let read = Identities(identities(&text).unwrap());
        assert_eq!(read.held().join(" "), public);
        assert!(read.of(&[public]).is_some());
        for (text, why) in [
            ("# nothing", "no private key"),
            ("-----BEGIN AGE ENCRYPTED FILE-----", "passphrase"),
            ("AGE-PLUGIN-YUBIKEY-1QQ", "line 1 is no private key"),
            ("AGE-SECRET-KEY-1QQQ", "line 1 is no private key"),
        ] {
            let error = identities(text).err().unwrap();
            assert!(error.contains(why) && !error.contains("QQ"), "{error}");
        }
    }
}
