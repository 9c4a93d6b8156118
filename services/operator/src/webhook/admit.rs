//! `/validate`: an `AdmissionReview` of `admission.k8s.io/v1`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use pgtenant_ledger::{Refused, check};
use pgtenant_model::{ClaimKey, ClaimSpec, InvalidField, Source};

use super::Asked;
use crate::crd::PostgresqlDatabase;

/// Somebody waits for the answer, and it is not needed: the condition says the same later.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Says whether the ledger would refuse the wish now. What is being deleted is let through.
pub(super) async fn validate(
    State(asked): State<Arc<Asked>>,
    Json(review): Json<AdmissionReview<PostgresqlDatabase>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let request: AdmissionRequest<PostgresqlDatabase> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error.to_string()).into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let answer = tokio::time::timeout(PATIENCE, refusal(&request, &asked)).await;
    Json(
        match answer.ok().flatten() {
            Some(refusal) => denied(response, refusal),
            None => response,
        }
        .into_review(),
    )
}

/// Says no as the API server itself does.
fn denied(response: AdmissionResponse, Refusal { is_invalid, message }: Refusal) -> AdmissionResponse {
    let mut response = response.deny(message);
    let (code, reason) = if is_invalid { (422, "Invalid") } else { (403, "Forbidden") };
    (response.result.code, response.result.reason) = (code, reason.to_owned());
    response
}

struct Refusal {
    /// Another spec would be taken; otherwise something else stands in the way.
    is_invalid: bool,
    message: String,
}

async fn refusal(request: &AdmissionRequest<PostgresqlDatabase>, asked: &Asked) -> Option<Refusal> {
    let invalid = |message: String| Some(Refusal { is_invalid: true, message });
    let object = request.object.as_ref()?;
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if request.old_object.as_ref().is_some_and(|old| old.spec == object.spec) {
        return None;
    }
    // The name in the request is empty where the API server makes one up.
    let name = object.metadata.name.clone().unwrap_or_default();
    let key = match ClaimKey::new(request.namespace.clone().unwrap_or_default(), name) {
        Ok(key) => key,
        Err(error) => return invalid(format!("metadata.name: {error}")),
    };
    let spec = ClaimSpec::from(&object.spec);
    let problems = spec.problems();
    if !problems.is_empty() {
        return invalid(problems.iter().map(InvalidField::to_string).collect::<Vec<_>>().join("; "));
    }
    let mut db = asked.ledger.acquire().await.ok()?;
    match check(&mut db, &key, &spec, Source::Kubernetes).await {
        // One that is being removed comes into being again when that is done.
        Ok(()) | Err(Refused::Ledger(_) | Refused::Deleting(_)) => None,
        // A Helm release may bring the database's cluster along, in whatever order.
        Err(Refused::Invalid(problems)) if problems.iter().all(|problem| problem.field == "cluster") => None,
        Err(refused @ Refused::Invalid(_)) => invalid(refused.to_string()),
        Err(refused) => Some(Refusal { is_invalid: false, message: refused.to_string() }),
    }
}
