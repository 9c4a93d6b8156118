//! Several stores at once: each holds every credential, and one that is out of order delays its own part.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgtenant_tests::{
    Credential, Serve, Site, SiteOptions, TIERS, files_below, rows, soon, superuser_sql, try_sql, unique,
    works_for_an_application,
};
use serde_json::{Value, json};

/// A site whose cluster has the site's own file store, and another one.
struct Two {
    site: Site,
    serve: Serve,
    other: PathBuf,
    namespace: String,
}

fn store(directory: &Path) -> String {
    format!("{{ file = {{ directory = {directory:?} }} }}")
}

impl Two {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let other = folder.join("other");
        let lists = format!("[{{ file = {{ directory = \"DIR\" }} }}, {}]", store(&other));
        let stores = vec![("default".to_owned(), lists)];
        let site = Site::new(SiteOptions { stores, ..SiteOptions::shared().await }).await;
        let serve = site.serve("serve").await;
        serve.is_ready().await;
        Self { site, serve, other, namespace: unique("stores") }
    }

    /// Describes the stores in another way and starts the control plane again.
    async fn with_stores(&mut self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.site.config).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&self.site.config, text.replace(from, to)).unwrap();
        self.serve.stop().await;
        self.serve = self.site.serve("again").await;
        self.serve.is_ready().await;
    }

    async fn claim(&self, name: &str) -> Value {
        self.serve.api().get(&format!("/v1/namespaces/{}/databases/{name}", self.namespace)).await.expect(200).json
    }

    fn in_site(&self, name: &str) -> [Credential; 3] {
        Credential::of(&self.site.secrets, &self.namespace, name)
    }

    fn in_other(&self, name: &str) -> [Credential; 3] {
        Credential::of(&self.other, &self.namespace, name)
    }

    /// The other store does not work.
    fn break_other(&self) {
        fs::rename(&self.other, self.other.with_extension("aside")).unwrap();
        fs::write(&self.other, "").unwrap();
    }

    fn mend_other(&self) {
        fs::remove_file(&self.other).unwrap();
        fs::rename(self.other.with_extension("aside"), &self.other).unwrap();
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        fs::remove_dir_all(self.other.parent().unwrap()).ok();
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_order_is_named_and_delays_its_own_part_alone() {
    let two = Two::new().await;
    let (api, namespace) = (two.serve.api(), two.namespace.clone());
    api.ready(&namespace, "db").await;
    let before = two.in_site("db");
    assert_eq!(before, two.in_other("db"));

    two.break_other();
    let database = format!("{namespace}-db");
    let named = |db: &Value| {
        let second = &db["roles"]["write"]["stores"][1];
        second["state"] == "Unknown" && second["message"].as_str().is_some_and(|text| text.contains("store \"file\""))
    };
    let db = api.comes_to(&namespace, "db", "the store is named", named).await;
    assert_eq!(db["roles"]["write"]["stores"][0].get("state"), None, "the other one is as it should be: {db}");
    assert_eq!(db["state"], "Degraded");
    let ready = &db["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Credentials").unwrap();
    assert_eq!((ready["status"].as_str(), ready["reason"].as_str()), (Some("False"), Some("StoreFailed")), "{ready}");

    // What has nothing to do with it is put right all the same.
    superuser_sql(
        &two.site.superuser,
        None,
        &format!("revoke connect on database \"{database}\" from \"{database}-read\""),
    )
    .await;
    soon("the grant is back", || async {
        let sql = format!("select has_database_privilege('{database}-read', '{database}', 'connect')::text");
        let has = rows(&two.site.superuser, None, &sql).await;
        if has == ["true"] { Ok(()) } else { Err(format!("{has:?}")) }
    })
    .await;

    // A rotation goes as far as it can: the store that works has the new credential, what the other one has still works.
    api.ask(&format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate")).await.expect(202);
    soon("the store that works has new ones", || async {
        let now = two.in_site("db");
        let new = now.iter().zip(&before).all(|(new, old)| new.password != old.password);
        if new { Ok(()) } else { Err(format!("{:?}", two.claim("db").await)) }
    })
    .await;
    let now = two.in_site("db");
    for credential in now.iter().chain(&before) {
        assert_eq!(try_sql(credential, "select 1").await, Ok(()), "{}", credential.username);
    }
    two.mend_other();
    soon("both have the same", || async {
        let both = (two.in_site("db"), two.in_other("db"));
        if both.0 == both.1 { Ok(()) } else { Err(two.claim("db").await.to_string()) }
    })
    .await;
    let db = api.is_ready(&namespace, "db").await;
    assert_eq!(two.in_site("db"), now, "it was one rotation");
    assert_eq!(db["roles"]["write"]["stores"][1].get("state"), None, "{db}");
    let events = two.site.events(&namespace, "db").await;
    let rotated = events.iter().filter(|event| event["type"] == "CredentialRotated").count();
    assert_eq!(rotated, 3, "{events:#?}");
    works_for_an_application(&two.other, &namespace, "db").await;
}

#[tokio::test]
async fn where_no_store_answers_each_is_named_and_nothing_is_concluded() {
    let two = Two::new().await;
    let (api, namespace) = (two.serve.api(), two.namespace.clone());
    api.ready(&namespace, "db").await;
    let before = two.in_site("db");
    let aside = two.site.secrets.with_extension("aside");
    two.break_other();
    fs::rename(&two.site.secrets, &aside).unwrap();
    fs::write(&two.site.secrets, "").unwrap();
    let named = |db: &Value| {
        let unknown = |store: &Value| store["state"] == "Unknown" && store["message"].is_string();
        TIERS.iter().all(|tier| db["roles"][tier]["stores"].as_array().unwrap().iter().all(unknown))
    };
    let db = api.comes_to(&namespace, "db", "every store is named", named).await;
    assert_eq!(db["state"], "Degraded", "{db}");
    fs::remove_file(&two.site.secrets).unwrap();
    fs::rename(&aside, &two.site.secrets).unwrap();
    two.mend_other();
    let db = api.is_ready(&namespace, "db").await;
    assert_eq!(db["roles"]["write"]["stores"][0].get("state"), None, "{db}");
    assert_eq!((two.in_site("db"), two.in_other("db")), (before.clone(), before), "no new password");
}

#[tokio::test]
async fn a_claim_is_ready_when_every_store_has_it_and_not_before() {
    let two = Two::new().await;
    let (api, namespace) = (two.serve.api(), two.namespace.clone());
    api.ready(&namespace, "first").await;
    two.break_other();
    api.create(&namespace, "db").await;
    let failing = |db: &Value| db["conditions"].to_string().contains("StoreFailed");
    let db = api.comes_to(&namespace, "db", "the store's fault is told", failing).await;
    assert_ne!(db["state"], "Ready", "{db}");
    let database = format!("{namespace}-db");
    let sql = format!("select rolname::text from pg_roles where rolname like '{database}%'");
    assert_eq!(rows(&two.site.superuser, None, &sql).await, Vec::<String>::new(), "no password without its stores");
    two.mend_other();
    api.is_ready(&namespace, "db").await;
    assert_eq!(two.in_site("db"), two.in_other("db"));
    works_for_an_application(&two.other, &namespace, "db").await;
}

#[tokio::test]
async fn a_store_that_was_tampered_with_means_a_new_password_everywhere() {
    let two = Two::new().await;
    let (api, namespace) = (two.serve.api(), two.namespace.clone());
    api.ready(&namespace, "db").await;
    let before = two.in_site("db");
    let file = Credential::file(&two.other, &namespace, "db", "write");
    let changed = fs::read_to_string(&file).unwrap().replace(&before[1].password, "mine");
    fs::write(&file, changed).unwrap();
    soon("both stores have another password", || async {
        let (one, other) = (two.in_site("db"), two.in_other("db"));
        let new = one[1].password != before[1].password && one[1].password != "mine" && one == other;
        if new { Ok(()) } else { Err(two.claim("db").await.to_string()) }
    })
    .await;
    let now = two.in_site("db");
    assert_eq!((&now[0], &now[2]), (&before[0], &before[2]), "the others keep theirs");
    assert_eq!(
        try_sql(&before[1], "select 1").await,
        Ok(()),
        "applications that have the former one are not refused yet"
    );

    // One that is merely gone is written again.
    fs::remove_file(Credential::file(&two.other, &namespace, "db", "read")).unwrap();
    soon("it is back", || async {
        let again = Credential::try_read(&two.other, &namespace, "db", "read")?;
        if again == now[0] { Ok(()) } else { Err("another one".to_owned()) }
    })
    .await;
    let events = two.site.events(&namespace, "db").await;
    let reasons: Vec<_> = events.iter().filter(|event| event["type"] == "CredentialRotated").collect();
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    let reason = reasons[0]["detail"]["reason"].as_str().unwrap();
    assert!(reason.contains("changed by hand") && reason.contains("db-write"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_are_added_and_taken_off_without_new_passwords() {
    let mut two = Two::new().await;
    let (namespace, third) = (two.namespace.clone(), two.other.with_file_name("third"));
    two.serve.api().ready(&namespace, "db").await;
    two.serve.api().ready_with(&namespace, json!({"name": "kept", "mode": "protected"})).await;
    let before = two.in_site("db");

    // What lay in a store before it was added says nothing, also when the store does not work at first.
    let (last, more) = (store(&two.other), format!("{}, {}", store(&two.other), store(&third)));
    fs::write(&third, "").unwrap();
    two.with_stores(&format!("{last}]"), &format!("{more}]")).await;
    let pending = |db: &Value| db["roles"]["read"]["stores"][2]["state"] == "Pending";
    two.serve.api().comes_to(&namespace, "db", "the new store is named", pending).await;
    fs::remove_file(&third).unwrap();
    let stale = Credential::file(&third, &namespace, "db", "read");
    fs::create_dir_all(stale.parent().unwrap()).unwrap();
    let text = fs::read_to_string(Credential::file(&two.other, &namespace, "db", "read")).unwrap();
    fs::write(&stale, text.replace(&before[0].password, "of another life")).unwrap();
    soon("the new store is filled", || async {
        Credential::try_read(&third, &namespace, "kept", "admin")?;
        for (tier, before) in TIERS.iter().zip(&before) {
            if Credential::try_read(&third, &namespace, "db", tier)? != *before {
                return Err(format!("another password of {tier}"));
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(two.in_site("db"), before, "without new passwords");

    // A former store holds nothing any more, and the others go on.
    let own = store(&two.site.secrets);
    let without = format!("[{more}]\nformerStores = [{own}]");
    two.with_stores(&format!("[{own}, {more}]"), &without).await;
    soon("the former store is empty", || async {
        let left = files_below(&two.site.secrets);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(two.in_other("db"), before);
    let db = two.serve.api().is_ready(&namespace, "db").await;
    assert_eq!(db["roles"]["read"]["stores"].as_array().unwrap().len(), 2, "{db}");
    works_for_an_application(&third, &namespace, "db").await;

    // Removing a claim removes it from all of them.
    two.serve.api().delete(&format!("/v1/namespaces/{namespace}/databases/db")).await.expect(202);
    two.serve.api().is_gone(&namespace, "db").await;
    for folder in [&third, &two.other] {
        let left = files_below(folder);
        assert!(left.iter().all(|file| file.contains("-kept-")) && left.len() == 3, "{left:?}");
    }
    tokio::time::timeout(Duration::from_secs(40), two.serve.stop()).await.unwrap();
}
