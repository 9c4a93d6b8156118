//! The language of pgtenant: names, tiers, modes, claims, clusters, and what is said of them.
//!
//! No I/O and no async: every other crate speaks in these words.

mod aurora;
mod backup;
mod claim;
mod cluster;
mod credential;
mod drill;
mod event;
mod history;
mod host_port;
mod inventory;
mod marks;
mod member;
mod moving;
mod name;
mod pgbouncer;
mod plan;
mod provisioner;
mod restore;
mod restore_rules;
mod span;
mod status;
mod store;
mod switchover;
mod tls;
mod topology;
mod window;

pub use aurora::{Acu, AuroraCreate, AuroraTopology};
pub use backup::{BackupSpec, DumpPlace, DumpSpec, FolderPlace, PgBackRestSpec, RdsBackupSpec, S3Place, WebDavPlace};
pub use claim::{ClaimPatch, ClaimSpec, InvalidField, Mode, Source, is_slack_channel};
pub use cluster::{ClusterSpec, Endpoint, Environment, Limits};
pub use credential::{Address, CA_KEY, CREDENTIAL_KEYS, Credential, CredentialTarget, POOL_KEYS, READ_KEYS};
pub use drill::{Drill, DrillClient, DrillEvent, DrillMeans};
pub use event::{Event, EventKind, Operation, OperationKind, OperationState};
pub use history::History;
pub use host_port::HostPort;
pub use inventory::{Finding, Inventory, InventorySequence, InventoryTable, LargeObjects, LeftOut, Verification};
pub use marks::{CLAIM_LABEL, MANAGED_BY, RELOADER, STORE_MANAGER, TIER_LABEL};
pub use member::{Member, MemberRole, NOT_STREAMING, SyncState};
pub use moving::{Move, MoveMethod, MovePhase};
pub use name::{ClaimKey, InvalidName, MAX_DATABASE_BYTES, MAX_IDENTIFIER_BYTES, NameRule, Side, Tier, check_label};
pub use pgbouncer::PgBouncer;
pub use plan::{ChangeReport, ClaimPlan, PlanAction, PlanReport, PlanRequest, PlannedClaim};
pub use provisioner::{AwsSecretRef, Provisioner, SecretRef};
pub use restore::{
    InvalidSnapshotId, PutAside, Restore, RestorePhase, RestorePoint, RestoreProgress, RestoreSpec, RestoreStrategy,
    Snapshot, SnapshotId, SnapshotKind,
};
pub use restore_rules::{Approval, RdsCopyRules, RestoreRules};
pub use span::Span;
pub use status::{
    CheckResult, ClusterStatus, Condition, ConditionStatus, Database, DatabaseState, Drift, Maintenance,
    PreflightCheck, ProvisionerStatus, RoleStatus, Roles, StoreLocation, StoreState, set_condition,
};
pub use store::{AwsSecretsManagerStore, ExternalSecretStore, FileStore, KubernetesStore, SECRET_TAGS, StoreSpec};
pub use switchover::Switchover;
pub use tls::{SslMode, TlsSpec};
pub use topology::{
    HaproxyTopology, Monitor, PatroniTopology, PgAutoFailoverTopology, RepmgrTopology, StreamingTopology, Topology,
};
pub use window::BackupWindow;
