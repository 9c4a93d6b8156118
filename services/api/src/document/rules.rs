//! Rules of the schemas that the types do not tell, and names that people can read.

use serde_json::{Map, Value, json};

const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
const SCHEMA_NAME: &str = "^(?!pg_|public$|information_schema$)[a-z_][a-z0-9_]*$";
const EXTENSION_NAME: &str = "^[a-z0-9_-]+$";
const SLACK_CHANNEL: &str = "^#?[^\\s\\u0000-\\u001f\\u007f-\\u009f#,;]{1,80}$";
/// Fields of a claim's spec, which several schemas have.
const SPEC: [&str; 6] = ["mode", "cluster", "schemas", "extensions", "connectionLimit", "slackChannel"];

/// Adds them to the schemas.
pub(super) fn add(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    unwrap_single_choices(schemas);
    name_pages(schemas);
    describe(schemas);
    constrain(schemas);
    rename_pages(document);
}

fn constrain(schemas: &mut Map<String, Value>) {
    let mut rule = |schema: &str, property: &str, rules: Value| {
        let target = schemas.get_mut(schema).and_then(|schema| schema["properties"][property].as_object_mut());
        if let (Some(target), Value::Object(rules)) = (target, rules) {
            target.extend(rules);
        }
    };
    let label = json!({"minLength": 1, "maxLength": 63, "pattern": LABEL});
    let names = |pattern: &str| {
        let items = json!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": pattern});
        json!({"maxItems": 32, "uniqueItems": true, "items": items})
    };
    for schema in ["NewDatabase", "ClaimSpec", "ClaimPatch"] {
        rule(schema, "cluster", label.clone());
        rule(schema, "schemas", names(SCHEMA_NAME));
        rule(schema, "extensions", names(EXTENSION_NAME));
        rule(schema, "connectionLimit", json!({"minimum": 1, "maximum": 10_000}));
        rule(schema, "slackChannel", json!({"minLength": 1, "maxLength": 81, "pattern": SLACK_CHANNEL}));
    }
    rule("NewDatabase", "cluster", json!({"default": "default"}));
    rule("ClaimSpec", "cluster", json!({"default": "default"}));
    // What can not be fulfilled is told by the plan; here is only what can not be asked.
    let text = json!({"type": "string", "maxLength": 253, "pattern": "^[^\\u0000]*$"});
    for property in ["namespace", "name", "cluster", "slackChannel"] {
        rule("PlannedClaim", property, json!({"maxLength": 253, "pattern": "^[^\\u0000]*$"}));
    }
    for property in ["schemas", "extensions"] {
        rule("PlannedClaim", property, json!({"maxItems": 32, "items": text}));
    }
    rule("PlannedClaim", "connectionLimit", json!({"minimum": 1, "maximum": 10_000}));
    let mut namespace = label;
    namespace["type"] = json!("string");
    rule("NewTokenBody", "namespaces", json!({"maxItems": 100, "items": namespace}));
}

/// An enum with one variant is that variant.
fn unwrap_single_choices(schemas: &mut Map<String, Value>) {
    for schema in schemas.values_mut() {
        let Some([only]) = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice) else { continue };
        let mut only = only.clone();
        if let Some(description) = schema.get("description") {
            only["description"] = description.clone();
        }
        *schema = only;
    }
}

/// The entries of a page are schemas of their own.
fn name_pages(schemas: &mut Map<String, Value>) {
    let names: Vec<String> = schemas.keys().filter_map(|name| Some(name.strip_prefix("Page_")?.to_owned())).collect();
    for name in names {
        schemas[&format!("Page_{name}")]["properties"]["items"]["items"] =
            json!({"$ref": format!("#/components/schemas/{name}")});
    }
}

/// `Page_Database` becomes `DatabasePage`.
fn rename_pages(value: &mut Value) {
    let renamed = |name: &str| {
        let (before, kind) = name.rsplit_once("Page_")?;
        Some(format!("{before}{kind}Page"))
    };
    match value {
        Value::Object(map) => {
            for (key, mut value) in std::mem::take(map) {
                rename_pages(&mut value);
                map.insert(renamed(&key).unwrap_or(key), value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(rename_pages),
        Value::String(text) if text.starts_with("#/components/schemas/Page_") => {
            *text = renamed(text).unwrap_or_default();
        }
        _ => {}
    }
}

/// A patch and a planned claim have a spec's fields: the same words for them.
fn describe(schemas: &mut Map<String, Value>) {
    for property in SPEC {
        let text = schemas["ClaimSpec"]["properties"][property]["description"].clone();
        for schema in ["ClaimPatch", "PlannedClaim"] {
            let target = &mut schemas[schema]["properties"][property];
            match target.get_mut("oneOf") {
                Some(choices) => choices[0]["description"] = text.clone(),
                None => target["description"] = text.clone(),
            }
        }
    }
    schemas["ClaimPatch"]["description"] =
        json!("A JSON merge patch (RFC 7396) of a ClaimSpec: an absent field stays, `null` goes back to its default.");
}
