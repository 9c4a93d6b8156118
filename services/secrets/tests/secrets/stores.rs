//! Several stores together.

use std::fs;
use std::path::Path;

use pgtenant_model::{StoreSpec, Tier};
use pgtenant_secrets::{Access, Action, Fault, Held, Removal, Stores, fingerprint, version};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::{made, spec, target, targets, tiers};

fn stores(directories: &[&Path]) -> Stores {
    let specs: Vec<StoreSpec> = directories.iter().map(|d| StoreSpec::File(spec(d))).collect();
    Stores::from_specs("stores", &specs, &Access::default()).unwrap()
}

fn print(password: &str) -> String {
    fingerprint(&SecretString::from(password))
}

#[tokio::test]
async fn stores_are_compared() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let both = stores(&[one.path(), two.path()]);
    let only_two = stores(&[two.path()]);
    let target = target("ns", "db", Tier::Read);
    let file = one.path().join("customer/ns/ns-db-read.json");
    let known = print("right");

    let found = both.get(&target, None).await;
    assert!(found.each().iter().all(|one| matches!(one.held, Ok(Held::Missing))), "{found:?}");
    assert!(found.unanimous().is_none() && !found.all_unread());
    assert!(found.complete().is_ok());

    both.put(&target, &made(&target, "right")).await.unwrap();
    let found = both.get(&target, None).await;
    assert_eq!(found.unanimous().unwrap().password.expose_secret(), "right");
    let places: Vec<_> = both.locations(&target).collect();
    assert_eq!(places, vec![("file", "customer/ns/ns-db-read.json".to_owned()); 2]);

    // Another one, none, and something broken: the one that the ledger knows is found in each case.
    only_two.put(&target, &made(&target, "wrong")).await.unwrap();
    let found = both.get(&target, None).await;
    assert!(found.unanimous().is_none());
    assert_eq!(found.with_fingerprint(&known).unwrap().password.expose_secret(), "right");
    assert!(found.with_fingerprint(&print("x")).is_none());
    assert_eq!(found.each().iter().map(|one| one.is_another(&known)).collect::<Vec<_>>(), [false, true]);
    assert!(!format!("{found:?}").contains("right"), "no password in Debug");

    only_two.put(&target, &made(&target, "right")).await.unwrap();
    for (spoil, is_another) in [(None, false), (Some("spoilt"), true)] {
        fs::remove_file(&file).unwrap_or_default();
        if let Some(text) = spoil {
            fs::write(&file, text).unwrap();
        }
        let found = both.get(&target, None).await;
        assert!(matches!(found.each()[0].held, Ok(Held::Missing | Held::Broken(_))), "{found:?}");
        assert_eq!(found.each()[0].is_another(&known), is_another);
        assert!(found.unanimous().is_none() && found.with_fingerprint(&known).is_some());
    }
}

/// A file in the place of its directory: it can be neither read nor written.
fn break_down(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::write(directory, "").unwrap();
}

#[tokio::test]
async fn a_store_that_is_down_keeps_none_of_the_others_from_being_asked() {
    let dirs = [(); 3].map(|()| TempDir::new().unwrap());
    let all = stores(&dirs.each_ref().map(TempDir::path));
    let entries = tiers("ns", "db", "one");
    all.put_many(&entries).await.unwrap();
    break_down(dirs[0].path());

    let later = tiers("ns", "db", "two");
    let errors = all.put_many(&later).await.unwrap_err();
    assert_eq!(errors.0.iter().map(|(index, error)| (*index, error.action)).collect::<Vec<_>>(), [(0, Action::Write)]);
    assert!(errors.any(|fault| matches!(fault, Fault::Io { .. })), "{errors}");
    // The later ones of the list have it all the same.
    for dir in &dirs[1..] {
        let found = stores(&[dir.path()]).get(&later[0].0, None).await;
        assert_eq!(found.unanimous().unwrap().password.expose_secret(), "two");
    }
    // A store that does not answer says nothing about the credential.
    let found = all.get(&later[0].0, None).await;
    assert!(found.unanimous().is_none());
    assert!(!found.each()[0].is_another(&print("two")));
    let unanswered = found.complete().unwrap_err();
    assert_eq!(unanswered.0.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
    assert_eq!(all.reach().await.unwrap_err().0.len(), 1);

    let errors = all.delete_many(&targets(&entries), Removal::Usual).await.unwrap_err();
    assert_eq!(errors.0.len(), 1);
    for dir in &dirs[1..] {
        assert!(!dir.path().join("customer/ns").exists(), "the stores that work were asked all the same");
    }
    fs::remove_file(dirs[0].path()).unwrap();
    fs::create_dir(dirs[0].path()).unwrap();
}

#[test]
fn a_version_tells_documents_apart_without_the_password() {
    let target = target("ns", "db", Tier::Read);
    let of = |credential: &pgtenant_model::Credential| version(credential, &fingerprint(&credential.password));
    let one = made(&target, "one");
    assert_eq!(of(&one), of(&made(&target, "one")));
    assert_ne!(of(&one), of(&made(&target, "two")));
    // The password's fingerprint is enough.
    assert_eq!(of(&one), version(&made(&target, "unknown"), &print("one")));
    let changes: [fn(&mut pgtenant_model::Credential); 10] = [
        |one| one.username.push('x'),
        |one| one.endpoint.push('x'),
        |one| one.port += 1,
        |one| one.database.push('x'),
        |one| one.ca_crt = None,
        |one| one.read = None,
        |one| one.read.as_mut().unwrap().port += 1,
        |one| one.pool = None,
        |one| one.pool.as_mut().unwrap().port += 1,
        |one| one.uri = SecretString::from(one.uri.expose_secret().replace("db2.example", "db3.example")),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut other = made(&target, "one");
        change(&mut other);
        assert_ne!(of(&one), of(&other), "change {index}");
    }
    // What earlier versions have stored stays as it is: where nobody reads from standbys or has a pooler, the version is the
    // one that it was.
    let mut write = made(&pgtenant_model::CredentialTarget { tier: Tier::Write, ..target }, "one");
    write.pool = None;
    assert_eq!(of(&write).to_string(), "dcc13950-1e8a-834a-834d-9112761c7987");
    // Secrets Manager wants 32 to 64 characters.
    assert_eq!(of(&one).to_string().len(), 36);
}
