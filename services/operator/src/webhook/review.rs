//! `/convert`: a `ConversionReview` of `apiextensions.k8s.io/v1`.

use axum::Json;
use kube::core::Status;
use kube::core::conversion::{ConversionRequest, ConversionResponse, ConversionReview};

use crate::convert;

/// Converts all of a review's objects, or says which one can not be.
pub(super) async fn convert(Json(review): Json<ConversionReview>) -> Json<ConversionReview> {
    let mut request = match ConversionRequest::from_review(review) {
        Ok(request) => request,
        Err(error) => {
            return Json(ConversionResponse::invalid(Status::failure(&error.to_string(), "BadRequest")).into_review());
        }
    };
    let desired = request.desired_api_version.clone();
    let objects = std::mem::take(&mut request.objects);
    let converted: Result<Vec<_>, _> = objects.into_iter().map(|object| convert::convert(object, &desired)).collect();
    let response = ConversionResponse::for_request(request);
    Json(match converted {
        Ok(objects) => response.success(objects).into_review(),
        Err(error) => response.failure(Status::failure(&error.to_string(), "Invalid")).into_review(),
    })
}
