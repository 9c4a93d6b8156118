//! What is refused, where, and in which words: by the schema, by its rules, by the webhook, or by a condition.

use pgtenant_tests::{Answer, Kube, SiteOptions, condition, database, databases, eventually, restores, unique};
use serde_json::{Value, json};

use crate::shared::{self, KubePlane};

const CLUSTERS: &str = "/apis/pgtenant.io/v1/postgresqlclusters";

const UNCHECKED: &str = ", <nil>: Invalid value: null: some validation rules were not checked because the object was \
                         invalid; correct the existing errors to complete validation";

/// Asks, and nothing is made.
async fn dry_run(kube: &Kube, path: &str, object: Value) -> Answer {
    kube.api().post(&format!("{path}?dryRun=All&fieldValidation=Strict"), object).await
}

/// What is said, without the object's name, which is in every message.
fn said(answer: &Answer) -> String {
    let message = answer.json["message"].as_str().unwrap_or_default();
    let (_, rest) = message.split_once(" is invalid: ").unwrap_or(("", message));
    // Several of them stand in brackets; that there may be more is always the same.
    rest.replace(UNCHECKED, "").trim_matches(['[', ']']).to_owned()
}

/// Each object is refused with these words, and none is skipped: all that is wrong is shown at once.
async fn are_refused(kube: &Kube, path: &str, table: &[(Value, u16, &str)]) {
    let mut wrong = Vec::new();
    for (object, status, words) in table {
        let answer = dry_run(kube, path, object.clone()).await;
        if answer.status != *status || said(&answer) != *words {
            wrong.push(format!(
                "{object}\n  is answered {} {:?}\n  not {status} {words:?}",
                answer.status,
                said(&answer)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_database_that_can_not_be_is_refused_with_what_to_do() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("admission").await;
    let named = |name: &str| database(&namespace, name, json!({}));
    let with = |spec: Value| database(&namespace, "db", spec);
    let long = "a".repeat(53);
    let webhook = "admission webhook \"postgresqldatabases.pgtenant.io\" denied the request: ";
    let reserved = "Invalid value: public is always there; information_schema and pg_… are PostgreSQL's own";
    are_refused(&kube, &databases(&namespace), &[
        (named(&long), 422, &format!(
            "{webhook}metadata.name: database \"{namespace}-{long}\" has {} bytes; at most 55 are allowed",
            namespace.len() + 54,
        )),
        (named(&format!("{long}a")), 422,
            "<nil>: Invalid value: metadata.name has more than 53 bytes; {namespace}-{name} names the database, and has at \
             most 55"),
        (named("a.b"), 422,
            "<nil>: Invalid value: metadata.name must be a DNS label: a-z, 0-9 and hyphens, with a letter or digit first and \
             last"),
        (named("Orders"), 422,
            "metadata.name: Invalid value: \"Orders\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), <nil>: Invalid value: metadata.name must be a DNS label: a-z, 0-9 and hyphens, with a letter or digit first and last"),
        (with(json!({"mode": "big"})), 422,
            "spec.mode: Unsupported value: \"big\": supported values: \"standard\", \"protected\""),
        (with(json!({"schemas": ["public"]})), 422, &format!("spec.schemas: {reserved}")),
        (with(json!({"schemas": ["pg_x"]})), 422, &format!("spec.schemas: {reserved}")),
        (with(json!({"schemas": ["information_schema"]})), 422, &format!("spec.schemas: {reserved}")),
        (with(json!({"schemas": ["9a"]})), 422,
            "spec.schemas[0]: Invalid value: \"9a\": spec.schemas[0] in body should match '^[a-z_][a-z0-9_]*$'"),
        (with(json!({"schemas": ["a", "a"]})), 422, "spec.schemas[1]: Duplicate value: \"a\""),
        (with(json!({"extensions": ["x", "x"]})), 422, "spec.extensions[1]: Duplicate value: \"x\""),
        (with(json!({"extensions": ["plpython3u"]})), 422,
            &format!("{webhook}extensions[0]: \"plpython3u\" is not allowed; allowed: pgcrypto, pg_trgm")),
        (with(json!({"connectionLimit": 0})), 422,
            "spec.connectionLimit: Invalid value: 0: spec.connectionLimit in body should be greater than or equal to 1"),
        (with(json!({"connectionLimit": 10001})), 422,
            "spec.connectionLimit: Invalid value: 10001: spec.connectionLimit in body should be less than or equal to 10000"),
        (with(json!({"cluster": "A"})), 422,
            "spec.cluster: Invalid value: \"A\": spec.cluster in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"),
        (with(json!({"owner": "me"})), 400,
            "PostgresqlDatabase in version \"v1\" cannot be handled as a PostgresqlDatabase: strict decoding error: unknown \
             field \"spec.owner\""),
    ]).await;
}

#[tokio::test]
async fn former_versions_have_the_same_rules() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("former").await;
    for version in ["v1alpha1", "v1beta1"] {
        let path = databases(&namespace).replace("/v1/", &format!("/{version}/"));
        let of = |name: &str, spec: Value| {
            let mut object = database(&namespace, name, spec);
            object["apiVersion"] = json!(format!("pgtenant.io/{version}"));
            object
        };
        let strict = |field: &str| {
            format!(
                "PostgresqlDatabase in version \"{version}\" cannot be handled as a PostgresqlDatabase: strict decoding error: \
             unknown field \"spec.{field}\""
            )
        };
        are_refused(&kube, &path, &[
            (of("a.b", json!({})), 422,
                "<nil>: Invalid value: metadata.name must be a DNS label: a-z, 0-9 and hyphens, with a letter or digit \
                 first and last"),
            (of("db", json!({"schemas": ["public"]})), 422,
                "spec.schemas: Invalid value: public is always there; information_schema and pg_… are PostgreSQL's \
                 own"),
            (of("db", json!({"extensions": ["nope"]})), 422,
                "admission webhook \"postgresqldatabases.pgtenant.io\" denied the request: extensions[0]: \"nope\" is not \
                 allowed; allowed: pgcrypto, pg_trgm"),
            (of("db", json!({"mode": "standard"})), 400, &strict("mode")),
        ]).await;
    }
}

#[tokio::test]
async fn a_name_that_another_namespace_has_is_refused_without_saying_whose_it_is() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let outer = kube.namespace("taken").await;
    let inner = format!("{outer}-b");
    kube.api().post("/api/v1/namespaces", json!({"metadata": {"name": inner}})).await.expect(201);
    kube.ready(&inner, "c", json!({})).await;

    let answer = dry_run(&kube, &databases(&outer), database(&outer, "b-c", json!({}))).await.expect(403);
    assert_eq!(
        answer.json["message"],
        format!(
            "admission webhook \"postgresqldatabases.pgtenant.io\" denied the request: the name \"{outer}-b-c\" on cluster \
             \"default\" belongs to another claim; choose another name"
        )
    );
    assert!(!answer.text.contains(&format!("{inner}/")), "{}", answer.text);
}

#[tokio::test]
async fn a_namespace_gets_no_more_databases_than_its_cluster_allows() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let (namespace, cluster) = (kube.namespace("quota").await, unique("small"));
    plane.describe(&cluster, json!({"limits": {"databasesPerNamespace": 1}})).await;
    kube.ready(&namespace, "one", json!({"cluster": cluster})).await;
    let two = database(&namespace, "two", json!({"cluster": cluster}));
    let answer = dry_run(&kube, &databases(&namespace), two).await.expect(403);
    assert_eq!(
        answer.json["message"],
        format!(
            "admission webhook \"postgresqldatabases.pgtenant.io\" denied the request: namespace \"{namespace}\" has 1 \
             databases on cluster \"{cluster}\", which is its limit"
        )
    );

    // The cluster stays for as long as it has databases.
    kube.api().delete(&format!("{CLUSTERS}/{cluster}")).await.expect(200);
    eventually("the cluster says why it stays", std::time::Duration::from_secs(30), || async {
        let found = kube.api().get(&format!("{CLUSTERS}/{cluster}")).await.expect(200);
        if condition(&found.json, "Ready")["reason"] == "InUse" { Ok(()) } else { Err(found.text) }
    })
    .await;
    kube.delete(&namespace, "one").await;
    kube.is_gone(&namespace, "one").await;
    eventually("the cluster is gone", std::time::Duration::from_secs(30), || async {
        let found = kube.find(&format!("{CLUSTERS}/{cluster}")).await;
        found.map_or(Ok(()), |found| Err(found.to_string()))
    })
    .await;
}

#[tokio::test]
async fn the_cluster_of_a_database_is_fixed_and_that_of_a_mere_wish_is_not() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("fixed").await;
    kube.create(&namespace, "db", json!({"cluster": "defualt"})).await;
    let refused = kube.is_because(&namespace, "db", "Invalid").await;
    let words = format!("cluster: there is no cluster \"defualt\" for namespace \"{namespace}\"");
    assert_eq!(condition(&refused, "Ready")["message"], words);
    assert_eq!(refused["metadata"]["finalizers"], Value::Null, "it can be deleted at once");

    kube.change(&namespace, "db", json!({"cluster": "default"})).await;
    kube.is_ready(&namespace, "db").await;
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let path = format!("{}/db", databases(&namespace)).replace("/v1/", &format!("/{version}/"));
        let answer = kube.api().patch(&path, json!({"spec": {"cluster": "other"}})).await.expect(422);
        assert_eq!(
            said(&answer),
            "spec.cluster: Invalid value: can not be changed any more; make another database on the other cluster and copy \
             the data",
            "{version}"
        );
    }
    kube.change(&namespace, "db", json!({"cluster": "default", "connectionLimit": 7})).await;
    kube.is_ready(&namespace, "db").await;
}

#[tokio::test]
async fn a_cluster_names_no_files_and_one_topology() {
    let kube = shared::kubernetes().await.kube();
    let whole = json!({
        "topology": {"streaming": {"hosts": ["db1:5432"]}}, "stores": [{"kubernetes": {}}],
        "provisioner": {"secretRef": {"name": "a", "namespace": "b"}},
    });
    let with = |changes: Value| {
        let mut spec = whole.clone();
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "pgtenant.io/v1", "kind": "PostgresqlCluster", "metadata": {"name": "never"}, "spec": spec})
    };
    dry_run(&kube, CLUSTERS, with(json!({}))).await.expect(201);
    are_refused(&kube, CLUSTERS, &[
        (with(json!({"provisioner": {"username": "x", "passwordFile": "/etc/shadow"}})), 422, "spec.provisioner.passwordFile: Invalid value: provisioner.passwordFile is for the settings file; use secretRef, spec: Invalid value: name where the provisioner's login is: provisioner.secretRef or provisioner.awsSecret"),
        (with(json!({"provisioner": {"username": "x"}})), 422, "spec: Invalid value: name where the provisioner's login is: provisioner.secretRef or provisioner.awsSecret"),
        (with(json!({"tls": {"caFile": "/etc/ca.crt"}})), 422, "spec: Invalid value: tls.caFile is for the settings file; use caSecretRef"),
        (with(json!({"stores": [{"file": {"directory": "/tmp"}}]})), 422, "spec: Invalid value: store file is for the settings file; use kubernetes or another"),
        (with(json!({"stores": [{"externalSecret": {}}]})), 422, "spec: Invalid value: externalSecret holds no credential: name the store that it reads from as well"),
        (with(json!({"stores": [{"kubernetes": {}}, {"externalSecret": {}}]})), 422, "spec: Invalid value: kubernetes and externalSecret would write the same Secrets: name one of them"),
        (with(json!({"topology": {"streaming": {"hosts": ["https://db1"]}}})), 422, "spec.topology.streaming.hosts[0]: Invalid value: \"https://db1\": spec.topology.streaming.hosts[0] in body should match '^([A-Za-z0-9._-]+|\\[[A-Za-z0-9._:%-]+\\])(:[0-9]{1,5})?$'"),
        (with(json!({"limits": {"connections": 4294967296_i64}})), 422, "spec.limits.connections: Invalid value: 4294967296: spec.limits.connections in body should be less than or equal to 1000000"),
        (with(json!({"stores": []})), 422, "spec.stores: Invalid value: 0: spec.stores in body should have at least 1 items"),
        (with(json!({"stores": [{"kubernetes": {}, "externalSecret": {}}]})), 422, "<nil>: Invalid value: \"\": \"spec.stores[0]\" must validate one and only one schema (oneOf). Found 2 valid alternatives, spec: Invalid value: externalSecret holds no credential: name the store that it reads from as well, spec: Invalid value: kubernetes and externalSecret would write the same Secrets: name one of them"),
        (with(json!({"topology": {}})), 422, "<nil>: Invalid value: \"\": \"spec.topology\" must validate one and only one schema (oneOf). Found none valid, spec.topology.streaming: Required value"),
        (with(json!({"topology": null})), 422, "spec.topology: Required value"),
        (with(json!({"topology": {"streaming": {"hosts": ["db1:5432"]}, "patroni": {"urls": ["https://db1:8008"]}}})), 422, "<nil>: Invalid value: \"\": \"spec.topology\" must validate one and only one schema (oneOf). Found 2 valid alternatives"),
        (with(json!({"topology": {"etcd": {}}})), 400, "PostgresqlCluster in version \"v1\" cannot be handled as a PostgresqlCluster: strict decoding error: unknown field \"spec.topology.etcd\""),
        (with(json!({"environment": "prod"})), 422, "spec.environment: Unsupported value: \"prod\": supported values: \"production\", \"staging\", \"test\", \"dev\""),
    ]).await;
    let mut dotted = with(json!({}));
    dotted["metadata"]["name"] = json!("a.b");
    let words = "<nil>: Invalid value: metadata.name must be a DNS label of at most 63 bytes";
    are_refused(&kube, CLUSTERS, &[(dotted, 422, words)]).await;
}

#[tokio::test]
async fn a_restore_comes_back_from_one_thing_and_is_not_changed() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("restore").await;
    let path = restores(&namespace);
    let of = |spec: Value| {
        json!({
            "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlRestore", "spec": spec,
            "metadata": {"name": "back", "namespace": namespace},
        })
    };
    let from = |from: Value| of(json!({"database": "db", "from": from}));
    let one = "spec.from: Invalid value: name exactly one of snapshot, time and latest: true";
    let copy = "spec: Invalid value: copyName goes with strategy copy, and only with it";
    are_refused(&kube, &path, &[
        (from(json!({})), 422, one),
        (from(json!({"latest": false})), 422, one),
        (from(json!({"latest": true, "snapshot": "dump:s"})), 422, one),
        (from(json!({"time": "2026-11-20T03:00:00Z", "snapshot": "rds:s"})), 422, one),
        (from(json!({"snapshot": "s3:../x"})), 422, "spec.from.snapshot: Invalid value: \"s3:../x\": spec.from.snapshot in body should match '^(dump|rds|pgbackrest):[A-Za-z0-9_:][A-Za-z0-9._:-]*$'"),
        (from(json!({"time": "yesterday"})), 422, "spec.from.time: Invalid value: \"yesterday\": spec.from.time in body must be of type date-time: \"yesterday\""),
        (of(json!({"database": "db"})), 422, "spec.from: Required value"),
        (of(json!({"from": {"latest": true}})), 422, "spec.database: Required value"),
        (of(json!({"database": "db", "from": {"latest": true}, "strategy": "copy"})), 422, copy),
        (of(json!({"database": "db", "from": {"latest": true}, "copyName": "old"})), 422, copy),
        (of(json!({"database": "db", "from": {"latest": true}, "strategy": "merge"})), 422, "spec.strategy: Unsupported value: \"merge\": supported values: \"swap\", \"replace\", \"copy\", \"test\""),
    ]).await;

    let whole = of(json!({"database": "db", "from": {"latest": true}, "strategy": "copy", "copyName": "old"}));
    kube.api().post(&path, whole).await.expect(201);
    let answer = kube.api().patch(&format!("{path}/back"), json!({"spec": {"copyName": "new"}})).await.expect(422);
    assert_eq!(said(&answer), "spec: Invalid value: a restore can not be changed; ask for another one");
}

/// The webhook only spares time: without it the condition says the same, and goes when its cause does.
#[tokio::test]
async fn without_the_webhook_the_condition_says_the_same_and_goes_with_its_cause() {
    let lab = pgtenant_testkit::own_kubernetes().await;
    let options = SiteOptions { look: "10m".to_owned(), quota: 2, ..SiteOptions::shared().await };
    let plane = KubePlane::start(&lab, options).await;
    let kube = plane.kube();
    let webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/pgtenant";
    // Nobody listens there. What the control plane wrote, it writes again each minute; the path is not its own.
    kube.api().delete(webhooks).await.expect(200);
    let outer = kube.namespace("unasked").await;
    let inner = format!("{outer}-b");
    kube.api().post("/api/v1/namespaces", json!({"metadata": {"name": inner}})).await.expect(201);
    kube.ready(&inner, "c", json!({})).await;

    kube.create(&outer, "b-c", json!({})).await;
    let refused = kube.is_because(&outer, "b-c", "NameTaken").await;
    let message =
        format!("the name \"{outer}-b-c\" on cluster \"default\" belongs to another claim; choose another name");
    let ready = condition(&refused, "Ready");
    assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!(message)));
    assert_eq!((&refused["status"]["state"], &refused["status"]["observedGeneration"]), (&json!("Failed"), &json!(1)));
    assert!(!refused.to_string().contains(&format!("{inner}/")), "whose it is, is not told: {refused}");
    kube.create(&outer, "odd", json!({"extensions": ["plpython3u"]})).await;
    let odd = kube.is_because(&outer, "odd", "Invalid").await;
    assert_eq!(
        condition(&odd, "Ready")["message"],
        "extensions[0]: \"plpython3u\" is not allowed; allowed: pgcrypto, pg_trgm"
    );

    kube.ready(&outer, "one", json!({})).await;
    kube.ready(&outer, "two", json!({})).await;
    kube.create(&outer, "three", json!({})).await;
    let full = kube.is_because(&outer, "three", "QuotaExceeded").await;
    let message = format!("namespace \"{outer}\" has 2 databases on cluster \"default\", which is its limit");
    assert_eq!(condition(&full, "Ready")["message"], message);

    // Each is looked at when what stood in its way ends, not at the next periodic look, which is minutes away.
    kube.delete(&outer, "one").await;
    kube.is_ready(&outer, "three").await;
    kube.delete(&outer, "two").await;
    kube.is_gone(&outer, "two").await;
    kube.delete(&inner, "c").await;
    kube.is_ready(&outer, "b-c").await;
    // One that was refused has nothing to clean up, and goes at once.
    kube.delete(&outer, "odd").await;
    kube.is_gone(&outer, "odd").await;
}
