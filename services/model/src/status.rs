//! What is true of a claim and of a cluster, for people and machines to read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ClaimSpec, Endpoint, History, InvalidField, Member, Mode, Source, Tier};

/// The state of a database in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum DatabaseState {
    /// Written down; nobody has begun.
    Pending,
    /// Being made.
    Provisioning,
    /// Every tier can log in and do what it may.
    Ready,
    /// It was Ready; a part of it is not as it should be, and is being put right.
    Degraded,
    /// It could not be made; the `Ready` condition says why and when the next try is.
    Failed,
    /// Being removed.
    Deleting,
    /// Kept, and not managed by any claim.
    Retained,
}

impl DatabaseState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Provisioning, Self::Ready, Self::Degraded, Self::Failed, Self::Deleting, Self::Retained];

    /// As it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Provisioning => "Provisioning",
            Self::Ready => "Ready",
            Self::Degraded => "Degraded",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
            Self::Retained => "Retained",
        }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

/// As Kubernetes' conditions: one fact, its reason, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, or the part that it speaks of: `Database`, `Credentials`, `Login`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word in CamelCase, for machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: DateTime<Utc>,
}

/// Sets a condition; its transition time moves only when its status changes.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: impl Into<String>,
    now: DateTime<Utc>,
) {
    let fresh = Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: now,
    };
    match conditions.iter_mut().find(|c| c.kind == kind) {
        Some(old) if old.status == status => {
            *old = Condition { last_transition_time: old.last_transition_time, ..fresh };
        }
        Some(old) => *old = fresh,
        None => conditions.push(fresh),
    }
}

/// Where a credential lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreLocation {
    /// The kind of store: `file`.
    pub store: String,
    /// The credential's name in the store.
    pub location: String,
    /// Whether it holds the credential that the others hold; not said where it does.
    #[serde(default, skip_serializing_if = "StoreState::is_current")]
    pub state: StoreState,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl StoreState {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_current(&self) -> bool {
        *self == Self::Current
    }
}

impl StoreLocation {
    /// One that holds the credential in use.
    #[must_use]
    pub fn new(store: impl Into<String>, location: impl Into<String>) -> Self {
        Self { store: store.into(), location: location.into(), state: StoreState::Current, message: None }
    }
}

/// What a store holds of a role, compared with the credential in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub enum StoreState {
    /// The credential in use.
    #[default]
    Current,
    /// Not yet the one in use: none, or the former one, which still works.
    Behind,
    /// It did not answer.
    Unknown,
    /// It was added to the cluster and has never had one.
    Pending,
}

/// A role and where its credential is; never what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// The role that owns and is granted.
    pub role: String,
    /// The login that the stored credential names.
    pub login: String,
    /// When its password was set; none while that has not happened.
    pub set_at: Option<DateTime<Utc>>,
    /// Every place that holds the credential.
    pub stores: Vec<StoreLocation>,
}

/// The three roles of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Roles {
    /// SELECT.
    pub read: RoleStatus,
    /// Changes rows.
    pub write: RoleStatus,
    /// Owns.
    pub admin: RoleStatus,
}

impl Roles {
    /// A tier's.
    #[must_use]
    pub fn of(&self, tier: Tier) -> &RoleStatus {
        match tier {
            Tier::Read => &self.read,
            Tier::Write => &self.write,
            Tier::Admin => &self.admin,
        }
    }

    /// As [`of`](Self::of), to be changed.
    pub fn of_mut(&mut self, tier: Tier) -> &mut RoleStatus {
        match tier {
            Tier::Read => &mut self.read,
            Tier::Write => &mut self.write,
            Tier::Admin => &mut self.admin,
        }
    }
}

/// A claim and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// The tenant.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// What removing the claim does.
    pub mode: Mode,
    /// The shared cluster.
    pub cluster: String,
    /// Schemas beside `public`.
    pub schemas: Vec<String>,
    /// Extensions.
    pub extensions: Vec<String>,
    /// Connections that each role may have at once.
    pub connection_limit: Option<i32>,
    /// The Slack channel that hears what becomes of it; none: every channel that is linked to its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_channel: Option<String>,
    /// Grows with every change of the spec.
    pub generation: i64,
    /// The generation that was last made true.
    pub observed_generation: i64,
    /// In one word.
    pub state: DatabaseState,
    /// The door that made it.
    pub source: Source,
    /// `Ready`, and one for each part.
    pub conditions: Vec<Condition>,
    /// The database's name on the cluster.
    pub database: String,
    /// Where to connect; none until the cluster was seen.
    pub endpoint: Option<Endpoint>,
    /// The roles.
    pub roles: Roles,
    /// When the claim was made.
    pub created_at: DateTime<Utc>,
    /// When the next try or look is.
    pub next_look_at: Option<DateTime<Utc>>,
}

impl Database {
    /// The wish within this database.
    #[must_use]
    pub fn spec(&self) -> ClaimSpec {
        ClaimSpec {
            mode: self.mode,
            cluster: self.cluster.clone(),
            schemas: self.schemas.clone(),
            extensions: self.extensions.clone(),
            connection_limit: self.connection_limit,
            slack_channel: self.slack_channel.clone(),
        }
    }
}

/// A setting of a cluster that is not as described. pgtenant shows it and does not change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The setting.
    pub setting: String,
    /// As described.
    pub wanted: String,
    /// As it is.
    pub found: String,
    /// The call that would mend it.
    pub mend: String,
}

/// What a trial of a capability has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum CheckResult {
    /// It works.
    Passed,
    /// Claims can be served; a person should know this.
    Warning,
    /// Claims will fail at it.
    Failed,
}

/// A capability that the control plane needs of a cluster, tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightCheck {
    /// What was tried, in a word: `primary`, `roles`, `store kubernetes`.
    pub check: String,
    /// How it went.
    pub result: CheckResult,
    /// What works; or what is missing, and the statement or policy that mends it.
    pub message: String,
}

/// What was last seen of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The writable host, `host:port`.
    pub primary: Option<String>,
    /// PostgreSQL's version, as `15.18`.
    pub version: Option<String>,
    /// Every server.
    pub members: Vec<Member>,
    /// Why no claim can be served, if so.
    pub problem: Option<String>,
    /// What would bite later, and how to mend it.
    pub preflight: Vec<InvalidField>,
    /// Connections that the primary takes of logins that are no superusers: `max_connections` less those that are kept for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Where a cluster that is described with `create` is not as described.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// What tells the cluster from another one that has its name now, where the topology knows such a thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// More than one server takes writes, or the one that does has not the data that was there: nothing is written.
    #[serde(default)]
    pub split_brain: bool,
    /// Where its data comes from, as it was last seen to be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Where the data of the server comes from that takes writes and is not written to for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<History>,
    /// The control plane's own login, where pgtenant can replace its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<ProvisionerStatus>,
    /// When it was seen.
    pub observed_at: Option<DateTime<Utc>>,
}

/// Somebody works on a cluster: pgtenant changes nothing on it meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Why, for those whose databases wait.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Who has said so.
    pub requested_by: String,
}

/// The control plane's own login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionerStatus {
    /// The one in use.
    pub login: String,
    /// When it took the place of the other one; none: it never has.
    pub turned_at: Option<DateTime<Utc>>,
}
