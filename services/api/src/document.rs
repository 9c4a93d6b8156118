//! The OpenAPI document: what handlers say of themselves, and what is true of all of them.

mod common;
mod rules;

use pgtenant_model::Event;
use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Content, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToResponse};

use crate::problem::{self, ProblemBody, ProblemType};

const PROBLEM_JSON: &str = "application/problem+json";

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
        (name = "restores", description = "Back from a snapshot."),
        (name = "slack", description = "What Slack sends. It is signed, and has no token."),
        (name = "tokens", description = "Bearer tokens."),
    ),
    components(schemas(ProblemBody, Event)),
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
    Unsigned: INVALID_SIGNATURE;
    NoSuchRoute: NO_SUCH_ROUTE;
    Forbidden: FORBIDDEN;
    NotFound: NOT_FOUND;
    RequestTimeout: REQUEST_TIMEOUT;
    Conflict: DATABASE_EXISTS NAME_TAKEN OTHER_DOOR BEING_REMOVED RETAINED PROTECTED QUOTA_EXCEEDED
        RESTORE_OPEN RESTORE_OVER NOTHING_ASIDE TOO_MANY_RESTORES SWITCHED_BY_HAND SWITCHOVER_UNDER_WAY NOT_REFUSED
        MOVE_OPEN MOVE_NOT_WAITING;
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

/// The whole document: what handlers say, what is true of every operation, and the rules that model's types check when
/// they are used. As JSON, because utoipa's own types do not hold all that OpenAPI has.
pub(crate) fn finish(mut openapi: openapi::OpenApi) -> Value {
    let components = openapi.components.get_or_insert_default();
    components.responses.extend(responses().into_iter().map(|(name, response)| (name.to_owned(), response)));
    // A document is maps with string keys, which is always JSON.
    let mut document = serde_json::to_value(&openapi).unwrap_or_default();
    common::add(&mut document);
    rules::add(&mut document);
    sort(&mut document);
    document
}

/// By name, whether serde_json keeps an order of its own in this build or not.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.iter_mut().for_each(|(_, value)| sort(value));
            map.extend(entries);
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_in_the_schemas() {
        let value = crate::openapi();
        let name = &value["components"]["schemas"]["NewDatabase"]["properties"]["schemas"];
        assert_eq!(name["uniqueItems"], true);
        assert!(name["items"]["pattern"].as_str().is_some_and(|p| p.contains("information_schema")));
        assert_eq!(value["components"]["schemas"]["NewDatabase"]["additionalProperties"], false);
        let restore = &value["components"]["schemas"]["Restore"]["allOf"];
        assert!(
            restore[0]["properties"]["from"].is_object() && restore[0].get("additionalProperties").is_none(),
            "{restore}"
        );
        assert_eq!(
            value["components"]["responses"]["TooManyRequests"]["headers"]["Retry-After"]["schema"]["minimum"],
            1
        );
    }

    #[test]
    fn every_problem_is_documented() {
        let text = crate::openapi_json();
        // This one answers what is no operation.
        for problem in crate::PROBLEMS.iter().filter(|p| p.slug != "method-not-allowed") {
            assert!(text.contains(&problem.uri()), "{}", problem.slug);
        }
    }

    #[test]
    fn operations_are_complete() {
        let document = crate::openapi();
        let items = document["paths"].as_object().unwrap();
        for (path, item) in items {
            for (method, operation) in item.as_object().unwrap() {
                let at = format!("{method} {path}");
                for field in ["operationId", "summary", "description"] {
                    assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{at}: {field}");
                }
                let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
                let wanted: &[&str] = match path.starts_with("/v1/") {
                    true => &["400", "401", "429", "500", "503", "504"],
                    false => &["200"],
                };
                assert!(wanted.iter().all(|status| statuses.iter().any(|s| s == status)), "{at}: {statuses:?}");
                assert_eq!(operation.get("security") == Some(&Value::Array(Vec::new())), !path.starts_with("/v1/"));
            }
        }
    }
}
