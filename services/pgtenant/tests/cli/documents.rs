//! Documents as the control plane writes them.

use serde_json::{Value, json};

pub(crate) const OPERATION: &str = "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11";

pub(crate) fn database(namespace: &str, name: &str, state: &str) -> Value {
    let role = |tier: &str| {
        let role = format!("{namespace}-{name}-{tier}");
        let store = json!({"store": "file", "location": format!("customer/{namespace}/{role}.json")});
        json!({"role": role, "login": role, "setAt": "2026-01-01T00:00:00Z", "stores": [store]})
    };
    let ready = state == "Ready";
    json!({
        "namespace": namespace, "name": name, "mode": "standard", "cluster": "default", "schemas": ["reporting"],
        "extensions": [], "connectionLimit": null, "generation": 1, "observedGeneration": i32::from(ready),
        "state": state, "source": "api",
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "reason": if ready { "Provisioned" } else { "ServerRefused" },
            "message": "permission denied to create database: ask the platform team for CREATEDB",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "database": format!("{namespace}-{name}"), "endpoint": {"host": "db1.example", "port": 5432},
        "roles": {"read": role("read"), "write": role("write"), "admin": role("admin")},
        "createdAt": "2026-01-01T00:00:00Z", "nextLookAt": "2099-01-01T00:00:00Z"
    })
}

pub(crate) fn operation(kind: &str, state: &str, step: Option<&str>, message: Option<&str>) -> Value {
    json!({
        "id": OPERATION, "kind": kind, "state": state, "namespace": "idp-dev", "name": "my-db", "step": step,
        "message": message, "requestedBy": "token:test", "createdAt": "2026-01-01T00:00:00Z", "finishedAt": null
    })
}

pub(crate) fn problem(status: u16, slug: &str, detail: &str) -> Value {
    json!({
        "type": format!("https://pgtenant.io/problems/{slug}"), "title": format!("the title of {slug}"),
        "status": status, "detail": detail, "instance": "/", "requestId": "req-1"
    })
}

pub(crate) fn page(items: Vec<Value>, next: Option<&str>) -> Value {
    json!({"items": items, "nextCursor": next})
}

pub(crate) fn plan(actions: &[(&str, &str)]) -> Value {
    let claim = |(name, action): &(&str, &str)| {
        let changes = match *action {
            "none" | "refuse" => json!([]),
            _ => json!([{"text": format!("create database \"idp-dev-{name}\""),
                         "sql": format!("CREATE DATABASE \"idp-dev-{name}\"")}]),
        };
        let problems = match *action {
            "refuse" => json!([{"field": "extensions[0]", "message": "\"postgis\" is not allowed"}]),
            _ => json!([]),
        };
        json!({"namespace": "idp-dev", "name": name, "cluster": "default", "database": format!("idp-dev-{name}"),
               "action": action, "changes": changes, "problems": problems})
    };
    json!({"claims": actions.iter().map(claim).collect::<Vec<_>>()})
}
