//! Taking over a database that somebody made by hand.

use pgtenant_tests::{Credential, Place, can, rows, superuser_sql, try_sql, unique, works_for_an_application};
use serde_json::{Value, json};

use crate::shared::{self, Plane};

/// A database with tables, as an administrator made it before there was pgtenant. The provisioner may act for its owner.
async fn legacy(plane: &Plane, namespace: &str) -> String {
    let place = Place::shared().await;
    let (database, owner) = (format!("{namespace}-legacy"), format!("{namespace}-owner"));
    let provisioner = &plane.site.provisioner;
    superuser_sql(&place.superuser, None, &format!("create role \"{owner}\" login password 'old'")).await;
    superuser_sql(&place.superuser, None, &format!("grant \"{owner}\" to \"{provisioner}\"")).await;
    superuser_sql(
        &place.superuser,
        None,
        &format!("create database \"{database}\" owner \"{owner}\" template template0"),
    )
    .await;
    let tables = format!(
        "alter schema public owner to \"{owner}\"; set role \"{owner}\";
         create table customers (id int generated always as identity primary key, name text);
         insert into customers (name) select 'customer ' || n from generate_series(1, 100) n;
         create view names as select name from customers; create sequence numbers"
    );
    superuser_sql(&place.superuser, Some(&database), &tables).await;
    database
}

async fn customers(database: &str) -> Vec<String> {
    rows(
        &Place::shared().await.superuser,
        Some(database),
        "select coalesce(md5(string_agg(name, ',' order by id)), 'none') from customers",
    )
    .await
}

#[tokio::test]
async fn a_foreign_database_is_taken_over_after_its_plan_was_shown_and_keeps_its_data() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("adopt"));
    let database = legacy(plane, &namespace).await;
    let before = customers(&database).await;
    let path = format!("/v1/namespaces/{namespace}/databases/legacy/adopt");

    let tenant = plane.api_of("tenant", &[&namespace]).await;
    tenant.ask(&path).await.problem(403, "forbidden");
    let plan = api.post(&format!("{path}?dryRun=true"), json!({"mode": "protected"})).await.expect(200).json;
    let claim = &plan["claims"][0];
    assert_eq!(claim["action"], "adopt", "{plan}");
    let sql: String = claim["changes"].as_array().unwrap().iter().map(|c| c["sql"].as_str().unwrap()).collect();
    assert!(sql.contains("GRANT SELECT") && sql.contains("customers"), "what is there is granted: {sql}");
    assert!(!sql.contains("DROP DATABASE") && !sql.contains("DROP TABLE"), "{sql}");
    api.get(&format!("/v1/namespaces/{namespace}/databases/legacy")).await.problem(404, "not-found");

    api.post(&path, json!({"mode": "protected"})).await.expect(202);
    let adopted = api.is_ready(&namespace, "legacy").await;
    assert_eq!(adopted["mode"], "protected");
    assert_eq!(customers(&database).await, before, "the data is as it was");
    let [reader, writer, admin] = Credential::of(&plane.site.secrets, &namespace, "legacy");
    can(&reader, "select * from customers").await;
    can(&reader, "select * from names").await;
    can(&writer, "insert into customers (name) values ('new'); select nextval('numbers')").await;
    can(&admin, "alter table customers add column note text").await;
    assert_eq!(try_sql(&reader, "delete from customers").await, Err("42501".to_owned()));
    works_for_an_application(&plane.site.secrets, &namespace, "legacy").await;
    let events = plane.site.events(&namespace, "legacy").await;
    let event = events.iter().find(|event| event["type"] == "Adopted").unwrap_or_else(|| panic!("{events:#?}"));
    assert!(!event["detail"]["changes"].as_array().unwrap().is_empty(), "what was changed: {event}");
}

#[tokio::test]
async fn a_claim_that_met_a_foreign_database_becomes_ready_once_it_is_adopted() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("later"));
    let database = legacy(plane, &namespace).await;
    let before = customers(&database).await;
    api.create(&namespace, "legacy").await;
    api.is_in(&namespace, "legacy", "Failed").await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/legacy/adopt")).await.expect(202);
    api.is_ready(&namespace, "legacy").await;
    assert_eq!(customers(&database).await, before);
    works_for_an_application(&plane.site.secrets, &namespace, "legacy").await;
}

#[tokio::test]
async fn a_database_whose_owner_the_provisioner_may_not_act_for_says_what_to_do() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("closed"));
    let place = Place::shared().await;
    let database = format!("{namespace}-legacy");
    superuser_sql(&place.superuser, None, &format!("create database \"{database}\" template template0")).await;
    superuser_sql(&place.superuser, Some(&database), "create table customers (id int, name text)").await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/legacy/adopt")).await.expect(202);
    let failed = api
        .comes_to(&namespace, "legacy", "a reason", |db| {
            let conditions: &[Value] = db["conditions"].as_array().unwrap();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "False")
        })
        .await;
    let ready = failed["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    let message = ready["message"].as_str().unwrap();
    assert!(message.to_lowercase().contains("owner") || message.contains("GRANT"), "what to do? {message}");
    assert_eq!(customers(&database).await.len(), 1, "the table is there");
}

#[tokio::test]
async fn a_tenant_does_not_get_a_foreign_database_by_releasing_its_name() {
    let plane = shared::calm().await;
    let namespace = unique("trick");
    let database = legacy(plane, &namespace).await;
    let before = customers(&database).await;
    let tenant = plane.api_of("tenant", &[&namespace]).await;
    let path = format!("/v1/namespaces/{namespace}/databases/legacy");
    let asked = tenant.post(&format!("/v1/namespaces/{namespace}/databases"), json!({"name": "legacy"})).await;
    let create = asked.expect(201).header("pgtenant-operation").to_owned();
    tenant.ask(&format!("{path}/release")).await.expect(202);
    let given_up = tenant.finished(&create).await;
    assert_eq!(given_up["state"], "Failed", "{given_up}");
    let plan = tenant.ask(&format!("{path}/adopt?dryRun=true")).await.expect(200).json;
    assert_eq!(plan["claims"][0]["action"], "refuse", "{plan}");
    tenant.ask(&format!("{path}/adopt")).await.expect(202);
    let failed = tenant.is_in(&namespace, "legacy", "Failed").await;
    assert!(failed.to_string().contains("NotOurs"), "{failed}");
    tenant.delete(&path).await.expect(202);
    tenant.is_gone(&namespace, "legacy").await;
    assert_eq!(customers(&database).await, before);
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_yet_is_taken_over_with_what_is_inside() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("closed"));
    let database = legacy(plane, &namespace).await;
    let before = customers(&database).await;
    let superuser = &plane.site.superuser;
    superuser_sql(superuser, None, &format!("revoke connect on database \"{database}\" from public")).await;
    let path = format!("/v1/namespaces/{namespace}/databases/legacy/adopt");
    api.post(&path, json!({"schemas": ["more"]})).await.expect(202);
    api.is_ready(&namespace, "legacy").await;
    assert_eq!(customers(&database).await, before);
    let [reader, writer, admin] = Credential::of(&plane.site.secrets, &namespace, "legacy");
    can(&reader, "select * from customers").await;
    can(&writer, "insert into customers (name) values ('new')").await;
    can(&admin, "create table more.t (n int)").await;
    can(&reader, "select * from more.t").await;
}
