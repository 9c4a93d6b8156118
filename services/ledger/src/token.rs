//! Bearer tokens: only their hash is stored.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::{LedgerError, Result};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Everything.
    Platform,
    /// Everything in its namespaces.
    Tenant,
    /// Reads in its namespaces.
    Viewer,
}

/// A token, without the secret.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Names the token where it is revoked.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: TokenRole,
    /// Where; empty for `platform`.
    pub namespaces: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends; none: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: TokenRole,
    /// Where.
    pub namespaces: Vec<String>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    name: String,
    role: String,
    namespaces: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Token {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self> {
        let Row { id, name, role, namespaces, created_at, expires_at, revoked_at } = row;
        let role = from_json_name("token role", role)?;
        Ok(Self { id, name, role, namespaces, created_at, expires_at, revoked_at })
    }
}

/// Tokens carry 256 random bits, so a plain hash keeps them as safe as a slow one would.
fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// Makes a token. The secret, `pgt_` and 64 hexadecimal digits, is returned here and can not be read again.
///
/// # Errors
/// The ledger did not answer.
pub async fn create_token(db: &mut PgConnection, new: NewToken) -> Result<(Token, SecretString)> {
    let bytes: [u8; 32] = rand::random();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = SecretString::from(format!("pgt_{digits}"));
    let row: Row = sqlx::query_as(
        "insert into tokens (id, name, hash, role, namespaces, expires_at) values ($1, $2, $3, $4, $5, $6)
         returning id, name, role, namespaces, created_at, expires_at, revoked_at",
    )
    .bind(Uuid::now_v7())
    .bind(&new.name)
    .bind(hash(secret.expose_secret()))
    .bind(json_name(new.role))
    .bind(&new.namespaces)
    .bind(new.expires_at)
    .fetch_one(db)
    .await?;
    Ok((row.try_into()?, secret))
}

/// The token with this secret, unless it has expired or was revoked.
///
/// # Errors
/// The ledger did not answer.
pub async fn find_token(db: &mut PgConnection, secret: &SecretString) -> Result<Option<Token>> {
    let row: Option<Row> = sqlx::query_as(
        "select id, name, role, namespaces, created_at, expires_at, revoked_at from tokens
         where hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
    )
    .bind(hash(secret.expose_secret()))
    .fetch_optional(db)
    .await?;
    row.map(Token::try_from).transpose()
}

/// The token of this name that has neither expired nor was revoked; none where there are several.
///
/// # Errors
/// The ledger did not answer.
pub async fn token_named(db: &mut PgConnection, name: &str) -> Result<Option<Token>> {
    let mut rows: Vec<Row> = sqlx::query_as(
        "select id, name, role, namespaces, created_at, expires_at, revoked_at from tokens
         where name = $1 and revoked_at is null and (expires_at is null or expires_at > now()) limit 2",
    )
    .bind(name)
    .fetch_all(db)
    .await?;
    let only = rows.pop().filter(|_| rows.is_empty());
    only.map(Token::try_from).transpose()
}

/// Every token, the newest first.
///
/// # Errors
/// The ledger did not answer.
pub async fn tokens(db: &mut PgConnection) -> Result<Vec<Token>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, name, role, namespaces, created_at, expires_at, revoked_at from tokens order by id desc",
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Token::try_from).collect()
}

/// Ends a token at once. Whether there was one with this id.
///
/// # Errors
/// The ledger did not answer.
pub async fn revoke_token(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let done = sqlx::query("update tokens set revoked_at = coalesce(revoked_at, now()) where id = $1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}
