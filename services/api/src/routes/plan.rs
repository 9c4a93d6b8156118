//! What would change.

use axum::Json;
use axum::extract::State;
use pgtenant_model::{InvalidField, PlanReport, PlanRequest, PlannedClaim};

use crate::ApiState;
use crate::caller::Caller;
use crate::document::Forbidden;
use crate::extract::{NoQuery, Post, Query};
use crate::problem::{FORBIDDEN, Problem, Result};

const MOST_CLAIMS: usize = 1000;
const MOST_ENTRIES: usize = 32;
const LONGEST: usize = 253;

/// Plan
///
/// Tells for each claim what would be done, as text and as SQL without passwords, and does nothing. Claims that can not
/// be fulfilled are in the plan with the reasons. Only platform tokens plan the adoption of databases that are nobody's.
#[utoipa::path(
    post, path = "/v1/plan", operation_id = "plan", tag = "plan", params(), request_body = PlanRequest,
    responses(
        (status = 200, description = "The plan.", body = PlanReport),
        (status = 403, response = Forbidden),
    ),
)]
pub(crate) async fn plan(
    caller: Caller,
    State(state): State<ApiState>,
    _: Query<NoQuery>,
    // The key is checked; there is no effect that it would keep from happening twice.
    Post { body, .. }: Post<PlanRequest>,
) -> Result<Json<PlanReport>> {
    let problems = problems(&body);
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    if body.adopt {
        caller.platform()?;
    }
    let scope = caller.scope();
    let foreign = |claim: &PlannedClaim| !scope.contains(Some(&claim.namespace));
    if let Some(index) = body.claims.iter().position(foreign) {
        let detail = format!("claims[{index}].namespace: this token has no access to it");
        return Err(Problem::new(&FORBIDDEN, detail));
    }
    let scope = scope.namespaces().map(<[String]>::to_vec);
    Ok(Json(state.parts.planner.plan(body, scope).await?))
}

/// Faults of the request itself; wishes that can not be fulfilled are the plan's to tell.
fn problems(request: &PlanRequest) -> Vec<InvalidField> {
    let mut problems = Vec::new();
    if request.claims.len() > MOST_CLAIMS {
        problems.push(InvalidField::new("claims", format!("at most {MOST_CLAIMS} claims are planned at once")));
        return problems;
    }
    for (index, claim) in request.claims.iter().enumerate() {
        let PlannedClaim { namespace, name, mode: _, cluster, schemas, extensions, connection_limit, slack_channel } =
            claim;
        let mut fault = |field: &str, message: String| {
            problems.push(InvalidField::new(format!("claims[{index}].{field}"), message));
        };
        let one = [("namespace", namespace), ("name", name)].into_iter().chain(cluster.iter().map(|c| ("cluster", c)));
        let one = one.chain(slack_channel.iter().map(|channel| ("slackChannel", channel)));
        let lists = [("schemas", schemas), ("extensions", extensions)];
        for (field, list) in lists {
            if list.len() > MOST_ENTRIES {
                fault(field, format!("at most {MOST_ENTRIES} entries are allowed"));
            }
        }
        for (field, text) in one.chain(lists.into_iter().flat_map(|(field, list)| list.iter().map(move |t| (field, t))))
        {
            if text.chars().count() > LONGEST || text.contains('\0') {
                fault(field, format!("at most {LONGEST} characters are allowed, none of them NUL"));
            }
        }
        if connection_limit.is_some_and(|limit| !(1..=10_000).contains(&limit)) {
            fault("connectionLimit", "is outside of 1 to 10000; leave it out for no limit".to_owned());
        }
    }
    problems
}
