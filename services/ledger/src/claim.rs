//! Claims as they are stored.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pgtenant_model::{
    ClaimKey, ClaimSpec, Condition, Database, DatabaseState, Endpoint, Mode, RoleStatus, Roles, Side, Source, Tier,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::{LedgerError, Result};

/// What is to become of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// The database is there and as it should be.
    Present,
    /// Everything is kept and nothing is managed.
    Retained,
    /// Everything is gone.
    Absent,
}

/// What is known of a tier's credential; never the credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialState {
    /// Fingerprint of the password that every store should hold.
    pub fingerprint: String,
    /// The login that it is of.
    #[serde(default)]
    pub side: Side,
    /// When that password was set.
    pub set_at: DateTime<Utc>,
    /// Since when the other login has been out of use, while it may still log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_since: Option<DateTime<Utc>>,
    /// What the other login is to get: written down before it is anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextPassword>,
    /// The former stores, as a digest of their description, from which it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned: Option<String>,
}

/// A password that takes the place of another, while that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextPassword {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Why, for the event.
    pub reason: String,
    /// When it was made: whoever asks for a new one later means another one.
    pub made_at: DateTime<Utc>,
}

/// A claim: what is wished and what is true.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// UUID version 7; another one after the claim was dropped and made again.
    pub id: Uuid,
    /// Who it is.
    pub key: ClaimKey,
    /// What is wished for.
    pub spec: ClaimSpec,
    /// Clusters that it was on before; its definition may still name one of them.
    pub moved_from: Vec<String>,
    /// The door that made it.
    pub source: Source,
    /// Where within that door, as the file in the apps folder.
    pub source_ref: Option<String>,
    /// The generation of the definition that was last written down, where its door counts them.
    pub source_generation: Option<i64>,
    /// What is to become of it.
    pub wish: Wish,
    /// Released by a person: its door leaves it alone until its definition was gone once.
    pub released: bool,
    /// Whether a database of that name that is not ours may be taken over.
    pub adopt: bool,
    /// Whether its removal is for good: stores that keep what was removed for a while do not.
    pub purge: bool,
    /// Tiers for which somebody asked for a new password.
    pub rotate: Vec<Tier>,
    /// Their turn, where it is still to come.
    pub rotate_at: Option<DateTime<Utc>>,
    /// When somebody last asked for one.
    pub asked_at: Option<DateTime<Utc>>,
    /// When its credentials need work that is not to wait for a look.
    pub keep_at: Option<DateTime<Utc>>,
    /// When every tier last logged in with what the stores have, if nothing since then speaks against it.
    pub proven_at: Option<DateTime<Utc>>,
    /// Grows with every change of what is wished.
    pub generation: i64,
    /// The generation that was last made true.
    pub observed_generation: i64,
    /// In one word.
    pub state: DatabaseState,
    /// In many.
    pub conditions: Vec<Condition>,
    /// Where tenants connect.
    pub endpoint: Option<Endpoint>,
    /// Roles and where their credentials are; none until they were first stored.
    pub roles: Option<Roles>,
    /// What is known of the stored credentials.
    pub credentials: BTreeMap<Tier, CredentialState>,
    /// When the claim was made.
    pub created_at: DateTime<Utc>,
    /// When what is wished last changed.
    pub wished_at: DateTime<Utc>,
    /// When it is looked at next.
    pub due_at: DateTime<Utc>,
    /// Failed tries since the last success.
    pub attempts: i32,
}

#[derive(sqlx::FromRow)]
pub(crate) struct ClaimRow {
    id: Uuid,
    namespace: String,
    name: String,
    cluster: String,
    moved_from: Vec<String>,
    source: String,
    source_ref: Option<String>,
    source_generation: Option<i64>,
    mode: String,
    schemas: Vec<String>,
    extensions: Vec<String>,
    connection_limit: Option<i32>,
    slack_channel: Option<String>,
    wish: String,
    released: bool,
    adopt: bool,
    purge: bool,
    rotate: Vec<String>,
    rotate_at: Option<DateTime<Utc>>,
    asked_at: Option<DateTime<Utc>>,
    keep_at: Option<DateTime<Utc>>,
    proven_at: Option<DateTime<Utc>>,
    generation: i64,
    observed_generation: i64,
    state: String,
    conditions: Json<Vec<Condition>>,
    endpoint: Option<Json<Endpoint>>,
    roles: Option<Json<Roles>>,
    credentials: Json<BTreeMap<Tier, CredentialState>>,
    created_at: DateTime<Utc>,
    wished_at: DateTime<Utc>,
    due_at: DateTime<Utc>,
    attempts: i32,
}

/// The columns of [`ClaimRow`], for `select` and `returning`.
macro_rules! claim_columns {
    () => {
        "id, namespace, name, cluster, moved_from, source, source_ref, source_generation, mode, schemas, extensions, \
         connection_limit, slack_channel, wish, released, adopt, purge, rotate, rotate_at, asked_at, keep_at, proven_at, generation, observed_generation, state, conditions, \
         endpoint, roles, credentials, created_at, wished_at, due_at, attempts"
    };
}
pub(crate) use claim_columns;

impl TryFrom<ClaimRow> for Claim {
    type Error = LedgerError;

    fn try_from(row: ClaimRow) -> Result<Self> {
        let key = ClaimKey::new(row.namespace, row.name)
            .map_err(|e| LedgerError::Unknown { what: "claim", value: e.value })?;
        let mode: Mode = from_json_name("mode", row.mode)?;
        let rotate = row.rotate.into_iter().map(|tier| from_json_name("tier", tier)).collect::<Result<_>>()?;
        Ok(Self {
            id: row.id,
            key,
            spec: ClaimSpec {
                mode,
                cluster: row.cluster,
                schemas: row.schemas,
                extensions: row.extensions,
                connection_limit: row.connection_limit,
                slack_channel: row.slack_channel,
            },
            moved_from: row.moved_from,
            source: from_json_name("source", row.source)?,
            source_ref: row.source_ref,
            source_generation: row.source_generation,
            wish: from_json_name("wish", row.wish)?,
            released: row.released,
            adopt: row.adopt,
            purge: row.purge,
            rotate,
            rotate_at: row.rotate_at,
            asked_at: row.asked_at,
            keep_at: row.keep_at,
            proven_at: row.proven_at,
            generation: row.generation,
            observed_generation: row.observed_generation,
            state: from_json_name("state", row.state)?,
            conditions: row.conditions.0,
            endpoint: row.endpoint.map(|e| e.0),
            roles: row.roles.map(|r| r.0),
            credentials: row.credentials.0,
            created_at: row.created_at,
            wished_at: row.wished_at,
            due_at: row.due_at,
            attempts: row.attempts,
        })
    }
}

/// A definition as it is meant: one that names a cluster that the claim was moved from means the one that it is on.
pub(crate) fn follow(defined: &ClaimSpec, current: &ClaimSpec, moved_from: &[String]) -> ClaimSpec {
    let cluster = if moved_from.contains(&defined.cluster) { &current.cluster } else { &defined.cluster };
    ClaimSpec { cluster: cluster.clone(), ..defined.clone() }
}

impl Claim {
    /// What a definition means: where it names a cluster that the claim was moved from, the one that it is on.
    #[must_use]
    pub fn follow(&self, defined: &ClaimSpec) -> ClaimSpec {
        follow(defined, &self.spec, &self.moved_from)
    }

    /// Tiers for which somebody asked for a new password, and whose turn it is.
    #[must_use]
    pub fn asked(&self) -> &[Tier] {
        if self.rotate_at.is_none() { &self.rotate } else { &[] }
    }

    /// When it is looked at next, for whatever reason.
    fn next_look_at(&self) -> DateTime<Utc> {
        [self.rotate_at, self.keep_at].into_iter().flatten().fold(self.due_at, DateTime::min)
    }

    /// The claim as REST shows it.
    #[must_use]
    pub fn database(&self) -> Database {
        let role = |tier| RoleStatus {
            role: self.key.role(tier),
            login: self.key.role(tier),
            set_at: None,
            stores: Vec::new(),
        };
        let ClaimSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel } = self.spec.clone();
        Database {
            namespace: self.key.namespace().to_owned(),
            name: self.key.name().to_owned(),
            mode,
            cluster,
            schemas,
            extensions,
            connection_limit,
            slack_channel,
            generation: self.generation,
            observed_generation: self.observed_generation,
            state: self.state,
            source: self.source,
            conditions: self.conditions.clone(),
            database: self.key.database(),
            endpoint: self.endpoint.clone(),
            roles: self.roles.clone().unwrap_or_else(|| Roles {
                read: role(Tier::Read),
                write: role(Tier::Write),
                admin: role(Tier::Admin),
            }),
            created_at: self.created_at,
            next_look_at: (self.wish != Wish::Retained).then(|| self.next_look_at()),
        }
    }
}

/// One claim.
///
/// # Errors
/// The ledger did not answer.
pub async fn claim(db: &mut PgConnection, key: &ClaimKey) -> Result<Option<Claim>> {
    let row: Option<ClaimRow> =
        sqlx::query_as(concat!("select ", claim_columns!(), " from claims where namespace = $1 and name = $2"))
            .bind(key.namespace())
            .bind(key.name())
            .fetch_optional(db)
            .await?;
    row.map(Claim::try_from).transpose()
}

/// Which claims to list; every field that is set narrows.
#[derive(Debug, Clone, Default)]
pub struct ClaimFilter<'a> {
    /// Those of these namespaces.
    pub namespaces: Option<&'a [String]>,
    /// Those on this cluster.
    pub cluster: Option<&'a str>,
    /// Those in this state.
    pub state: Option<DatabaseState>,
    /// Those of this door.
    pub source: Option<Source>,
    /// Those after this namespace and name, in their order.
    pub after: Option<(&'a str, &'a str)>,
}

/// Claims by namespace and name, at most `limit`.
///
/// # Errors
/// The ledger did not answer.
pub async fn claims(db: &mut PgConnection, filter: &ClaimFilter<'_>, limit: i64) -> Result<Vec<Claim>> {
    let rows: Vec<ClaimRow> = sqlx::query_as(concat!(
        "select ",
        claim_columns!(),
        " from claims
          where ($1::text[] is null or namespace = any($1))
            and ($2::text is null or cluster = $2)
            and ($3::text is null or state = $3)
            and ($4::text is null or source = $4)
            and ($5::text is null or (namespace, name) > ($5, $6))
          order by namespace, name limit $7"
    ))
    .bind(filter.namespaces)
    .bind(filter.cluster)
    .bind(filter.state.map(DatabaseState::as_str))
    .bind(filter.source.map(json_name))
    .bind(filter.after.map(|(namespace, _)| namespace))
    .bind(filter.after.map(|(_, name)| name))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Claim::try_from).collect()
}

/// Every claim of a cluster whose credentials have been stored and are to stay.
///
/// # Errors
/// The ledger did not answer.
pub async fn claims_with_credentials(db: &mut PgConnection, cluster: &str) -> Result<Vec<ClaimKey>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select namespace, name from claims
         where cluster = $1 and wish <> 'absent' and credentials <> '{}' order by namespace, name",
    )
    .bind(cluster)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(key).collect()
}

/// The claim that owns a database's name on a cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn owner_of(db: &mut PgConnection, cluster: &str, database: &str) -> Result<Option<ClaimKey>> {
    let row: Option<(String, String)> =
        sqlx::query_as("select namespace, name from claims where cluster = $1 and database = $2")
            .bind(cluster)
            .bind(database)
            .fetch_optional(db)
            .await?;
    row.map(key).transpose()
}

fn key((namespace, name): (String, String)) -> Result<ClaimKey> {
    ClaimKey::new(namespace, name).map_err(|e| LedgerError::Unknown { what: "claim", value: e.value })
}

/// How many claims of each of `namespaces`, or of all, are in each state; only what there is.
///
/// # Errors
/// The ledger did not answer.
pub async fn count_by_namespace(
    db: &mut PgConnection,
    namespaces: Option<&[String]>,
) -> Result<Vec<(String, DatabaseState, u64)>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select namespace, state, count(*) from claims where $1::text[] is null or namespace = any($1)
         group by namespace, state order by namespace, state",
    )
    .bind(namespaces)
    .fetch_all(db)
    .await?;
    let counted = |(namespace, state, count): (_, _, i64)| {
        Ok((namespace, from_json_name("state", state)?, u64::try_from(count).unwrap_or_default()))
    };
    rows.into_iter().map(counted).collect()
}

/// How many claims are in each state, for metrics.
///
/// # Errors
/// The ledger did not answer.
pub async fn count_by_state(db: &mut PgConnection) -> Result<Vec<(String, String, i64)>> {
    Ok(sqlx::query_as("select cluster, state, count(*) from claims group by cluster, state order by cluster, state")
        .fetch_all(db)
        .await?)
}
