//! Doing what a plan says.

use std::time::Duration;

use crate::change::{Change, DatabaseChange};
use crate::error::{ErrorClass, PostgresError};
use crate::plan::{Batch, Place, Plan, step};
use crate::server::Server;
use crate::session::{Failure, Session};
use crate::sql;

/// Whether the caller may still act for a claim.
pub trait Fence: Send + Sync {
    /// For how long nobody else can take the claim; none: somebody may have it already.
    fn remaining(&self) -> Option<Duration>;
}

/// For callers of whom there is only one.
#[derive(Debug, Clone, Copy)]
pub struct Unfenced;

impl Fence for Unfenced {
    fn remaining(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Where a plan is in being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// As [`Batch::step`].
    pub name: &'static str,
    /// False: about to be sent. True: the server has committed it.
    pub done: bool,
}

/// Told of each step. It may panic, or never return: that is how tests find out what a killed process leaves.
pub type OnStep<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// Does all that a plan says, first in the maintenance database, then inside.
///
/// # Errors
/// The first statement that failed. What was done before it stays done; plan again.
pub async fn apply(
    server: &Server,
    session: &mut Session,
    plan: &Plan,
    fence: &dyn Fence,
    on_step: OnStep<'_>,
) -> Result<(), PostgresError> {
    run_maintenance(server, session, plan, fence, on_step).await?;
    let inside = connect_inside(server, plan).await?;
    run_inside(server, inside, plan, fence, on_step).await
}

/// Does what a plan says of the maintenance database, in which `session` is.
///
/// # Errors
/// The first statement that failed.
pub async fn run_maintenance(
    server: &Server,
    session: &mut Session,
    plan: &Plan,
    fence: &dyn Fence,
    on_step: OnStep<'_>,
) -> Result<(), PostgresError> {
    if let Some(role) = plan.roles_without_password().first() {
        return Err(PostgresError::NoPassword { role: (*role).to_owned() });
    }
    for batch in plan.batches_of(Place::Maintenance) {
        run(server, session, batch, fence, on_step).await?;
    }
    Ok(())
}

/// A session of the provisioner in the claim's database, where the plan has something to do there.
///
/// Await it before the tiers log in. The first session of a new database writes the cache of the system catalogs that later
/// ones start with (`pg_internal.init`); sessions that begin together all build it, which takes the server 9 ms for each.
///
/// # Errors
/// No connection came free, or the server does not let the provisioner in.
pub async fn connect_inside(server: &Server, plan: &Plan) -> Result<Option<Session>, PostgresError> {
    match plan.batches_of(Place::Inside).next() {
        Some(_) => server.inside(&plan.database).await.map(Some),
        None => Ok(None),
    }
}

/// Does what a plan says of the claim's database on the session that [`connect_inside`] made, and closes it. An extension that
/// is refused does not keep the others from being made.
///
/// # Errors
/// The first statement that failed.
pub async fn run_inside(
    server: &Server,
    session: Option<Session>,
    plan: &Plan,
    fence: &dyn Fence,
    on_step: OnStep<'_>,
) -> Result<(), PostgresError> {
    let Some(mut session) = session else { return Ok(()) };
    let mut refused = None;
    for batch in plan.batches_of(Place::Inside) {
        match run(server, &mut session, batch, fence, on_step).await {
            Err(error) if batch.step == step::EXTENSIONS && error.class() == ErrorClass::Refused => {
                refused.get_or_insert(error);
            }
            result => result?,
        }
    }
    refused.map_or(Ok(()), Err)
}

async fn run(
    server: &Server,
    session: &mut Session,
    batch: &Batch,
    fence: &dyn Fence,
    on_step: OnStep<'_>,
) -> Result<(), PostgresError> {
    on_step(Step { name: batch.step, done: false });
    if batch.alone() {
        run_alone(server, session, batch, fence).await?;
    } else {
        let timeouts = session.timeouts();
        let limit = timeouts.statement.saturating_sub(Duration::from_secs(1));
        let mut statements = prologue(server, fence, limit, batch)?;
        let before = statements.len();
        statements.extend(batch.changes.iter().flat_map(Change::statements));
        let result = session.batch(&statements.join(";\n"), timeouts.statement).await;
        result.map_err(|failure| explain(batch, failure, before))?;
    }
    tracing::debug!(step = batch.step, changes = batch.changes.len(), "applied");
    on_step(Step { name: batch.step, done: true });
    Ok(())
}

/// `CREATE DATABASE` and `DROP DATABASE` can not be in a transaction, so nothing that is sent with them can check the fence.
/// Before a drop the server is told to end the session if nothing arrives until the fence falls: what a stalled process sends
/// after that reaches nobody. A create that comes too late makes an empty, closed database at worst.
async fn run_alone(
    server: &Server,
    session: &mut Session,
    batch: &Batch,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let timeouts = session.timeouts();
    let remaining = check(fence, batch)?;
    let dropped = match batch.changes.as_slice() {
        [Change::Database(DatabaseChange::Drop { database })] => Some(database),
        _ => None,
    };
    if dropped.is_some() && remaining != Duration::MAX {
        let mut guard = prologue(server, fence, timeouts.statement, batch)?;
        let before = guard.len();
        guard.push(sql::idle_session_timeout(remaining));
        session.spoil();
        let result = session.batch(&guard.join(";\n"), timeouts.statement).await;
        result.map_err(|failure| explain(batch, failure, before))?;
    }
    let sql: Vec<_> = batch.changes.iter().flat_map(Change::statements).collect();
    let mut result = session.batch(&sql.join(";\n"), timeouts.database).await;
    if let Some(database) = dropped
        && result.as_ref().is_err_and(|failure| failure.cause.sqlstate() == Some(sql::NOT_ALLOWED))
    {
        // No role owns a worker of autovacuum, so a non-superuser may not force it out (15.18). Without FORCE the server
        // ends such workers itself.
        result = session.batch(&sql::drop_unforced(database), timeouts.database).await;
    }
    result.map_err(|failure| explain(batch, failure, 0))
}

fn check(fence: &dyn Fence, batch: &Batch) -> Result<Duration, PostgresError> {
    match fence.remaining() {
        Some(remaining) if !remaining.is_zero() => Ok(remaining),
        _ => Err(PostgresError::Fenced { what: what(batch, 0) }),
    }
}

/// Statements that hold a batch to its limits: its time, and the server's clock when the fence falls.
fn prologue(server: &Server, fence: &dyn Fence, limit: Duration, batch: &Batch) -> Result<Vec<String>, PostgresError> {
    let remaining = check(fence, batch)?;
    let until = server.clock().and_then(|now| {
        let remaining = chrono::TimeDelta::from_std(remaining).ok()?;
        now.checked_add_signed(remaining)
    });
    let mut statements = Vec::with_capacity(2);
    statements.extend(until.map(sql::fence));
    statements.push(sql::local_statement_timeout(limit));
    Ok(statements)
}

/// Says which change failed: the server answers each statement in turn.
fn explain(batch: &Batch, failure: Failure, before: usize) -> PostgresError {
    let Failure { done, cause } = failure;
    let what = what(batch, done.saturating_sub(before));
    match cause.into_error(&what) {
        error if error.sqlstate() == Some(sql::FENCED) => PostgresError::Fenced { what },
        error => error,
    }
}

fn what(batch: &Batch, statements: usize) -> String {
    const MOST: usize = 600;
    let mut passed = 0;
    let failed = batch.changes.iter().find(|change| {
        passed += change.statements().len();
        passed > statements
    });
    let Some(change) = failed else {
        // All were done, and the commit was not.
        return format!("step {:?}", batch.step);
    };
    let mut sql = change.sql_withheld();
    if let Some((cut, _)) = sql.char_indices().nth(MOST) {
        sql.truncate(cut);
        sql.push('…');
    }
    format!("{} [{sql}]", change.text())
}
