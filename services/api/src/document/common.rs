//! What is true of every operation, or of all that are alike.

use serde_json::{Map, Value, json};

/// Adds it to a document as it came from the handlers.
pub(super) fn add(document: &mut Value) {
    open_parts(document);
    add_headers(document);
    for_each_operation(document, |path, method, operation| {
        strip_null(operation);
        add_responses(path, method, operation);
        add_parameters(path, method, operation);
        if !path.starts_with("/v1/") {
            operation.insert("security".to_owned(), json!([]));
        }
    });
    // A stream is text; its payloads are these.
    let stream = "/paths/~1v1~1events/get/responses/200/content/text~1event-stream/schema";
    if let Some(schema) = document.pointer_mut(stream) {
        schema["contentMediaType"] = json!("text/event-stream");
        schema["contentSchema"] = json!({"$ref": "#/components/schemas/Event"});
    }
}

/// What is a part of something else has keys beside its own: where it is closed for itself, it stands there in full, and open.
fn open_parts(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    let closed: Map<String, Value> = schemas
        .iter()
        .filter(|(_, schema)| schema["additionalProperties"] == false)
        .map(|(name, schema)| (format!("#/components/schemas/{name}"), schema.clone()))
        .collect();
    for part in schemas.values_mut().filter_map(|schema| schema.get_mut("allOf")?.as_array_mut()).flatten() {
        let Some(whole) = part.get("$ref").and_then(Value::as_str).and_then(|name| closed.get(name)) else { continue };
        let mut whole = whole.clone();
        whole.as_object_mut().map(|keys| keys.remove("additionalProperties"));
        *part = whole;
    }
}

fn for_each_operation(document: &mut Value, mut visit: impl FnMut(&str, &str, &mut Map<String, Value>)) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                visit(path, method, operation);
            }
        }
    }
}

fn add_responses(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let response = |name: &str| json!({"$ref": format!("#/components/responses/{name}")});
    let mut common = vec![("431", json!({"description": "The headers are too many or too long; no body."}))];
    if path.starts_with("/v1/") {
        common.extend([
            ("400", response("BadRequest")),
            ("401", response("Unauthenticated")),
            ("429", response("TooManyRequests")),
            ("500", response("Internal")),
            ("503", response("Unavailable")),
            ("504", response("Timeout")),
        ]);
    }
    if path.starts_with("/slack/") {
        common.extend([
            ("408", response("RequestTimeout")),
            ("413", response("BodyTooLarge")),
            ("429", response("TooManyRequests")),
            ("503", response("Unavailable")),
        ]);
    } else if matches!(method, "post" | "patch") {
        common.extend([
            ("408", response("RequestTimeout")),
            ("413", response("BodyTooLarge")),
            ("415", response("UnsupportedMediaType")),
            ("422", response("InvalidFields")),
        ]);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    if method == "post" && path.starts_with("/v1/") && path != "/v1/plan" {
        for response in responses.iter_mut().filter(|(status, _)| status.starts_with('2')).map(|(_, r)| r) {
            response["headers"]["Idempotent-Replayed"] = json!({
                "schema": {"type": "string", "enum": ["true"]},
                "description": "The answer to an earlier request with this `Idempotency-Key`.",
            });
        }
    }
    for (status, response) in common {
        responses.entry(status).or_insert(response);
    }
}

fn add_parameters(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let conditional = operation["responses"].get("412").is_some();
    let mut parameters = Vec::new();
    if conditional {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The `ETag` that was read: nothing happens (412) if the database has changed since.",
            "schema": {"type": "string", "pattern": "^(\\*|(W/)?\"[!#-~]*\"(, ?(W/)?\"[!#-~]*\")*)$"},
        }));
    }
    if method == "post" && path.starts_with("/v1/") {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Makes a repetition safe: within a day the same request under the same key is answered as \
                            before, with `Idempotent-Replayed: true`, and has no effect.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }));
    }
    if !parameters.is_empty() {
        let all = operation.entry("parameters").or_insert_with(|| json!([]));
        all.as_array_mut().into_iter().for_each(|all| all.append(&mut parameters));
    }
}

/// A parameter or body that may be left out can not be null as well.
fn strip_null(operation: &mut Map<String, Value>) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    let mut schemas: Vec<&mut Value> = parameters.filter_map(|parameter| parameter.get_mut("schema")).collect();
    schemas.iter_mut().for_each(|schema| without_null(schema));
    let body = operation.get_mut("requestBody").and_then(|body| body.pointer_mut("/content/application~1json/schema"));
    if let Some(schema) = body {
        without_null(schema);
    }
}

fn without_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(choices) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            *schema = only.clone();
        }
    }
}

fn add_headers(document: &mut Value) {
    let seconds = json!({"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."});
    for name in ["TooManyRequests", "Unavailable", "NotReady"] {
        document["components"]["responses"][name]["headers"] = json!({"Retry-After": seconds});
    }
    let challenge = json!({"schema": {"type": "string"}, "description": "How to authenticate."});
    document["components"]["responses"]["Unauthenticated"]["headers"] = json!({"WWW-Authenticate": challenge});
}
