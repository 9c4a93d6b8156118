//! What each path answers.

pub(crate) mod apps;
pub(crate) mod audit;
pub(crate) mod clusters;
pub(crate) mod credentials;
pub(crate) mod databases;
pub(crate) mod drills;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod maintenance;
pub(crate) mod moves;
pub(crate) mod operations;
pub(crate) mod plan;
pub(crate) mod restores;
pub(crate) mod rotation;
pub(crate) mod snapshots;
pub(crate) mod switchover;
pub(crate) mod takeover;
pub(crate) mod tokens;

use pgtenant_model::ClaimKey;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::{Problem, Result};

/// A tenant in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct NamespacePath {
    /// The tenant.
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "idp-dev")]
    pub(crate) namespace: String,
}

/// A database in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct DatabasePath {
    /// The tenant.
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "idp-dev")]
    pub(crate) namespace: String,
    /// The claim's name; `{namespace}-{name}` has at most 55 bytes.
    #[param(min_length = 1, max_length = 53, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "my-db")]
    pub(crate) name: String,
}

impl DatabasePath {
    /// The claim that is meant; no database can have another name.
    pub(crate) fn key(&self) -> Result<ClaimKey> {
        let Self { namespace, name } = self;
        ClaimKey::new(namespace, name).map_err(|_| Problem::not_found(format!("database {namespace}/{name}")))
    }
}
