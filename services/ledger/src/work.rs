//! Work: which claims are due, who looks at them, and what came of it.
//!
//! A claim is taken with `FOR UPDATE SKIP LOCKED` under a lease. Its `fence` grows with each take, and every later
//! write names the fence: a replica that stalled and comes back finds that it has nothing to say any more.

use std::collections::BTreeMap;
use std::time::Duration;

use pgtenant_model::{Condition, DatabaseState, Endpoint, EventKind, Maintenance, Roles, Tier};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::claim::{ClaimRow, claim_columns};
use crate::{Claim, CredentialState, LedgerError, NewEvent, Result, append_event};

/// A claim that this replica looks at.
#[derive(Debug, Clone)]
pub struct Work {
    /// The claim as it was when it was taken.
    pub claim: Claim,
    /// The fencing token.
    pub fence: i64,
    /// Somebody waits for it: a wish or a retry. Otherwise it is the periodic look.
    pub urgent: bool,
    /// Nothing is changed on its cluster at the moment.
    pub maintenance: Option<Maintenance>,
}

/// How much to take, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Take {
    /// This replica.
    pub holder: Uuid,
    /// At most so many claims.
    pub limit: i64,
    /// Wishes and retries, or periodic looks.
    pub urgent: bool,
    /// How long the lease holds without a renewal.
    pub lease: Duration,
    /// Only what has been due for so long: other replicas, which can do it better, go first.
    pub head_start: Duration,
}

/// A turn that has come is given up for a wish: who dies with it leaves a claim that is due.
macro_rules! take_where {
    ($due:literal, $order:literal) => {
        concat!(
            "with due as (
                 select id as due_id from claims
                 where cluster = $1 and wish <> 'retained' and held_by is null
                   and (lease_until is null or lease_until < now()) and ",
            $due,
            " order by attempts > 0, ",
            $order,
            " limit $2 for update skip locked)
             update claims set lease_holder = $3, lease_until = now() + $4 * interval '1 second', fence = fence + 1,
                    woken = false, state = case state when 'Pending' then 'Provisioning' else state end,
                    urgent = urgent or coalesce(rotate_at <= now(), false),
                    due_at = case when rotate_at <= now() then now() else due_at end,
                    rotate_at = case when rotate_at > now() then rotate_at end
             from due where id = due_id returning fence, urgent,
                    (select maintenance from clusters where clusters.name = claims.cluster) as maintenance, ",
            claim_columns!()
        )
    };
}

/// Takes claims of `cluster` that are due and that nobody holds; those that have failed before come last.
///
/// # Errors
/// The ledger did not answer.
pub async fn take(db: &mut PgConnection, cluster: &str, take: Take) -> Result<Vec<Work>> {
    // Whoever waits for a claim goes before work that nobody waits for.
    const URGENT: &str = take_where!(
        "(urgent and due_at <= now() - $5 * interval '1 second'
          or least(rotate_at, keep_at) <= now() - $5 * interval '1 second')",
        "not urgent, least(due_at, rotate_at, keep_at)"
    );
    const LOOKS: &str = take_where!("not urgent and due_at <= now() - $5 * interval '1 second'", "due_at");
    let rows = sqlx::query(if take.urgent { URGENT } else { LOOKS })
        .bind(cluster)
        .bind(take.limit)
        .bind(take.holder)
        .bind(take.lease.as_secs_f64())
        .bind(take.head_start.as_secs_f64())
        .fetch_all(db)
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| work_of(row).map_err(|error| tracing::error!(error = ?error, "a claim is skipped")).ok())
        .collect())
}

/// A row that this version does not understand, as one that a newer replica wrote, must not keep others from being taken.
fn work_of(row: &PgRow) -> Result<Work> {
    let claim: ClaimRow = sqlx::FromRow::from_row(row)?;
    let maintenance: Option<Json<Maintenance>> = row.try_get("maintenance")?;
    let (fence, urgent, maintenance) = (row.try_get("fence")?, row.try_get("urgent")?, maintenance.map(|it| it.0));
    Ok(Work { claim: claim.try_into()?, fence, urgent, maintenance })
}

/// When a claim of `cluster` is next due: `(urgent, looks)`. Claims under a lease count from its end.
///
/// # Errors
/// The ledger did not answer.
pub async fn next_due(db: &mut PgConnection, cluster: &str) -> Result<(Option<Duration>, Option<Duration>)> {
    let (urgent, look): (Option<f64>, Option<f64>) = sqlx::query_as(
        "select extract(epoch from least(
                    (select min(greatest(due_at, lease_until)) from claims
                     where cluster = $1 and urgent and wish <> 'retained' and held_by is null),
                    (select least(rotate_at, keep_at) from claims
                     where cluster = $1 and least(rotate_at, keep_at) is not null and wish <> 'retained' and held_by is null
                       and (lease_until is null or lease_until < now())
                     order by least(rotate_at, keep_at) limit 1)) - now())::float8,
                extract(epoch from (select due_at from claims
                    where cluster = $1 and not urgent and wish <> 'retained' and held_by is null
                      and (lease_until is null or lease_until < now())
                    order by due_at limit 1) - now())::float8",
    )
    .bind(cluster)
    .fetch_one(db)
    .await?;
    let wait = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
    Ok((urgent.map(wait), look.map(wait)))
}

/// How many claims are due and held by nobody.
///
/// # Errors
/// The ledger did not answer.
pub async fn queue_length(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select count(*) from claims
         where (urgent and due_at <= now() or least(rotate_at, keep_at) <= now()) and wish <> 'retained'
           and (lease_until is null or lease_until < now())",
    )
    .fetch_one(db)
    .await?)
}

/// Holds the lease for longer.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken the claim.
pub async fn renew(db: &mut PgConnection, work: &Work, lease: Duration) -> Result<()> {
    let done =
        sqlx::query("update claims set lease_until = now() + $3 * interval '1 second' where id = $1 and fence = $2")
            .bind(work.claim.id)
            .bind(work.fence)
            .bind(lease.as_secs_f64())
            .execute(db)
            .await?;
    fenced_unless(done.rows_affected(), work)
}

fn fenced_unless(rows: u64, work: &Work) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(LedgerError::Fenced(work.claim.key.to_string())) }
}

/// What came of a look.
#[derive(Debug, Clone)]
pub struct Finished {
    /// In one word.
    pub state: DatabaseState,
    /// In many.
    pub conditions: Vec<Condition>,
    /// Whether what was wished is true now; otherwise the claim is tried again at `next`.
    pub done: bool,
    /// The step at which a try failed.
    pub step: Option<&'static str>,
    /// For the open operations.
    pub message: Option<String>,
    /// When to look next.
    pub next: Duration,
    /// When the credentials need work that is not to wait for a look.
    pub keep: Option<Duration>,
    /// Whether every tier has logged in with what the stores have; none: nobody has tried.
    pub proven: Option<bool>,
    /// Where tenants connect.
    pub endpoint: Option<Endpoint>,
    /// The roles.
    pub roles: Option<Roles>,
    /// What is known of the stored credentials.
    pub credentials: BTreeMap<Tier, CredentialState>,
    /// Tiers that need no new password any more.
    pub rotated: Vec<Tier>,
    /// What was asked for has to wait although nothing has failed: its operations go on, and it is tried again at `next`.
    pub waits: bool,
    /// Tiers that are to get a new password later, whether somebody has asked for it or not.
    pub to_rotate: Vec<Tier>,
    /// Events to append, in their order.
    pub events: Vec<(EventKind, String, Value)>,
}

/// Between two looks that are asked for because somebody meddles: who does so in a loop is not served in a loop.
pub(crate) const BREATHER: Duration = Duration::from_secs(2);

/// Writes down what came of a look and gives the claim back. A wish that changed in the meantime is due at once, a look that
/// was asked for in the meantime soon.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken the claim: nothing is written.
pub async fn finish(db: &mut PgConnection, work: &Work, finished: &Finished) -> Result<()> {
    let claim = &work.claim;
    let done = sqlx::query(
        "update claims set
             conditions = $4, endpoint = coalesce($5, endpoint), roles = coalesce($6, roles), credentials = $7,
             lease_holder = null, lease_until = null,
             observed_generation = case when $8 then $3 else observed_generation end,
             rotate = (select coalesce(array_agg(distinct tier), '{}')
                       from unnest(rotate || case when generation = $3 then $15 else '{}' end) tier
                       where generation <> $3 or asked_at is distinct from $18 or tier <> all($11)),
             state = case when generation = $3 then $9 else state end,
             adopt = case when $8 and generation = $3 then false else adopt end,
             looked_at = now(), woken = false, keep_at = now() + $16 * interval '1 second',
             proven_at = case when woken then null when $17 then now() when $17 is null then proven_at end,
             urgent = case when generation = $3 and not woken then not $8 or $14 else true end,
             attempts = case when $8 then 0 when $14 then attempts else attempts + 1 end,
             due_at = case when generation <> $3 then now()
                           when woken then now() + least($10, $13) * interval '1 second'
                           else now() + $10 * interval '1 second' end
         where id = $1 and fence = $2
         returning case when source = 'kubernetes' then pg_notify($12, namespace || '/' || name) end",
    )
    .bind(claim.id)
    .bind(work.fence)
    .bind(claim.generation)
    .bind(Json(&finished.conditions))
    .bind(finished.endpoint.as_ref().map(Json))
    .bind(finished.roles.as_ref().map(Json))
    .bind(Json(&finished.credentials))
    .bind(finished.done)
    .bind(finished.state.as_str())
    .bind(finished.next.as_secs_f64())
    .bind(finished.rotated.iter().map(|tier| tier.as_str()).collect::<Vec<_>>())
    .bind(crate::CLAIMS_CHANNEL)
    .bind(BREATHER.as_secs_f64())
    .bind(finished.waits)
    .bind(finished.to_rotate.iter().map(|tier| tier.as_str()).collect::<Vec<_>>())
    .bind(finished.keep.map(|keep| keep.as_secs_f64()))
    .bind(finished.proven)
    .bind(claim.asked_at)
    .execute(&mut *db)
    .await?;
    fenced_unless(done.rows_affected(), work)?;
    if work.urgent || claim.attempts > 0 || !finished.done {
        finish_operations(db, work, finished.done && !finished.waits, finished.step, finished.message.as_deref())
            .await?;
    }
    append_all(db, claim, &finished.events).await
}

/// Writes down what is about to be done to the credentials, before it is done.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken the claim: nothing is written.
pub async fn note_credentials(
    db: &mut PgConnection,
    work: &Work,
    credentials: &BTreeMap<Tier, CredentialState>,
) -> Result<()> {
    let done = sqlx::query("update claims set credentials = $3 where id = $1 and fence = $2")
        .bind(work.claim.id)
        .bind(work.fence)
        .bind(Json(credentials))
        .execute(db)
        .await?;
    fenced_unless(done.rows_affected(), work)
}

/// Removes a claim of which nothing is left; its name is free.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken the claim: nothing is written.
pub async fn forget(db: &mut PgConnection, work: &Work, message: &str) -> Result<()> {
    let done = sqlx::query(
        "with gone as (delete from claims where id = $1 and fence = $2 and wish = 'absent' and purge = $3
                       returning cluster, namespace, name)
         insert into claims_removed (cluster, namespace, name) select cluster, namespace, name from gone
         on conflict (cluster, namespace, name) do update set removed_at = now()",
    )
    .bind(work.claim.id)
    .bind(work.fence)
    // Asked for in the meantime: it is looked at once more, and what was kept for a while is removed for good.
    .bind(work.claim.purge)
    .execute(&mut *db)
    .await?;
    fenced_unless(done.rows_affected(), work)?;
    // What restores had put aside went with it.
    sqlx::query("update restores set before_name = null, before_until = null where claim = $1")
        .bind(work.claim.id)
        .execute(&mut *db)
        .await?;
    crate::announce_to_all(db, false, Some(&work.claim)).await?;
    finish_operations(db, work, true, None, Some(message)).await?;
    let event = (EventKind::Deleted, message.to_owned(), Value::Object(serde_json::Map::new()));
    append_all(db, &work.claim, &[event]).await
}

/// Tries claims of a cluster that wait for a retry at once: what they failed for may be mended.
///
/// # Errors
/// The ledger did not answer.
pub async fn retry_now(db: &mut PgConnection, cluster: &str) -> Result<()> {
    sqlx::query("update claims set due_at = least(due_at, now()) where cluster = $1 and urgent and wish <> 'retained'")
        .bind(cluster)
        .execute(&mut *db)
        .await?;
    crate::announce(db, true, None).await
}

/// Looks at every claim of a cluster within `spread` from now, and proves what its stores have, as after a change of the primary:
/// one that was behind does not have the last passwords. Claims that wait for a retry are due at once.
///
/// # Errors
/// The ledger did not answer.
pub async fn look_soon(db: &mut PgConnection, cluster: &str, spread: Duration) -> Result<u64> {
    let done = sqlx::query(
        "update claims set proven_at = null, woken = woken or coalesce(lease_until > now(), false), due_at = least(due_at, now() + case when urgent then 0 else random() end * $2
                                                     * interval '1 second')
         where cluster = $1 and wish <> 'retained'",
    )
    .bind(cluster)
    .bind(spread.as_secs_f64())
    .execute(&mut *db)
    .await?;
    crate::announce(db, true, None).await?;
    Ok(done.rows_affected())
}

async fn finish_operations(
    db: &mut PgConnection,
    work: &Work,
    done: bool,
    step: Option<&str>,
    message: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "update operations set state = case when $3 then 'Succeeded' else 'Running' end, step = $4, message = $5,
                finished_at = case when $3 then now() end
         where claim = $1 and generation <= $2 and finished_at is null and kind not in ('backup', 'verify')",
    )
    .bind(work.claim.id)
    .bind(work.claim.generation)
    .bind(done)
    .bind(step)
    .bind(message)
    .execute(db)
    .await?;
    Ok(())
}

async fn append_all(db: &mut PgConnection, claim: &Claim, events: &[(EventKind, String, Value)]) -> Result<()> {
    for (kind, message, detail) in events {
        let event = NewEvent {
            kind: *kind,
            namespace: Some(claim.key.namespace()),
            name: claim.key.name(),
            message: message.clone(),
            detail: detail.clone(),
        };
        append_event(db, event).await?;
    }
    Ok(())
}
