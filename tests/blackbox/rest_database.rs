//! REST for databases: statuses, headers and bodies as the contract has them.

use pgtenant_tests::unique;
use serde_json::{Value, json};

use crate::shared;

/// A text that looks like a time of RFC 3339.
fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() >= 20 && text.contains('T') && text.ends_with('Z'))
}

#[tokio::test]
async fn a_database_in_json_is_as_the_contract_has_it() {
    let plane = shared::calm().await;
    let namespace = unique("json");
    let body = json!({"name": "my-db", "mode": "protected", "schemas": ["reporting"], "extensions": ["pgcrypto"],
                      "connectionLimit": 20});
    let mut db = plane.api().ready_with(&namespace, body).await;
    let mut take = |pointer: &str| db.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")).take();
    for time in ["/createdAt", "/nextLookAt", "/roles/read/setAt", "/roles/write/setAt", "/roles/admin/setAt"] {
        let value = take(time);
        assert!(is_time(&value), "{time}: {value}");
    }
    let conditions = take("/conditions");
    let endpoint = take("/endpoint");
    let role = |tier: &str| {
        let role = format!("{namespace}-my-db-{tier}");
        json!({"role": role, "login": role, "setAt": null,
               "stores": [{"store": "file", "location": format!("customer/{namespace}/{role}.json")}]})
    };
    let expected = json!({
        "namespace": namespace, "name": "my-db", "mode": "protected", "cluster": "default", "schemas": ["reporting"],
        "extensions": ["pgcrypto"], "connectionLimit": 20, "generation": 1, "observedGeneration": 1, "state": "Ready",
        "source": "api", "conditions": null, "database": format!("{namespace}-my-db"), "endpoint": null,
        "roles": {"read": role("read"), "write": role("write"), "admin": role("admin")},
        "createdAt": null, "nextLookAt": null,
    });
    assert_eq!(db, expected);

    let place = pgtenant_tests::Place::shared().await;
    let (host, port) = place.hosts[0].split_once(':').unwrap();
    assert_eq!(endpoint["host"], host);
    assert_eq!(endpoint["port"], port.parse::<u16>().unwrap());
    for condition in conditions.as_array().unwrap() {
        assert_eq!(condition["status"], "True", "{condition}");
        assert!(is_time(&condition["lastTransitionTime"]), "{condition}");
        assert!(condition["reason"].as_str().is_some_and(|word| !word.contains(' ')), "{condition}");
        assert!(condition["message"].is_string(), "{condition}");
    }
    let ready = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!(ready["reason"], "Provisioned");
}

#[tokio::test]
async fn post_is_201_and_the_same_again_200_and_another_spec_409() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("post"));
    let path = format!("/v1/namespaces/{namespace}/databases");
    let made = api.post(&path, json!({"name": "db"})).await.expect(201);
    assert_eq!(made.header("location"), format!("{path}/db"));
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(made.header("cache-control"), "no-store");
    let operation = made.header("pgtenant-operation").to_owned();
    assert!(["Pending", "Provisioning"].contains(&made.json["state"].as_str().unwrap()), "{}", made.text);
    for tier in ["read", "write", "admin"] {
        assert_eq!(made.json["roles"][tier]["role"], format!("{namespace}-db-{tier}"), "{}", made.text);
    }
    api.post(&path, json!({"name": "db"})).await.expect(200);
    api.post(&path, json!({"name": "db", "mode": "standard"})).await.expect(200);
    api.post(&path, json!({"name": "db", "mode": "protected"})).await.problem(409, "database-exists");
    let done = api.finished(&operation).await;
    assert_eq!((&done["kind"], &done["state"]), (&json!("create"), &json!("Succeeded")), "{done}");
    assert_eq!((&done["namespace"], &done["name"]), (&json!(namespace), &json!("db")), "{done}");
    let ready = api.is_ready(&namespace, "db").await;
    assert_eq!(ready["generation"], 1, "asking again is no change: {ready}");
}

#[tokio::test]
async fn what_can_not_be_used_is_refused_with_the_place() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("refuse"));
    let path = format!("/v1/namespaces/{namespace}/databases");
    let json_type = [("content-type", "application/json")];
    let raw = async |body: &'static str, headers: &[(&str, &str)]| {
        let mut request = api.request("POST", &path).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let json: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        (status, json["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(), json)
    };
    let (status, slug, body) = raw("{\"name\": \"x\",\n}", &json_type).await;
    assert_eq!((status, &*slug), (400, "malformed-json"));
    assert!(body["detail"].as_str().unwrap().contains("line 2"), "{body}");
    let (status, slug, _) = raw("{\"name\": \"x\"}", &[("content-type", "text/plain")]).await;
    assert_eq!((status, &*slug), (415, "unsupported-media-type"));
    let (status, slug, _) = raw("", &json_type).await;
    assert_eq!((status, &*slug), (400, "malformed-json"));

    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "Upper"}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "x", "colour": "red"}), "colour"),
        (json!({"name": "x", "mode": "precious"}), "mode"),
        (json!({"name": "x", "connectionLimit": 0}), "connectionLimit"),
        (json!({"name": "x", "schemas": ["ok", "public"]}), "schemas[1]"),
        (json!({"name": "x", "extensions": ["plpython3u"]}), "extensions[0]"),
        (json!({"name": "x", "cluster": "nowhere"}), "cluster"),
        (json!({"name": 5}), "name"),
    ] {
        let answer = api.post(&path, body.clone()).await;
        let json = answer.json.clone();
        answer.problem(422, "invalid-fields");
        let named = json["errors"].as_array().unwrap().iter().any(|error| {
            let text = format!("{} {}", error["field"].as_str().unwrap(), error["message"].as_str().unwrap());
            text.contains(field)
        });
        assert!(named, "{body} → {json}");
    }
    let big = json!({"name": "x", "schemas": ["y".repeat(300 * 1024)]});
    // The connection may end with this answer, since the rest of the body is not read.
    pgtenant_tests::Api::new(api.base(), api.token()).post(&path, big).await.problem(413, "body-too-large");
    api.post(&format!("{path}?dry=1"), json!({"name": "x"})).await.problem(400, "invalid-query");
    api.send("PUT", &path, &[], None).await.problem(405, "method-not-allowed");
    api.get("/v1/nothing/here").await.problem(404, "no-such-route");
    api.get(&format!("{path}/none")).await.problem(404, "not-found");
    api.get(&format!("{path}/Not_A_Name")).await.problem(404, "not-found");
    assert_eq!(api.list(&path).await, Vec::<Value>::new(), "nothing was made");
}

#[tokio::test]
async fn patch_merges_and_if_match_keeps_two_writers_apart() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("patch"));
    api.ready_with(&namespace, json!({"name": "db", "schemas": ["one"], "connectionLimit": 5})).await;
    let path = format!("/v1/namespaces/{namespace}/databases/db");
    let read = api.get(&path).await.expect(200);
    assert_eq!(read.header("etag"), "\"1\"");
    let patch = async |tag: &str, body: Value| {
        let headers = [("if-match", tag), ("content-type", "application/merge-patch+json")];
        api.send("PATCH", &path, &headers, Some(&body)).await
    };
    let changed = patch("\"1\"", json!({"connectionLimit": 6})).await.expect(200);
    assert_eq!(changed.header("etag"), "\"2\"");
    assert_eq!((&changed.json["connectionLimit"], &changed.json["schemas"]), (&json!(6), &json!(["one"])));
    patch("\"1\"", json!({"connectionLimit": 7})).await.problem(412, "precondition-failed");
    patch("1", json!({"connectionLimit": 7})).await.problem(400, "invalid-header");
    patch("*", json!({"connectionLimit": null, "schemas": ["two"]})).await.expect(200);
    let db = api.is_ready(&namespace, "db").await;
    assert_eq!((&db["connectionLimit"], &db["schemas"], &db["generation"]), (&Value::Null, &json!(["two"]), &json!(3)));
    let same = api.patch(&path, json!({"schemas": ["two"]})).await.expect(200);
    assert_eq!(same.header("etag"), "\"3\"", "a patch that changes nothing makes no generation");
    assert_eq!(same.header("pgtenant-operation"), "");
    api.patch(&path, json!({"cluster": "other"})).await.problem(422, "invalid-fields");
    api.patch(&path, json!({"name": "other"})).await.problem(422, "invalid-fields");
    api.patch(&format!("{path}x"), json!({})).await.problem(404, "not-found");
    api.send("DELETE", &path, &[("if-match", "\"2\"")], None).await.problem(412, "precondition-failed");
}

#[tokio::test]
async fn lists_come_in_pages_and_lose_nothing() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("pages"));
    let names: Vec<String> = (0..7).map(|number| format!("db-{number}")).collect();
    for name in &names {
        api.create(&namespace, name).await;
    }
    let path = format!("/v1/namespaces/{namespace}/databases");
    let first = api.get(&format!("{path}?limit=3")).await.expect(200).json;
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    assert!(first["nextCursor"].is_string());
    for list in [format!("{path}?limit=3"), format!("/v1/databases?namespace={namespace}&limit=2"), path.clone()] {
        let found: Vec<String> =
            api.list(&list).await.iter().map(|db| db["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, names, "{list}");
    }
    let whole = api.get(&format!("{path}?limit=7")).await.expect(200).json;
    assert_eq!(whole["nextCursor"], Value::Null, "the last page says so");
    for name in &names {
        api.is_ready(&namespace, name).await;
    }
    assert_eq!(api.list(&format!("{path}?state=Ready")).await.len(), 7);
    assert_eq!(api.list(&format!("/v1/databases?namespace={namespace}&state=Retained")).await.len(), 0);
    api.get(&format!("{path}?limit=0")).await.problem(400, "invalid-query");
    api.get(&format!("{path}?limit=501")).await.problem(400, "invalid-query");
    api.get(&format!("{path}?state=Happy")).await.problem(400, "invalid-query");
    api.get(&format!("{path}?cursor=bm90aGluZw")).await.problem(400, "invalid-cursor");
}

#[tokio::test]
async fn an_idempotency_key_makes_a_repetition_the_same_request() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("again"));
    let path = format!("/v1/namespaces/{namespace}/databases");
    let key = unique("key");
    let headers = [("idempotency-key", &*key)];
    let body = json!({"name": "db"});
    let first = api.send("POST", &path, &headers, Some(&body)).await.expect(201);
    let again = api.send("POST", &path, &headers, Some(&body)).await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((&again.json, again.header("location")), (&first.json, first.header("location")));
    assert_eq!(again.header("pgtenant-operation"), first.header("pgtenant-operation"));
    let other = json!({"name": "other"});
    api.send("POST", &path, &headers, Some(&other)).await.problem(422, "idempotency-key-reused");
    api.send("POST", &path, &[("idempotency-key", "")], Some(&body)).await.problem(400, "invalid-header");

    // A rotation has no other sign of having been asked for before.
    api.is_ready(&namespace, "db").await;
    let path = format!("{path}/db/credentials/rotate");
    let key = unique("key");
    let headers = [("idempotency-key", &*key)];
    let answers = futures::future::join_all((0..5).map(|_| api.send("POST", &path, &headers, None))).await;
    let mut asked: Vec<Value> = answers.into_iter().map(|answer| answer.expect(202).json["id"].clone()).collect();
    asked.dedup();
    assert_eq!(asked.len(), 1, "five at once are one operation");
    assert_eq!(api.is_ready(&namespace, "db").await["generation"], 2);
}

#[tokio::test]
async fn a_namespace_has_no_more_databases_than_the_cluster_allows() {
    let options = pgtenant_tests::SiteOptions { quota: 2, ..pgtenant_tests::SiteOptions::shared().await };
    let plane = shared::Plane::start(options).await;
    let api = plane.api();
    api.create("few", "one").await;
    api.create("few", "two").await;
    let detail =
        api.post("/v1/namespaces/few/databases", json!({"name": "three"})).await.problem(409, "quota-exceeded");
    assert!(detail.contains('2'), "{detail}");
    let claims = json!([{"namespace": "few", "name": "one"}, {"namespace": "few", "name": "three"}]);
    let plan = api.post("/v1/plan", json!({"claims": claims})).await.expect(200).json;
    assert_ne!(plan["claims"][0]["action"], "refuse", "{plan}");
    assert_eq!(plan["claims"][1]["action"], "refuse", "{plan}");
    assert_eq!(plan["claims"][1]["problems"][0]["field"], "cluster", "{plan}");
    api.post("/v1/namespaces/few/databases", json!({"name": "one"})).await.expect(200);
    api.create("other", "one").await;
    api.delete("/v1/namespaces/few/databases/one").await.expect(202);
    api.is_gone("few", "one").await;
    api.create("few", "three").await;
}
