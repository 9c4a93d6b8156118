//! What the stores of a cluster hold for one role.

use pgtenant_model::Credential;
use secrecy::SecretString;

use crate::{Fault, Held, StoreError, StoreErrors, fingerprint, same};

/// What each store of a cluster holds for one role, in the order of the stores.
#[derive(Debug)]
pub struct Findings(Vec<Found>);

/// What one store holds, or why nobody knows.
#[derive(Debug)]
pub struct Found {
    /// The store's kind.
    pub store: &'static str,
    /// The name in it.
    pub location: String,
    /// What is there. An error says nothing about the credential: try later, do not make a new one.
    pub held: Result<Held, StoreError>,
}

impl From<Vec<Found>> for Findings {
    fn from(found: Vec<Found>) -> Self {
        Self(found)
    }
}

impl Findings {
    /// Each store's.
    #[must_use]
    pub fn each(&self) -> &[Found] {
        &self.0
    }

    /// Every credential that was shown.
    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        self.0.iter().filter_map(Found::credential)
    }

    /// The credential whose password has this [`fingerprint`], wherever it was found: the one to write to all stores again.
    #[must_use]
    pub fn with_fingerprint(&self, wanted: &str) -> Option<&Credential> {
        self.credentials().find(|credential| is(wanted, &credential.password))
    }

    /// The credential that every store has, where they agree and each of them shows it.
    #[must_use]
    pub fn unanimous(&self) -> Option<&Credential> {
        let first = self.credentials().next()?;
        self.each().iter().all(|found| found.holds(first)).then_some(first)
    }

    /// Whether every store answered that it has what was expected, and none showed it.
    #[must_use]
    pub fn all_unread(&self) -> bool {
        let fine = |found: &Found| matches!(found.held, Ok(Held::Unread | Held::Reference));
        self.0.iter().all(fine) && self.0.iter().any(|found| matches!(found.held, Ok(Held::Unread)))
    }

    /// Itself, if every store has answered.
    ///
    /// # Errors
    /// Those that did not.
    pub fn complete(self) -> Result<Self, StoreErrors> {
        if self.0.iter().all(|found| found.held.is_ok()) {
            return Ok(self);
        }
        Err(StoreErrors(self.unanswered().collect()))
    }

    /// The stores that did not answer, by their index, and why.
    pub fn unanswered(self) -> impl Iterator<Item = (usize, StoreError)> {
        self.0.into_iter().enumerate().filter_map(|(index, found)| Some((index, found.held.err()?)))
    }
}

impl Found {
    fn credential(&self) -> Option<&Credential> {
        self.held.as_ref().ok()?.credential()
    }

    /// Whether nothing has to be written so that the store has `credential`, which is what was expected of it.
    #[must_use]
    pub fn holds(&self, credential: &Credential) -> bool {
        match &self.held {
            Ok(Held::Credential(there)) => same(there, credential),
            Ok(Held::Reference | Held::Unread) => true,
            Ok(Held::Missing | Held::Blemished(_) | Held::Broken(_)) | Err(_) => false,
        }
    }

    /// Whether something is there that is somebody else's.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(&self.held, Err(StoreError { fault: Fault::Foreign(_), .. }))
    }

    /// Whether somebody has put something else in the place of the password with this [`fingerprint`].
    #[must_use]
    pub fn is_another(&self, wanted: &str) -> bool {
        match &self.held {
            Ok(Held::Credential(there) | Held::Blemished(there)) => !is(wanted, &there.password),
            Ok(Held::Broken(_)) => true,
            Ok(Held::Missing | Held::Reference | Held::Unread) | Err(_) => false,
        }
    }
}

fn is(wanted: &str, password: &SecretString) -> bool {
    fingerprint(password) == wanted
}
