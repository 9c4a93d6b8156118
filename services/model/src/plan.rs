//! A plan in words: what REST and the command line print before anything is done.

use serde::{Deserialize, Serialize};

use crate::{ClaimSpec, InvalidField, Mode, Source};

/// A claim whose plan is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedClaim {
    /// The tenant.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// See [`ClaimSpec::mode`].
    #[serde(default)]
    pub mode: Mode,
    /// See [`ClaimSpec::cluster`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// See [`ClaimSpec::schemas`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// See [`ClaimSpec::extensions`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// See [`ClaimSpec::connection_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i32>,
    /// See [`ClaimSpec::slack_channel`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_channel: Option<String>,
}

impl PlannedClaim {
    /// The claim's spec, with defaults filled in.
    #[must_use]
    pub fn spec(&self) -> ClaimSpec {
        let default = ClaimSpec::default();
        ClaimSpec {
            mode: self.mode,
            cluster: self.cluster.clone().unwrap_or(default.cluster),
            schemas: self.schemas.clone(),
            extensions: self.extensions.clone(),
            connection_limit: self.connection_limit,
            slack_channel: self.slack_channel.clone(),
        }
    }
}

/// A question: what would change?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// Claims as they are wished.
    #[schema(max_items = 1000)]
    pub claims: Vec<PlannedClaim>,
    /// The door for which is asked. Claims of another door are refused, as that door would be.
    #[serde(default = "api", skip_serializing_if = "is_api")]
    pub source: Source,
    /// `claims` are all that this door has: those that it made and that are not among them would be removed.
    #[serde(default)]
    pub complete: bool,
    /// Databases that exist and are not ours may be taken over.
    #[serde(default)]
    pub adopt: bool,
}

fn api() -> Source {
    Source::Api
}

fn is_api(source: &Source) -> bool {
    *source == Source::Api
}

/// What a plan would do with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanAction {
    /// Make the database.
    Create,
    /// Change what is there.
    Change,
    /// Take over what is there, under the same passwords.
    Adopt,
    /// Stop managing, keep everything.
    Retain,
    /// Drop database, roles and credentials.
    Drop,
    /// Nothing to do.
    None,
    /// It can not be done; `problems` say why.
    Refuse,
}

/// One change, as it would be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// For people, as `grant CONNECT on database "a-b" to "a-b-read"`.
    pub text: String,
    /// The statements, with every password verifier left out.
    pub sql: String,
    /// The database in which they run; none: the cluster's maintenance database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// What would happen to one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimPlan {
    /// The tenant.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// The cluster.
    pub cluster: String,
    /// The database.
    pub database: String,
    /// What would be done.
    pub action: PlanAction,
    /// The changes in the order in which they would be applied.
    pub changes: Vec<ChangeReport>,
    /// Why it can not be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<InvalidField>,
}

/// What would happen to every claim that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// One entry a claim, in the order of the request, then claims that would be removed.
    pub claims: Vec<ClaimPlan>,
}

impl PlanReport {
    /// Whether anything would change.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.claims.iter().any(|c| !matches!(c.action, PlanAction::None | PlanAction::Refuse))
    }

    /// Whether anything can not be done.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        self.claims.iter().any(|c| c.action == PlanAction::Refuse)
    }
}
