//! The OpenAPI document: what handlers say of themselves, and what is true of all of them.

use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Content, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToResponse};

use crate::problem::{self, ProblemBody, ProblemType};

const PROBLEM_JSON: &str = "application/problem+json";
const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
const SCHEMA_NAME: &str = "^(?!pg_|public$|information_schema$)[a-z_][a-z0-9_]*$";
const EXTENSION_NAME: &str = "^[a-z0-9_-]+$";

/// Where the paths are added to.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "pgtenant",
        description = "Self-service PostgreSQL on shared clusters: databases, their roles, and where their \
                       credentials are.\n\nEvery error is a problem (RFC 9457) whose `type` is stable. Changes are \
                       written down at once and done soon after: follow a database's `state`, its operation, or the \
                       stream of events. `X-Request-Id` of a request (up to 64 letters, digits, `-` and `_`), or a new \
                       one, is in its answer, in the log and in the audit.",
        contact(name = "pgtenant", url = "https://pgtenant.io"),
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server that this document came from.")),
    tags(
        (name = "apps", description = "The apps folder."),
        (name = "audit", description = "Who did what."),
        (name = "clusters", description = "Shared clusters."),
        (name = "credentials", description = "Where credentials are, and new passwords."),
        (name = "databases", description = "Databases: claims and what became of them."),
        (name = "events", description = "What happens, as it happens."),
        (name = "health", description = "Probes, metrics and this document. No token is needed."),
        (name = "operations", description = "Requests and how far they have come."),
        (name = "plan", description = "What would change."),
        (name = "tokens", description = "Bearer tokens."),
    ),
    components(schemas(ProblemBody)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
pub(crate) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("pgt_ and 64 hexadecimal digits")
            .description(Some("A token of the platform team, of a tenant, or of a viewer; see `POST /v1/tokens`."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

macro_rules! documented {
    ($($name:ident: $($kind:ident)*;)*) => {
        $(
            /// A response of the document.
            #[derive(Debug)]
            pub(crate) struct $name;

            impl<'r> ToResponse<'r> for $name {
                fn response() -> (&'r str, RefOr<openapi::Response>) {
                    (stringify!($name), problem_response(&[$(&problem::$kind),*]).into())
                }
            }
        )*

        fn responses() -> Vec<(&'static str, RefOr<openapi::Response>)> {
            vec![$($name::response()),*]
        }
    };
}

documented! {
    BadRequest: MALFORMED_JSON INVALID_QUERY INVALID_CURSOR INVALID_HEADER BAD_REQUEST;
    Unauthenticated: UNAUTHENTICATED;
    Forbidden: FORBIDDEN;
    NotFound: NOT_FOUND;
    RequestTimeout: REQUEST_TIMEOUT;
    Conflict: DATABASE_EXISTS NAME_TAKEN OTHER_DOOR BEING_REMOVED RETAINED PROTECTED QUOTA_EXCEEDED;
    PreconditionFailed: PRECONDITION_FAILED;
    BodyTooLarge: BODY_TOO_LARGE;
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE;
    InvalidFields: INVALID_FIELDS IDEMPOTENCY_KEY_REUSED;
    TooManyRequests: TOO_MANY_REQUESTS;
    Internal: INTERNAL;
    Unavailable: LEDGER_UNAVAILABLE CLUSTER_UNREACHABLE OVERLOADED;
    NotReady: NOT_READY;
    Timeout: TIMEOUT;
}

fn problem_response(kinds: &[&ProblemType]) -> openapi::Response {
    let list: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}", kind.slug, kind.advice)).collect();
    let examples = kinds.iter().map(|kind| {
        let value = json!({
            "type": kind.uri(), "title": kind.title, "status": kind.status, "detail": kind.advice,
            "instance": "/v1/namespaces/idp-dev/databases/my-db", "requestId": "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11",
        });
        let example = openapi::example::ExampleBuilder::new().summary(kind.title).value(Some(value)).build();
        (kind.slug.to_owned(), RefOr::T(example))
    });
    let content: Content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    ResponseBuilder::new().description(list.join("\n")).content(PROBLEM_JSON, content).build()
}

/// Adds what is true of every operation, and the rules that model's types check when they are used.
pub(crate) fn finish(mut openapi: openapi::OpenApi) -> openapi::OpenApi {
    let components = openapi.components.get_or_insert_default();
    components.responses.extend(responses().into_iter().map(|(name, response)| (name.to_owned(), response)));
    // The document is its JSON; going through that form can not fail for one that was just made.
    let Ok(mut document) = serde_json::to_value(&openapi) else { return openapi };
    add_headers(&mut document);
    for_each_operation(&mut document, add_common);
    constrain(&mut document);
    serde_json::from_value(document).unwrap_or(openapi)
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

fn add_common(path: &str, method: &str, operation: &mut Map<String, Value>) {
    strip_null(operation);
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
    if matches!(method, "post" | "patch") {
        common.extend([
            ("408", response("RequestTimeout")),
            ("413", response("BodyTooLarge")),
            ("415", response("UnsupportedMediaType")),
            ("422", response("InvalidFields")),
        ]);
    }
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for (status, response) in common {
            responses.entry(status).or_insert(response);
        }
    }
    let conditional = operation["responses"].get("412").is_some();
    let mut parameters = Vec::new();
    if conditional {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The `ETag` that was read: nothing happens (412) if the database has changed since.",
            "schema": {"type": "string", "maxLength": 1024, "pattern": "^(\\*|(W/)?\"[!#-~]*\"(, ?(W/)?\"[!#-~]*\")*)$"},
            "example": "\"3\"",
        }));
    }
    if method == "post" {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Makes a repetition safe: within a day the same request under the same key is answered as \
                            before, with `Idempotent-Replayed: true`, and has no effect.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
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

/// Rules that the types do not tell.
fn constrain(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    let mut rule = |schema: &str, property: &str, rules: Value| {
        let target = &mut schemas[schema]["properties"][property];
        if let (Some(target), Value::Object(rules)) = (target.as_object_mut(), rules) {
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
    }
    rule("NewDatabase", "cluster", json!({"default": "default"}));
    rule("ClaimSpec", "cluster", json!({"default": "default"}));
    // What can not be fulfilled is told by the plan; here is only what can not be asked.
    let text = json!({"type": "string", "maxLength": 253, "pattern": "^[^\\u0000]*$"});
    for property in ["namespace", "name", "cluster"] {
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
