//! What a door that follows definitions needs to know of its own claims, and may say of them beside its wishes.

use pgtenant_model::{ClaimKey, ClaimSpec, Source};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::claim::follow;
use crate::event::from_json_name;
use crate::{LedgerError, Result, Wish};

/// A claim as its door sees it: what was wished, not what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorClaim {
    /// Who it is.
    pub key: ClaimKey,
    /// What is wished for.
    pub spec: ClaimSpec,
    /// Clusters that it was on before.
    pub moved_from: Vec<String>,
    /// Where within the door, as the file in the apps folder.
    pub source_ref: Option<String>,
    /// What is to become of it.
    pub wish: Wish,
    /// Released by a person: its door leaves it alone until its definition was gone once.
    pub released: bool,
}

impl DoorClaim {
    /// What a definition means: where it names a cluster that the claim was moved from, the one that it is on.
    #[must_use]
    pub fn follow(&self, defined: &ClaimSpec) -> ClaimSpec {
        follow(defined, &self.spec, &self.moved_from)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    namespace: String,
    name: String,
    cluster: String,
    moved_from: Vec<String>,
    mode: String,
    schemas: Vec<String>,
    extensions: Vec<String>,
    connection_limit: Option<i32>,
    slack_channel: Option<String>,
    source_ref: Option<String>,
    wish: String,
    released: bool,
}

impl TryFrom<Row> for DoorClaim {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self> {
        let key = ClaimKey::new(row.namespace, row.name)
            .map_err(|e| LedgerError::Unknown { what: "claim", value: e.value })?;
        Ok(Self {
            key,
            spec: ClaimSpec {
                mode: from_json_name("mode", row.mode)?,
                cluster: row.cluster,
                schemas: row.schemas,
                extensions: row.extensions,
                connection_limit: row.connection_limit,
                slack_channel: row.slack_channel,
            },
            moved_from: row.moved_from,
            source_ref: row.source_ref,
            wish: from_json_name("wish", row.wish)?,
            released: row.released,
        })
    }
}

/// Every claim that this door has made, by namespace and name. Without conditions and roles, so that thousands are light.
///
/// # Errors
/// The ledger did not answer.
pub async fn door_claims(db: &mut PgConnection, source: Source) -> Result<Vec<DoorClaim>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select namespace, name, cluster, moved_from, mode, schemas, extensions, connection_limit, slack_channel, source_ref, wish,
                released
         from claims where source = $1 order by namespace, name",
    )
    .bind(source.as_str())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(DoorClaim::try_from).collect()
}

/// Takes this door's turn until the end of the transaction; false while another replica has it.
///
/// # Errors
/// The ledger did not answer.
pub async fn try_door_turn(db: &mut PgConnection, source: Source) -> Result<bool> {
    // Its holder writes through other connections meanwhile, and this one rests.
    sqlx::query("set local idle_in_transaction_session_timeout = '10min'").execute(&mut *db).await?;
    Ok(sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtextextended($1, 11))")
        .bind(source.as_str())
        .fetch_one(db)
        .await?)
}

/// Notes that a claim is defined at another place of its door now. Nothing of what is wished changes. False where the
/// door has no such claim any more.
///
/// # Errors
/// The ledger did not answer.
pub async fn move_claim(db: &mut PgConnection, key: &ClaimKey, source: Source, source_ref: &str) -> Result<bool> {
    let done = sqlx::query("update claims set source_ref = $4 where namespace = $1 and name = $2 and source = $3")
        .bind(key.namespace())
        .bind(key.name())
        .bind(source.as_str())
        .bind(source_ref)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The definition of a claim that a person released is gone: defining it again takes it back. False where there is
/// nothing to forget.
///
/// # Errors
/// The ledger did not answer.
pub async fn forget_release(db: &mut PgConnection, key: &ClaimKey, source: Source) -> Result<bool> {
    let done = sqlx::query(
        "update claims set released = false
         where namespace = $1 and name = $2 and source = $3 and wish = 'retained' and released",
    )
    .bind(key.namespace())
    .bind(key.name())
    .bind(source.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that generation `generation` of the definition `source_ref` is what a claim's wish was made from. False where a
/// later generation of it was noted already: the caller has read an old definition, and rolls back what it has written.
///
/// # Errors
/// The ledger did not answer.
pub async fn note_definition(db: &mut PgConnection, claim: Uuid, source_ref: &str, generation: i64) -> Result<bool> {
    let done = sqlx::query(
        "update claims set source_ref = $2, source_generation = $3
         where id = $1 and (source_ref is distinct from $2 or coalesce(source_generation, 0) <= $3)",
    )
    .bind(claim)
    .bind(source_ref)
    .bind(generation)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A claim is looked at: what its stores hold was changed by somebody else. At once, but no more often than every two seconds;
/// one that is under work again when that is done. False where it is due anyway.
///
/// # Errors
/// The ledger did not answer.
pub async fn look_now(db: &mut PgConnection, key: &ClaimKey) -> Result<bool> {
    let done = sqlx::query(
        "update claims set woken = lease_until is not null and lease_until >= now(), urgent = true,
                due_at = greatest(now(), looked_at + $3 * interval '1 second')
         where namespace = $1 and name = $2 and wish = 'present' and not woken
           and (not urgent or lease_until >= now())",
    )
    .bind(key.namespace())
    .bind(key.name())
    .bind(crate::work::BREATHER.as_secs_f64())
    .execute(&mut *db)
    .await?;
    let looks = done.rows_affected() == 1;
    if looks {
        crate::announce(db, true, None).await?;
    }
    Ok(looks)
}
