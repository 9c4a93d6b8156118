//! Passwords and what the server is told of them.

use std::fmt;

use rand::Rng;
use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// 40 of 62 characters: 238 bits.
const PASSWORD_CHARACTERS: usize = 40;

/// What stands in a printed statement where the verifier was.
pub(crate) const WITHHELD: &str = "<withheld>";

/// A SCRAM-SHA-256 verifier (RFC 5803): enough for a server to check a password, not to know it. It is sent in place
/// of the password, so that no log, statistics view or process list of the server can hold one. Neither `Debug` nor
/// `Display` show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier(Option<Zeroizing<String>>);

impl Verifier {
    /// The verifier of `password`, with a fresh salt and PostgreSQL's 4096 rounds: about 2 ms of a core.
    #[must_use]
    pub fn of(password: &SecretString) -> Self {
        let bytes = password.expose_secret().as_bytes();
        Self(Some(Zeroizing::new(postgres_protocol::password::scram_sha_256(bytes))))
    }

    /// Stands for a verifier in a plan that is only printed; a plan that has one is not applied.
    #[must_use]
    pub const fn withheld() -> Self {
        Self(None)
    }

    /// Whether it only stands for one.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.as_ref().map_or(WITHHELD, |text| text.as_str())
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(<withheld>)")
    }
}

/// A new password: 40 characters of `A-Z a-z 0-9`, which no URI, shell, YAML or ini file has to escape.
pub fn generate_password<R: Rng + ?Sized>(rng: &mut R) -> SecretString {
    Alphanumeric.sample_string(rng, PASSWORD_CHARACTERS).into()
}

/// Takes verifiers out of a text that somebody else wrote.
pub(crate) fn redact(text: &str) -> String {
    const MARK: &str = "SCRAM-SHA-256$";
    let mut rest = text;
    let mut clean = String::with_capacity(text.len());
    while let Some(at) = rest.find(MARK) {
        clean.push_str(&rest[..at]);
        clean.push_str(WITHHELD);
        let after = &rest[at + MARK.len()..];
        let plain = |c: char| c.is_ascii_alphanumeric() || "+/=:$".contains(c);
        rest = after.trim_start_matches(plain);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_plain_and_different() {
        let mut rng = rand::rng();
        let (a, b) = (generate_password(&mut rng), generate_password(&mut rng));
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_eq!(a.expose_secret().len(), PASSWORD_CHARACTERS);
        assert!(a.expose_secret().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_verifier_never_shows_itself() {
        let verifier = Verifier::of(&"hunter2".into());
        assert!(verifier.expose().starts_with("SCRAM-SHA-256$4096:"));
        assert!(!verifier.expose().contains("hunter2"));
        assert_eq!(format!("{verifier:?}"), "Verifier(<withheld>)");
        let text = format!("syntax error at PASSWORD '{}', line 1", verifier.expose());
        assert_eq!(redact(&text), "syntax error at PASSWORD '<withheld>', line 1");
        assert_eq!(redact("nothing here"), "nothing here");
    }
}
