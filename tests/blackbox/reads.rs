//! Where a cluster has an endpoint for reading, the read tier is led there, and nobody else.

use std::fs;
use std::time::Duration;

use pgtenant_tests::{Credential, Site, SiteOptions, can, connect, eventually, unique};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn document(site: &Site, namespace: &str, tier: &str) -> Value {
    let file = Credential::file(&site.secrets, namespace, "orders", tier);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The keys of the endpoint for reading.
fn reads(document: &Value) -> [Option<&str>; 3] {
    ["readEndpoint", "readPort", "readUri"].map(|key| document[key].as_str())
}

#[tokio::test]
async fn the_read_tier_has_the_standbys_address_beside_the_primarys() {
    let server = pgtenant_testkit::cluster().await;
    let (primary, standby) = (server.port(), server.standby().await.get_port());
    let lines = |read: &str| format!("endpoint = {{ host = \"localhost\", port = {primary}{read} }}");
    let with = lines(&format!(", readHost = \"localhost\", readPort = {standby}"));
    let site = Site::new(SiteOptions { cluster: with.clone(), ..SiteOptions::shared().await }).await;
    let mut serve = site.serve("one").await;
    let (api, namespace) = (serve.api(), unique("reads"));
    let claim = api.ready(&namespace, "orders").await;
    assert_eq!(
        (&claim["endpoint"]["readHost"], &claim["endpoint"]["readPort"]),
        (&"localhost".into(), &standby.into())
    );

    let read = document(&site, &namespace, "read");
    let credential = Credential::read(&site.secrets, &namespace, "orders", "read");
    let uri = credential.uri.replace(&format!(":{primary}/"), &format!(":{standby}/"));
    assert_eq!(reads(&read), [Some("localhost"), Some(standby.to_string().as_str()), Some(uri.as_str())]);
    for tier in ["write", "admin"] {
        assert_eq!(reads(&document(&site, &namespace, tier)), [None; 3], "{tier} has nothing to look for on a standby");
    }
    let admin = Credential::read(&site.secrets, &namespace, "orders", "admin");
    can(&admin, "create table orders (id int); insert into orders values (1)").await;
    let there = Credential { port: standby, ..credential.clone() };
    eventually("the standby has what was written", PATIENCE, || async {
        let mut session = connect(&there).await.map_err(|error| error.to_string())?;
        let sql = "select pg_is_in_recovery() and count(*) = 1 from orders";
        let found: Result<bool, _> = sqlx::query_scalar(sql).fetch_one(&mut session).await;
        if matches!(found, Ok(true)) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    // Somebody leads readers elsewhere: put right, under the same password.
    let file = Credential::file(&site.secrets, &namespace, "orders", "read");
    let text =
        fs::read_to_string(&file).unwrap().replace("\"readEndpoint\": \"localhost\"", "\"readEndpoint\": \"evil\"");
    fs::write(&file, text).unwrap();
    eventually("the document is as it was", PATIENCE, || async {
        let now = document(&site, &namespace, "read");
        if now == read { Ok(()) } else { Err(now["readEndpoint"].to_string()) }
    })
    .await;

    // The endpoint goes, and so do the keys.
    serve.stop().await;
    let settings = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, settings.replace(&with, &lines(""))).unwrap();
    let _serve = site.serve("two").await;
    eventually("the keys are gone", PATIENCE, || async {
        let now = document(&site, &namespace, "read");
        if reads(&now) == [None; 3] { Ok(()) } else { Err(format!("{:?}", reads(&now))) }
    })
    .await;
    let now = Credential::read(&site.secrets, &namespace, "orders", "read");
    assert_eq!((now.password, now.uri), (credential.password, credential.uri));
}
