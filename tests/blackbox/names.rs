//! Names are owned, and nothing is cut.

use pgtenant_tests::{Credential, Place, rows, superuser_sql, unique, works_for_an_application};
use serde_json::{Value, json};

use crate::shared;

/// All that is to see of a database and its roles from outside and inside.
async fn picture(database: &str) -> Vec<String> {
    let place = Place::shared().await;
    let sql = format!(
        "select 'database ' || coalesce(datacl::text, '-') || pg_get_userbyid(datdba) || datconnlimit || datallowconn
                || coalesce(shobj_description(oid, 'pg_database'), '-') from pg_database where datname = '{database}'
         union all select 'role ' || rolname || rolcanlogin || rolconnlimit || coalesce(rolpassword, '-')
                || coalesce(shobj_description(oid, 'pg_authid'), '-') from pg_authid where rolname like '{database}-%'
         order by 1"
    );
    let mut picture = rows(&place.superuser, None, &sql).await;
    let sql = "select 'schema ' || nspname || coalesce(nspacl::text, '-') || nspowner::regrole from pg_namespace
               where nspname !~ '^pg_' union all
               select 'relation ' || relname || coalesce(relacl::text, '-') || relowner::regrole from pg_class
               where relnamespace::regnamespace::text !~ '^(pg_|information_schema)' union all
               select 'defaults ' || defaclrole::regrole || defaclacl::text from pg_default_acl order by 1";
    picture.extend(rows(&place.superuser, Some(database), sql).await);
    picture
}

#[tokio::test]
async fn two_claims_that_mean_one_database_are_told_apart_and_the_first_is_untouched() {
    let plane = shared::calm().await;
    let stem = unique("x");
    let (first, second) = (format!("{stem}-b"), stem.clone());
    let api = plane.api();
    api.ready(&first, "c").await;
    let before = picture(&format!("{stem}-b-c")).await;
    let passwords = Credential::of(&plane.site.secrets, &first, "c");

    let tenant = plane.api_of("tenant", &[&second]).await;
    let path = format!("/v1/namespaces/{second}/databases");
    let detail = tenant.post(&path, json!({"name": "b-c"})).await.problem(409, "name-taken");
    assert!(detail.contains(&format!("{stem}-b-c")), "{detail}");
    assert!(!detail.contains(&format!("{first}/c")), "the owner is not told to strangers: {detail}");
    let detail = api.post(&path, json!({"name": "b-c"})).await.problem(409, "name-taken");
    assert!(detail.contains(&format!("{first}/c")), "the platform team is told: {detail}");
    api.ask(&format!("{path}/b-c/adopt")).await.problem(409, "name-taken");
    tenant.get(&format!("{path}/b-c")).await.problem(404, "not-found");
    assert_eq!(picture(&format!("{stem}-b-c")).await, before);
    assert_eq!(Credential::of(&plane.site.secrets, &first, "c"), passwords);

    // Kept is owned, too; gone is free.
    api.ask(&format!("/v1/namespaces/{first}/databases/c/release")).await.expect(202);
    api.post(&path, json!({"name": "b-c"})).await.problem(409, "name-taken");
    api.ask(&format!("/v1/namespaces/{first}/databases/c/adopt")).await.expect(202);
    api.is_ready(&first, "c").await;
    api.delete(&format!("/v1/namespaces/{first}/databases/c")).await.expect(202);
    api.is_gone(&first, "c").await;
    api.ready(&second, "b-c").await;
    works_for_an_application(&plane.site.secrets, &second, "b-c").await;
}

#[tokio::test]
async fn the_same_collision_in_the_apps_folder_is_a_problem_of_the_second_file() {
    let dev = shared::dev().await;
    let (api, stem) = (dev.api(), unique("y"));
    dev.apps().define(&format!("{stem}-b/app"), &["c"]);
    api.is_ready(&format!("{stem}-b"), "c").await;
    dev.apps().define(&format!("{stem}/app"), &["b-c"]);
    pgtenant_tests::soon("a problem at the second file", || async {
        let problems = api.list("/v1/apps/problems").await;
        let file = format!("{stem}/app/values.yaml");
        problems.iter().find(|p| p["file"] == file && p["line"] == 2).map(|_| ()).ok_or_else(|| format!("{problems:?}"))
    })
    .await;
    works_for_an_application(&dev.secrets(), &format!("{stem}-b"), "c").await;
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_left_as_it_is_and_the_claim_says_so() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("notours"));
    let place = Place::shared().await;
    let database = format!("{namespace}-old");
    superuser_sql(&place.superuser, None, &format!("create database \"{database}\" template template0")).await;
    superuser_sql(&place.superuser, Some(&database), "create table t (n int); insert into t values (1)").await;
    let before = picture(&database).await;
    api.create(&namespace, "old").await;
    let failed = api.is_in(&namespace, "old", "Failed").await;
    let ready = failed["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("NotOurs")), "{ready}");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains(&database) && message.contains("adopt"), "what to do? {message}");
    assert!(!failed["nextLookAt"].is_null(), "when is the next try? {failed}");
    assert_eq!(picture(&database).await, before, "a database that is not ours was touched");
    assert_eq!(
        pgtenant_tests::files_below(&plane.site.secrets.join("customer").join(&namespace)),
        Vec::<String>::new()
    );

    // Removing the claim does not remove what is not ours.
    api.delete(&format!("/v1/namespaces/{namespace}/databases/old")).await.expect(202);
    api.is_gone(&namespace, "old").await;
    assert_eq!(picture(&database).await, before, "a database that is not ours was touched");
}

#[tokio::test]
async fn a_role_that_is_not_ours_is_left_as_it_is_and_the_claim_says_so() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("role"));
    let place = Place::shared().await;
    let role = format!("{namespace}-db-read");
    superuser_sql(
        &place.superuser,
        None,
        &format!("create role \"{role}\" login password 'their own' connection limit 3"),
    )
    .await;
    let of_role = || async {
        let sql =
            format!("select rolname || rolconnlimit || rolpassword from pg_authid where rolname like '{namespace}-%'");
        rows(&Place::shared().await.superuser, None, &sql).await
    };
    let before = of_role().await;
    api.create(&namespace, "db").await;
    let failed = api.is_in(&namespace, "db", "Failed").await;
    assert!(failed.to_string().contains(&role), "{failed}");
    api.delete(&format!("/v1/namespaces/{namespace}/databases/db")).await.expect(202);
    api.is_gone(&namespace, "db").await;
    assert_eq!(of_role().await, before, "a role that is not ours was touched, or another one is left");
}

#[tokio::test]
async fn fifty_six_bytes_are_refused_and_fifty_five_work_with_every_suffix() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("n".repeat(20).as_str()));
    let name = "d".repeat(54 - namespace.len());
    let detail = {
        let body = json!({"name": format!("{name}d")});
        api.post(&format!("/v1/namespaces/{namespace}/databases"), body).await.problem(422, "invalid-fields")
    };
    assert!(detail.contains("56 bytes") && detail.contains("55"), "{detail}");
    let db = api.ready(&namespace, &name).await;
    assert_eq!(db["database"].as_str().unwrap().len(), 55);
    works_for_an_application(&plane.site.secrets, &namespace, &name).await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/{name}/credentials/rotate")).await.expect(202);
    api.is_ready(&namespace, &name).await;
    works_for_an_application(&plane.site.secrets, &namespace, &name).await;
}

#[tokio::test]
async fn hostile_names_are_refused_everywhere() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("hostile"));
    let path = format!("/v1/namespaces/{namespace}/databases");
    for name in
        ["a\"; drop database postgres; --", "a'b", "../../etc/x", "a b", "ä", "a\u{0}b", "-a", "a-", "A", "a_b", "."]
    {
        api.post(&path, json!({"name": name})).await.problem(422, "invalid-fields");
        let claims = json!({"claims": [{"namespace": namespace, "name": name}]});
        let plan = api.post("/v1/plan", claims).await;
        assert!(plan.status == 422 || plan.json["claims"][0]["action"] == "refuse", "{name:?}: {}", plan.text);
        let body = json!({"name": "db", "schemas": [name]});
        let schema = api.post(&path, body).await;
        // Schemas may have an underscore, and no hyphen.
        assert!(schema.status == 422 || name == "a_b", "{name:?}: {}", schema.text);
    }
    for namespace in ["Bad", "a%22b", "%2e%2e%2fx", "a%00b", "-a"] {
        let answer = api.post(&format!("/v1/namespaces/{namespace}/databases"), json!({"name": "db"})).await;
        assert!([400, 404, 422].contains(&answer.status), "{namespace}: {}", answer.text);
    }
    let made: Vec<Value> = api.list(&path).await;
    assert!(made.iter().all(|db| db["name"] == "db"), "{made:?}");
}
