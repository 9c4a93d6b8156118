//! The life of a claim that is a custom resource.

use pgtenant_tests::{Credential, TIERS, can, condition, try_sql};
use serde_json::json;

use crate::shared;

#[tokio::test]
async fn an_object_becomes_a_database_with_its_secrets_beside_it() {
    let plane = shared::kubernetes().await;
    let kube = plane.kube();
    let namespace = kube.namespace("life").await;
    let object = kube.ready(&namespace, "db", json!({"mode": "standard"})).await;
    let status = &object["status"];
    assert_eq!(status["database"], format!("{namespace}-db"));
    assert_eq!((&status["state"], &status["endpoint"]["host"]), (&json!("Ready"), &json!("localhost")));
    for tier in TIERS {
        let role = format!("{namespace}-db-{tier}");
        assert_eq!(status["roles"][tier]["secret"], role);
        let credential = kube.credential(&namespace, "db", tier).await;
        assert_eq!(credential.username, role);
        assert_eq!(try_sql(&credential, "select 1").await, Ok(()));
    }
    let admin: Credential = kube.credential(&namespace, "db", "admin").await;
    can(&admin, "create table orders (id int)").await;
    for kind in ["Ready", "Database", "Credentials"] {
        let found = condition(&object, kind);
        assert_eq!((&found["status"], &found["observedGeneration"]), (&json!("True"), &json!(1)), "{kind}");
    }

    kube.delete(&namespace, "db").await;
    kube.is_gone(&namespace, "db").await;
    for tier in TIERS {
        assert!(kube.secret(&namespace, &format!("{namespace}-db-{tier}")).await.is_none(), "{tier}");
    }
    assert_eq!(try_sql(&admin, "select 1").await, Err("28P01".to_owned()), "the role is gone");
}
