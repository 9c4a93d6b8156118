//! New passwords for a whole cluster, and for the control plane's own login to it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use pgtenant_ledger::{Cluster, Rotating};
use pgtenant_model::InvalidField;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clusters::ClusterPath;
use super::takeover::NoFields;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Forbidden, NotFound};
use crate::extract::{NoQuery, Path, PostOptional, Query};
use crate::problem::{Problem, Result};
use crate::store;

/// How fast to replace the passwords of a cluster.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ClusterRotation, example = json!({"perMinute": 60}))]
pub(crate) struct RotationWish {
    /// Claims a minute; none: all of them as fast as they can be.
    #[schema(minimum = 1, maximum = 60000)]
    per_minute: Option<u32>,
}

/// How far a cluster is with its new passwords.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterRotating)]
pub(crate) struct RotatingView {
    /// The cluster.
    cluster: String,
    /// Claims that wait for new passwords.
    left: i64,
    /// Those of them whose last try has failed: their conditions say why.
    failing: i64,
}

/// Replace the passwords of a cluster
///
/// Every claim gets new passwords for all of its tiers, one claim after the other at the pace that is asked for. No
/// application is refused meanwhile, and none of its sessions is ended. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/rotate", operation_id = "rotateCluster", tag = "clusters",
    params(ClusterPath), request_body = Option<RotationWish>,
    responses(
        (status = 202, description = "They are being replaced.", body = RotatingView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn rotate(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    PostOptional { body, attempt }: PostOptional<RotationWish>,
) -> Result<Response> {
    let may = caller.platform()?;
    let per_minute = body.and_then(|wish| wish.per_minute);
    if per_minute.is_some_and(|number| !(1..=60_000).contains(&number)) {
        return Err(Problem::invalid(vec![InvalidField::new("perMinute", "must be from 1 to 60000")]));
    }
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let Cluster { name, .. } = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    let pace = per_minute.map_or(Duration::ZERO, |number| Duration::from_secs(60) / number);
    store::rotate_cluster(change.db(), &may, &name, pace).await?;
    let Rotating { left, failing } = store::rotating(change.db(), &may, &name).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &RotatingView { cluster: name, left, failing })?;
    change.commit(answer).await
}

/// See how far a cluster is with its new passwords
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/rotation", operation_id = "getClusterRotation", tag = "clusters",
    description = "How many claims wait for new passwords. For platform tokens.", params(ClusterPath),
    responses(
        (status = 200, description = "How far it is.", body = RotatingView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<RotatingView>> {
    let may = caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let Cluster { name, .. } = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    let Rotating { left, failing } = store::rotating(&mut db, &may, &name).await?;
    Ok(Json(RotatingView { cluster: name, left, failing }))
}

/// A wish for another password of the control plane's own login.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProvisionerRotation)]
pub(crate) struct LoginView {
    /// The cluster.
    cluster: String,
    /// When it was asked for. `provisioner.turnedAt` of the cluster is not before this when it is done.
    asked_at: DateTime<Utc>,
}

/// Replace the password of the control plane's own login
///
/// The other one of its two logins gets a new password and takes the place of the one in use, which gets a new one itself some
/// minutes later. Claims are worked on all the time. It needs `provisioner.awsSecret`. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/provisioner/rotate", operation_id = "rotateProvisioner", tag = "clusters",
    params(ClusterPath),
    responses(
        (status = 202, description = "It is being replaced.", body = LoginView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn rotate_provisioner(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    let may = caller.platform()?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let Cluster { name, spec, .. } = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    if spec.0.provisioner.kept_secret().is_none() {
        let why = "pgtenant replaces a password that is in an awsSecret, without a username in the settings; replace this one where it is kept";
        return Err(Problem::invalid(vec![InvalidField::new("provisioner.awsSecret", why)]));
    }
    let asked_at = store::ask_for_login(change.db(), &may, &name).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &LoginView { cluster: name, asked_at })?;
    change.commit(answer).await
}
