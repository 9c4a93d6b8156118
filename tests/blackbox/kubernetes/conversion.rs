//! One object in three versions, through the real API server and the webhook that it asks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgtenant_lab::CertificateAuthority;
use pgtenant_tests::{Answer, Folder, Kube, Site, SiteOptions, databases, soon, unique};
use rand::RngExt as _;
use reqwest::{Certificate, Client};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::shared::{self, KubePlane};

const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const POLICIES: &str = "pgtenant.io/v1alpha1-policies";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/postgresqldatabases.pgtenant.io";
const SECRET: &str = "/api/v1/namespaces/pgtenant-system/secrets/pgtenant-webhook-tls";

fn path(version: &str, namespace: &str) -> String {
    databases(namespace).replace("/v1/", &format!("/{version}/"))
}

/// Any spec of this version. No such cluster is there, so that nothing is made.
fn any_spec(version: &str) -> Value {
    let mut random = rand::rng();
    let mut spec = json!({"cluster": unique("none")});
    let policy = |keep: bool| if keep { "Orphan" } else { "Delete" };
    // Each field may be left to its default.
    if random.random() {
        match version {
            "v1" => spec["mode"] = json!(if random.random() { "standard" } else { "protected" }),
            _ => spec["deletionProtection"] = json!(random.random::<bool>()),
        }
    }
    if version == "v1alpha1" {
        for field in ["roleDeletionPolicy", "dbDeletionPolicy"] {
            if random.random() {
                spec[field] = json!(policy(random.random()));
            }
        }
    }
    let many = |stem: &str, count: u8| (0..count).map(|n| format!("{stem}{n}")).collect::<Vec<_>>();
    for (field, stem) in [("schemas", "s_"), ("extensions", "ext-")] {
        if random.random() {
            spec[field] = json!(many(stem, random.random_range(1..4)));
        }
    }
    if random.random() {
        spec["connectionLimit"] = json!(random.random_range(1..=10000));
    }
    spec
}

/// What a person has written; what the server adds is its own.
fn written(object: &Value) -> (Value, Value) {
    (object["spec"].clone(), object["metadata"]["annotations"].clone())
}

async fn read(kube: &Kube, version: &str, namespace: &str, name: &str) -> Answer {
    kube.api().get(&format!("{}/{name}", path(version, namespace))).await.expect(200)
}

/// Reads it in this version, and writes that back. What is in between somebody else's is read again.
async fn write_back(kube: &Kube, version: &str, namespace: &str, name: &str) {
    soon("what was read is written", || async {
        let object = read(kube, version, namespace, name).await.json;
        let path = format!("{}/{name}?fieldValidation=Strict", path(version, namespace));
        let answer = kube.api().send("PUT", &path, &[], Some(&object)).await;
        if answer.status == 409 { Err(answer.text) } else { Ok(answer.expect(200)) }
    })
    .await;
}

async fn round_trip(kube: &Kube, namespace: &str, name: &str, first: &str) {
    let object = json!({
        "apiVersion": format!("pgtenant.io/{first}"), "kind": "PostgresqlDatabase", "spec": any_spec(first),
        "metadata": {"name": name, "namespace": namespace, "annotations": {"team": "orders"}},
    });
    let made = kube.api().post(&format!("{}?fieldValidation=Strict", path(first, namespace)), object).await.expect(201);
    assert_eq!(made.header("warning").contains("is deprecated; use pgtenant.io/v1"), first != "v1");
    assert_eq!(made.json["metadata"]["generation"], 1, "{}", made.text);
    for key in ["mode", "deletionProtection", "roleDeletionPolicy", "dbDeletionPolicy"] {
        let of_it = match first {
            "v1" => key == "mode",
            "v1beta1" => key == "deletionProtection",
            _ => key != "mode",
        };
        assert_eq!(made.json["spec"].get(key).is_some(), of_it, "{first}: {key}: {}", made.text);
    }
    for other in VERSIONS.iter().filter(|version| **version != first) {
        let seen = read(kube, other, namespace, name).await.json;
        assert_eq!(seen["apiVersion"], format!("pgtenant.io/{other}"));
        for key in ["cluster", "schemas", "extensions", "connectionLimit"] {
            assert_eq!(seen["spec"][key], made.json["spec"][key], "{first} as {other}: {key}");
        }
        write_back(kube, other, namespace, name).await;
        let again = read(kube, first, namespace, name).await.json;
        assert_eq!(written(&again), written(&made.json), "{first}, written back as {other}");
        assert_eq!(again["metadata"]["generation"], 1, "nothing has changed: {again}");
        assert_eq!(again["metadata"]["uid"], made.json["metadata"]["uid"]);
    }
    let stored = read(kube, "v1", namespace, name).await.json;
    let spec = &made.json["spec"];
    let keeps = spec["mode"] == "protected"
        || spec["deletionProtection"] == true
        || spec["roleDeletionPolicy"] == "Orphan"
        || spec["dbDeletionPolicy"] == "Orphan";
    assert_eq!(stored["spec"]["mode"], if keeps { "protected" } else { "standard" }, "{spec}");
}

#[tokio::test]
async fn what_is_written_in_one_version_survives_the_others() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("versions").await;
    for case in 0..36 {
        round_trip(&kube, &namespace, &format!("db{case}"), VERSIONS[case % 3]).await;
    }
}

#[tokio::test]
async fn a_change_in_one_version_is_seen_in_the_others_and_counts_once() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("counts").await;
    let object = json!({
        "apiVersion": "pgtenant.io/v1alpha1", "kind": "PostgresqlDatabase",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {"cluster": unique("none"), "roleDeletionPolicy": "Orphan"},
    });
    kube.api().post(&path("v1alpha1", &namespace), object).await.expect(201);
    let stored = read(&kube, "v1", &namespace, "db").await.json;
    assert!(stored["metadata"]["annotations"][POLICIES].as_str().unwrap().contains("Orphan"), "{stored}");

    let beta = format!("{}/db", path("v1beta1", &namespace));
    let changed = kube.api().patch(&beta, json!({"spec": {"deletionProtection": false}})).await.expect(200).json;
    assert_eq!(changed["metadata"]["generation"], 2);
    let stored = read(&kube, "v1", &namespace, "db").await.json;
    assert_eq!(stored["spec"]["mode"], "standard");
    let alpha = read(&kube, "v1alpha1", &namespace, "db").await.json;
    assert_eq!(
        alpha["spec"]["roleDeletionPolicy"], "Delete",
        "what was remembered does not win over what was said since"
    );
    assert_eq!(alpha["metadata"]["generation"], 2);
}

#[tokio::test]
async fn versions_that_are_not_known_are_refused() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("unknown").await;
    kube.api().get(&path("v2", &namespace)).await.expect(404);
    let object = json!({
        "apiVersion": "pgtenant.io/v2", "kind": "PostgresqlDatabase", "metadata": {"name": "db"}, "spec": {},
    });
    let refused = kube.api().post(&databases(&namespace), object.clone()).await.expect(400);
    assert!(refused.text.contains("pgtenant.io/v2"), "{}", refused.text);
    let applied = kube.apply(&[object]).await.expect(1);
    assert!(applied.stderr.contains("no matches for kind"), "{}", applied.stderr);
}

/// The authorities that the API server trusts, PEM, and where it asks.
async fn told(kube: &Kube) -> (String, String) {
    let definition = kube.api().get(DEFINITION).await.expect(200).json;
    let client = &definition["spec"]["conversion"]["webhook"]["clientConfig"];
    let bundle = STANDARD.decode(client["caBundle"].as_str().unwrap()).unwrap();
    (String::from_utf8(bundle).unwrap(), client["url"].as_str().unwrap().to_owned())
}

/// The newest authority of a bundle stands first.
fn newest(bundle: &str) -> String {
    bundle.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned()
}

/// Whether a client that trusts nothing else takes what is served.
async fn verifies(authority: &str, url: &str) -> Result<(), String> {
    let client = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(authority.as_bytes()).unwrap()]);
    let answer = client.build().unwrap().get(url).send().await;
    // It wants a POST: an answer came over verified TLS.
    answer.map(|answer| assert_eq!(answer.status(), 405)).map_err(|error| format!("{error:?}"))
}

/// Reads in a former version, over and over; what went wrong is kept.
struct Reader {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    faults: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    fn start(kube: &Kube, namespace: &str) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let faults: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kube, path) = (kube.again(), format!("{}/db", path("v1alpha1", namespace)));
        let (stopped, counted, found) = (Arc::clone(&stop), Arc::clone(&count), Arc::clone(&faults));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let answer = kube.api().get(&path).await;
                if answer.status != 200 {
                    found.lock().unwrap().push(answer.text);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, count, faults, task }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let faults = self.faults.lock().unwrap().clone();
        assert!(faults.is_empty(), "{} of {}: {}", faults.len(), self.count.load(Ordering::Relaxed), faults[0]);
    }
}

#[tokio::test]
async fn a_certificate_that_is_spoilt_or_lost_is_replaced_while_objects_are_read() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let plane = KubePlane::start(&lab, SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await }).await;
    let kube = plane.kube();
    let namespace = kube.namespace("rotated").await;
    kube.create(&namespace, "db", json!({"cluster": "none"})).await;
    let (before, url) = told(&kube).await;
    verifies(&newest(&before), &url).await.expect("the first certificate");

    let reader = Reader::start(&kube, &namespace);
    let mut trusted = before;
    let place = Folder::new("authority");
    let strange = CertificateAuthority::open_or_create(place.path()).unwrap().issue(&["127.0.0.1"]).unwrap();
    let with = |certificate: &str, key: &str| json!({"data": {"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key)}});
    for (loss, data) in [
        ("it is garbage", Some(with("garbage", "garbage"))),
        ("it is another authority's", Some(with(&strange.certificate, strange.key.expose_secret()))),
        ("nobody trusts it", Some(json!({"data": {"ca.crt": STANDARD.encode("garbage")}}))),
        ("it can not be written", Some(json!({"immutable": true, "data": {"tls.crt": STANDARD.encode("garbage")}}))),
        ("it is deleted", None),
    ] {
        match data {
            Some(data) => kube.api().patch(SECRET, data).await.expect(200),
            None => kube.api().delete(SECRET).await.expect(200),
        };
        let now = soon(&format!("{loss}: another authority is told, and the former stays"), || async {
            let (now, _) = told(&kube).await;
            let both = newest(&now) != newest(&trusted) && now.contains(&newest(&trusted));
            if both { Ok(now) } else { Err(now) }
        })
        .await;
        soon(&format!("{loss}: the new certificate is served"), || verifies_owned(newest(&now), url.clone())).await;
        trusted = now;
    }
    reader.end().await;
    // The admission webhook was told as well.
    plane.is_asked().await;
}

async fn verifies_owned(authority: String, url: String) -> Result<(), String> {
    verifies(&authority, &url).await
}

/// As cert-manager does, which is not here: it keeps the files, and tells the API server.
#[tokio::test]
async fn files_that_somebody_else_keeps_are_served_as_they_change() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let kube = Kube::new(&lab.kubeconfig());
    let own = kube.install("pgtenant-system").await;
    let kubernetes = Some((own.kubeconfig().to_owned(), "pgtenant-system".to_owned()));
    let site = Site::new(SiteOptions { kubernetes, ..SiteOptions::shared().await }).await;
    let folder = Folder::new("certificates");
    let address = format!("127.0.0.1:{}", pgtenant_lab::free_port());
    let (base, url) = (format!("https://{address}"), format!("https://{address}/convert"));
    let renew = |name: &str| {
        let authority = CertificateAuthority::open_or_create(&folder.join(name)).unwrap();
        let issued = authority.issue(&["127.0.0.1"]).unwrap();
        std::fs::write(folder.join("tls.key"), issued.key.expose_secret()).unwrap();
        std::fs::write(folder.join("tls.crt"), &issued.certificate).unwrap();
        authority.certificate().to_owned()
    };
    let first = renew("first");
    let serve = site
        .serve_with(
            "serve",
            &[
                ("PGTENANT_KUBERNETES__WEBHOOK_TLS_DIR", &folder.path().to_string_lossy()),
                ("PGTENANT_KUBERNETES__WEBHOOK_URL", &base),
                ("PGTENANT_KUBERNETES__WEBHOOK_LISTEN", &address),
            ],
        )
        .await;
    serve.is_ready().await;
    soon("the first certificate is served", || verifies_owned(first.clone(), url.clone())).await;

    let client = json!({"url": url, "caBundle": STANDARD.encode(&first)});
    let webhook = json!({"conversionReviewVersions": ["v1"], "clientConfig": client});
    let conversion = json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": webhook}}});
    kube.api().patch(DEFINITION, conversion).await.expect(200);
    let namespace = kube.namespace("files").await;
    kube.create(&namespace, "db", json!({"cluster": "none"})).await;
    soon("objects are converted", || async {
        let answer = kube.api().get(&format!("{}/db", path("v1alpha1", &namespace))).await;
        if answer.json["spec"]["roleDeletionPolicy"] == "Delete" { Ok(()) } else { Err(answer.text) }
    })
    .await;

    // Half of it does no harm.
    std::fs::write(folder.join("tls.key"), "").unwrap();
    let second = renew("second");
    soon("the second certificate is served", || verifies_owned(second.clone(), url.clone())).await;
    assert!(verifies(&first, &url).await.is_err(), "not any more");
    let (told, _) = told(&kube).await;
    assert_eq!(told, first, "whoever keeps the files tells the API server");
}
