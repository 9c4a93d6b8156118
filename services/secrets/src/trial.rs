//! Whether a store does what claims will need of it: the whole life of a credential that is nobody's.
//!
//! It has one name, which no claim can have. What a process leaves that is killed is removed by the next trial; two trials at the
//! same time disturb each other, notice it and begin again.

use std::time::Duration;

use pgtenant_model::{ClaimKey, Credential, CredentialTarget, Endpoint, SslMode, Tier};
use rand::RngExt as _;
use secrecy::SecretString;

use crate::credential::{Login, credential, same};
use crate::{Action, Fault, Held, Removal, SecretStore, StoreError};

/// Tries while another trial disturbs.
const TRIES: usize = 4;
/// Between them, at most.
const PAUSE: Duration = Duration::from_millis(600);

/// Writes, replaces, reads, removes, writes again, and removes for good. Says what works.
///
/// # Errors
/// The first that does not.
pub(crate) async fn write_read_remove<S: SecretStore + ?Sized>(store: &S) -> Result<String, StoreError> {
    let target = CredentialTarget { key: ClaimKey::trial(), tier: Tier::Read };
    let mut tried = live(store, &target).await;
    for _ in 1..TRIES {
        if !tried.as_ref().is_err_and(|error| matches!(error.fault, Fault::Changed)) {
            break;
        }
        let pause = PAUSE.mul_f64(rand::rng().random_range(0.1..=1.0));
        tokio::time::sleep(pause).await;
        tried = live(store, &target).await;
    }
    // Also where something failed: a write may have come further than its answer.
    let removed = store.delete_many(std::slice::from_ref(&target), Removal::Final).await;
    tried.and(removed)?;
    Ok(format!("{} was written, read and removed", store.location(&target)))
}

async fn live<S: SecretStore + ?Sized>(store: &S, target: &CredentialTarget) -> Result<(), StoreError> {
    let (first, second) = (nobodys(target), nobodys(target));
    write(store, target, &first).await?;
    store.reach().await?;
    write(store, target, &second).await?;
    read(store, target, &second).await?;
    // One that can be had back for a while is had back by being written.
    store.delete_many(std::slice::from_ref(target), Removal::Usual).await?;
    write(store, target, &first).await?;
    read(store, target, &first).await
}

async fn write<S: SecretStore + ?Sized>(
    store: &S,
    target: &CredentialTarget,
    credential: &Credential,
) -> Result<(), StoreError> {
    store.put_many(&[(target.clone(), credential.clone())]).await
}

async fn read<S: SecretStore + ?Sized>(
    store: &S,
    target: &CredentialTarget,
    written: &Credential,
) -> Result<(), StoreError> {
    let held = store.get(target, None).await?;
    if held.credential().is_some_and(|there| same(there, written)) {
        return Ok(());
    }
    let fault = match held {
        Held::Broken(why) => Fault::Broken(why),
        _ => Fault::Changed,
    };
    Err(fault.at(store.kind(), Action::Read, store.location(target)))
}

/// A credential whose password opens nothing.
fn nobodys(target: &CredentialTarget) -> Credential {
    let endpoint = Endpoint { host: "localhost".to_owned(), port: 5432, read_host: None, read_port: None };
    credential(&Login {
        username: &target.role(),
        password: &SecretString::from(format!("{:032x}", rand::random::<u128>())),
        database: &target.key.database(),
        endpoint: &endpoint,
        hosts: &[],
        sslmode: SslMode::VerifyFull,
        ca_crt: None,
        reads: false,
        pool: None,
    })
}
