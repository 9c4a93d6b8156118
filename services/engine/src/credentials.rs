//! Which password a tier gets: the one that the stores hold, or a new one.

use chrono::Utc;
use pgtenant_ledger::{Claim, CredentialState};
use pgtenant_model::{Credential, CredentialTarget, Endpoint, HostPort, SslMode, Tier};
use pgtenant_postgres::generate_password;
use pgtenant_secrets::{Login, Stores, Verdict, fingerprint};
use secrecy::SecretString;

use crate::failure::Failure;

/// How tenants reach a cluster: what all of its credentials have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) endpoint: Endpoint,
    /// The URI's hosts; empty where the endpoint follows the primary by itself.
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) sslmode: SslMode,
    pub(crate) ca_crt: Option<String>,
}

impl Reach {
    fn credential(&self, target: &CredentialTarget, password: &SecretString) -> Credential {
        pgtenant_secrets::credential(&Login {
            username: &target.role(),
            password,
            database: &target.key.database(),
            endpoint: &self.endpoint,
            hosts: &self.hosts,
            sslmode: self.sslmode,
            ca_crt: self.ca_crt.as_deref(),
        })
    }
}

/// A tier's credential as it should be everywhere.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) target: CredentialTarget,
    pub(crate) credential: Credential,
    /// Some store does not hold exactly this.
    pub(crate) store: bool,
    /// The server does not have this password yet, or nobody knows whether it has.
    pub(crate) set: bool,
    /// Why there is a new password in place of an earlier one.
    pub(crate) rotated: Option<String>,
}

/// Decides for one tier. Nothing is written.
///
/// The ledger keeps a fingerprint of the password that the stores should hold. So a changed store can be told from a
/// changed server: a store that was changed gets a new password, a server that was changed gets the stored one back.
pub(crate) async fn wanted(claim: &Claim, tier: Tier, reach: &Reach, stores: &Stores) -> Result<Wanted, Failure> {
    let target = CredentialTarget { key: claim.key.clone(), tier };
    let held = stores.get(&target).await.map_err(Failure::at("store"))?;
    let known = claim.credentials.get(&tier);
    if known.is_some() && matches!(held, Verdict::Missing) {
        // Lost is what a store that is there does not have: a volume that is not mounted has lost nothing.
        stores.reach().await.map_err(Failure::at("store"))?;
    }
    let (password, set, rotated) = choose(&held, known, claim.rotate.contains(&tier), &target.role());
    let credential = reach.credential(&target, &password);
    let store = !matches!(&held, Verdict::Same(there) if pgtenant_secrets::same(there, &credential));
    Ok(Wanted { target, credential, store, set, rotated })
}

fn choose(
    held: &Verdict,
    known: Option<&CredentialState>,
    asked: bool,
    role: &str,
) -> (SecretString, bool, Option<String>) {
    if asked {
        return (generate_password(&mut rand::rng()), true, Some("a new password was asked for".to_owned()));
    }
    match known {
        Some(CredentialState { fingerprint, .. }) => match held.with_fingerprint(fingerprint) {
            Some(credential) => (credential.password.clone(), false, None),
            None => (generate_password(&mut rand::rng()), true, Some(lost(held))),
        },
        // Stored by a try that did not come to its end, or kept from an earlier claim: nobody has given it out since.
        None => match held {
            Verdict::Same(credential) if credential.username == role => (credential.password.clone(), true, None),
            _ => (generate_password(&mut rand::rng()), true, None),
        },
    }
}

fn lost(held: &Verdict) -> String {
    match held {
        Verdict::Same(_) => "the stored credential was changed by hand".to_owned(),
        other => other.describe(),
    }
}

impl Wanted {
    /// What the ledger keeps once the password is proven.
    pub(crate) fn state(&self, known: Option<&CredentialState>) -> CredentialState {
        let fingerprint = fingerprint(&self.credential.password);
        match known {
            Some(known) if known.fingerprint == fingerprint => known.clone(),
            _ => CredentialState { fingerprint, set_at: Utc::now() },
        }
    }
}
