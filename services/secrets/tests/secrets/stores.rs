//! Several stores together.

use std::fs;
use std::path::Path;

use pgtenant_model::{StoreSpec, Tier};
use pgtenant_secrets::{Access, Action, Held, Stores, Verdict, fingerprint};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::{made, spec, target};

fn stores(directories: &[&Path]) -> Stores {
    let specs: Vec<StoreSpec> = directories.iter().map(|d| StoreSpec::File(spec(d))).collect();
    Stores::from_specs(&specs, &Access::default()).unwrap()
}

#[tokio::test]
async fn stores_are_compared() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let both = stores(&[one.path(), two.path()]);
    let only_two = stores(&[two.path()]);
    let target = target("ns", "db", Tier::Read);
    let file = one.path().join("customer/ns/ns-db-read.json");

    assert!(matches!(both.get(&target).await.unwrap(), Verdict::Missing));
    both.put(&target, &made(&target, "right")).await.unwrap();
    let verdict = both.get(&target).await.unwrap();
    assert!(matches!(&verdict, Verdict::Same(c) if c.password.expose_secret() == "right"));
    assert_eq!(verdict.describe(), "");
    let places: Vec<_> = both.locations(&target).into_iter().map(|l| (l.store, l.location)).collect();
    assert_eq!(places, vec![("file".to_owned(), "customer/ns/ns-db-read.json".to_owned()); 2]);

    // Another one, none, and something broken: the one that the ledger knows is found in each case.
    let known = fingerprint(&SecretString::from("right"));
    only_two.put(&target, &made(&target, "wrong")).await.unwrap();
    let verdict = both.get(&target).await.unwrap();
    assert_eq!(verdict.with_fingerprint(&known).unwrap().password.expose_secret(), "right");
    assert!(verdict.describe().ends_with("has another one"), "{}", verdict.describe());
    assert!(verdict.with_fingerprint(&fingerprint(&SecretString::from("x"))).is_none());
    assert!(!format!("{verdict:?}").contains("right"), "no password in Debug");

    only_two.put(&target, &made(&target, "right")).await.unwrap();
    fs::remove_file(&file).unwrap();
    let verdict = both.get(&target).await.unwrap();
    let Verdict::Differs(found) = &verdict else { panic!("{verdict:?}") };
    assert!(matches!((&found[0].held, &found[1].held), (Held::Missing, Held::Credential(_))));
    assert!(verdict.with_fingerprint(&known).is_some());

    fs::write(&file, "spoilt").unwrap();
    let verdict = both.get(&target).await.unwrap();
    let Verdict::Differs(found) = &verdict else { panic!("{verdict:?}") };
    assert!(matches!((&found[0].held, &found[1].held), (Held::Broken(_), Held::Credential(_))));

    only_two.delete(&target).await.unwrap();
    let verdict = both.get(&target).await.unwrap();
    assert!(matches!(&verdict, Verdict::Broken { store: "file", .. }), "{verdict:?}");
    assert!(verdict.describe().contains("is not a credential: not JSON"), "{}", verdict.describe());

    // A store that does not answer says nothing about the credential.
    fs::remove_dir_all(two.path()).unwrap();
    fs::write(two.path(), "").unwrap();
    let error = both.get(&target).await.unwrap_err();
    assert_eq!((error.store, error.action), ("file", Action::Read));
    assert!(both.delete(&target).await.is_err());
    assert!(!file.exists(), "the store that works was asked all the same");
    fs::remove_file(two.path()).unwrap();
}
