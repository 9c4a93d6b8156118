//! A claim's database comes to a cluster under another name first, and leaves one by getting another name: what stands there under the
//! claim's own name is in use.

use crate::apply::{Fence, run_maintenance};
use crate::change::{Change, DatabaseChange, Object, ObjectChange};
use crate::comment::database_comment;
use crate::error::PostgresError;
use crate::exchange::{Beside, end_sessions};
use crate::observe::observe;
use crate::plan::{Batch, Place, Plan, plan_drop};
use crate::server::Server;
use crate::session::Session;

/// It gets the claim's own name.
const TAKE_PLACE: &str = "take-place";
/// Nobody gets in any more.
const CLOSE: &str = "close";
/// Their sessions are ended.
const END_SESSIONS: &str = "end-sessions";
/// It loses the claim's own name.
const PUT_ASIDE: &str = "put-aside";

/// The copy becomes the claim's own database, where that has none.
///
/// # Errors
/// 42P04 where there is a database of the claim's name; what the server says.
pub async fn take_place(
    server: &Server,
    session: &mut Session,
    comes: &Beside,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let own = comes.key.database();
    let changes = vec![rename(&comes.database, &own), comment(&own, database_comment(&comes.key))];
    let batches = vec![
        batch(END_SESSIONS, vec![Change::Database(DatabaseChange::EndSessions { database: comes.database.clone() })]),
        batch(TAKE_PLACE, changes),
    ];
    run(server, session, own, batches, fence).await
}

/// The claim's own database is closed, and loses its name; where it is not there, nothing happens.
///
/// # Errors
/// 55006 where somebody is in it whose session the provisioner may not end.
pub async fn put_aside(
    server: &Server,
    session: &mut Session,
    goes: &Beside,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let own = goes.key.database();
    let observed = observe(server, session, &goes.key, &own, &[]).await?;
    let ours = observed.database.as_ref().and_then(|facts| facts.comment.as_deref());
    if ours != Some(&database_comment(&goes.key)) {
        return Ok(());
    }
    let close = Change::Database(DatabaseChange::Close { database: own.clone() });
    let batches = vec![
        batch(CLOSE, vec![close]),
        batch(END_SESSIONS, end_sessions(&goes.key, &[&own], &observed)),
        batch(PUT_ASIDE, vec![rename(&own, &goes.database), comment(&goes.database, goes.comment())]),
    ];
    run(server, session, own, batches, fence).await
}

/// Drops a claim's roles where they are the only thing of it on the server.
///
/// # Errors
/// What the server says.
pub async fn drop_roles_alone(
    server: &Server,
    session: &mut Session,
    goes: &Beside,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let observed = observe(server, session, &goes.key, &goes.key.database(), &[]).await?;
    if observed.database.is_some() {
        return Ok(());
    }
    // Roles that something depends on stay: they are in use, or somebody has to look.
    let Ok(plan) = plan_drop(&goes.key, &observed) else { return Ok(()) };
    run_maintenance(server, session, &plan, fence, &|_| {}).await
}

fn rename(from: &str, to: &str) -> Change {
    Change::Database(DatabaseChange::Rename { from: from.to_owned(), to: to.to_owned() })
}

fn comment(name: &str, text: String) -> Change {
    Change::Object(ObjectChange::Comment { object: Object::Database(name.to_owned()), text })
}

fn batch(step: &'static str, changes: Vec<Change>) -> Batch {
    Batch { step, place: Place::Maintenance, changes }
}

async fn run(
    server: &Server,
    session: &mut Session,
    database: String,
    batches: Vec<Batch>,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let plan = Plan { database, batches, beyond: Vec::new(), partial: false };
    run_maintenance(server, session, &plan, fence, &|_| {}).await
}
