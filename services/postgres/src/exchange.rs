//! One database takes the place of another: two renames in one transaction, with connections held off.

use std::fmt;

use pgtenant_model::{ClaimKey, Tier};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::apply::{Fence, OnStep, run_maintenance};
use crate::change::{Change, DatabaseChange, Object, ObjectChange, RoleChange};
use crate::comment::{PREFIX, database_comment};
use crate::error::PostgresError;
use crate::observe::observe;
use crate::observed::Observed;
use crate::plan::{Batch, Place, Plan, step};
use crate::server::Server;
use crate::session::{Cause, Session};
use crate::sql::{self, DEPENDED_ON};
use crate::transfer::OCCUPANT;
use crate::verifier::redact;

/// A database that stands beside a claim's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its name.
    pub database: String,
    /// What it is.
    pub kind: BesideKind,
    /// The restore that has made it or put it aside.
    pub restore: Uuid,
    /// The claim.
    pub key: ClaimKey,
}

/// What a database beside a claim's own is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BesideKind {
    /// Loaded from a snapshot, or being loaded.
    Copy,
    /// The one that was there before a restore.
    Before,
    /// The one that a restore had made, before it was undone.
    After,
}

impl BesideKind {
    const ALL: [Self; 3] = [Self::Copy, Self::Before, Self::After];

    /// What its name ends with, before the end of the restore's id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "restore",
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

/// Nobody gets into the databases any more.
const HOLD_OFF: &str = "hold-off";
/// Their sessions are ended.
const END_SESSIONS: &str = "end-sessions";
/// One takes the place of the other.
const EXCHANGE: &str = "exchange";

/// Longest name that PostgreSQL keeps.
const MOST: usize = 63;

impl Beside {
    /// `{database}-{kind}-{8 hexadecimal digits}`: the last of the restore's id, which are random. So many bytes of the database's
    /// name stand before it as fit: the comment has the whole of it, and the digits keep it unique.
    #[must_use]
    pub fn new(kind: BesideKind, key: &ClaimKey, restore: Uuid) -> Self {
        let id = restore.simple().to_string();
        let end = format!("-{}-{}", kind.as_str(), &id[id.len() - 8..]);
        let mut database = key.database();
        database.truncate(MOST - end.len());
        database.push_str(&end);
        Self { database, kind, restore, key: key.clone() }
    }

    /// Says whose it is. It names no claim as the comment of a claim's own database does.
    #[must_use]
    pub fn comment(&self) -> String {
        self.to_string()
    }

    fn parse(database: String, comment: &str) -> Option<Self> {
        let (kind, rest) = comment.strip_prefix(PREFIX)?.split_once(" of ")?;
        let kind = BesideKind::ALL.into_iter().find(|one| one.as_str() == kind)?;
        let (key, restore) = rest.split_once(" by restore ")?;
        let (namespace, name) = key.split_once('/')?;
        Some(Self { database, kind, restore: restore.parse().ok()?, key: ClaimKey::new(namespace, name).ok()? })
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{} of {} by restore {}", self.kind.as_str(), self.key, self.restore)
    }
}

/// Every database of the provisioner's that stands beside a claim's own.
///
/// # Errors
/// What the server says.
pub async fn beside(session: &mut Session) -> Result<Vec<Beside>, PostgresError> {
    const BESIDE: &str = "SELECT json_build_array(d.datname, shobj_description(d.oid, 'pg_database'))::text \
         FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
         WHERE r.rolname = current_user AND shobj_description(d.oid, 'pg_database') ~ $1 ORDER BY d.datname";
    let pattern = format!("^{PREFIX}(restore|before|after) of ");
    let rows = session.texts("look for databases beside claims", BESIDE, &[(&pattern, Type::TEXT)]).await?;
    let parse = |row: String| {
        let (database, comment): (String, String) = serde_json::from_str(&row).ok()?;
        Beside::parse(database, &comment)
    };
    Ok(rows.into_iter().flatten().filter_map(parse).collect())
}

/// Which database takes whose place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The one that becomes the claim's own.
    pub comes: String,
    /// What the claim's own becomes; its key is the claim's.
    pub goes: Beside,
}

/// Holds connections off, ends the claim's sessions and renames both databases. The one that goes stays closed.
///
/// # Errors
/// 55006 where somebody is in it whose session the provisioner may not end: the claim's own database is open again, as far as
/// the server answers.
pub async fn exchange(
    server: &Server,
    session: &mut Session,
    exchange: &Exchange,
    fence: &dyn Fence,
    on_step: OnStep<'_>,
) -> Result<(), PostgresError> {
    let key = &exchange.goes.key;
    let observed = observe(server, session, key, &key.database(), &[]).await?;
    let done = run_maintenance(server, session, &plan(exchange, &observed), fence, on_step).await;
    if done.is_err() && reopen(server, session, key).await.is_err() {
        tracing::warn!(database = key.database(), "a database stays closed until the claim is looked at");
    }
    done
}

/// Lets connections to a claim's own database again, where an exchange held them off and did not come to its end.
///
/// # Errors
/// What the server says.
pub async fn reopen(server: &Server, session: &mut Session, key: &ClaimKey) -> Result<(), PostgresError> {
    let database = key.database();
    let observed = observe(server, session, key, &database, &[]).await?;
    let own = database_comment(key);
    let closed =
        observed.database.is_some_and(|facts| !facts.allow_connections && facts.comment.as_deref() == Some(&own));
    if !closed {
        return Ok(());
    }
    let what = format!("let connections to database {database:?} again");
    let open = Change::Database(DatabaseChange::AllowConnections { database }).statements().join(";");
    let opened = session.batch(&open, session.timeouts().statement).await;
    opened.map_err(|failure| failure.cause.into_error(&what))
}

/// Drops a database that stands beside a claim's own; who is in it is cut off. The claim's own is never one of those: its comment
/// says otherwise.
///
/// # Errors
/// What the server says.
pub async fn drop_beside(
    server: &Server,
    session: &mut Session,
    one: &Beside,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let observed = observe(server, session, &one.key, &one.database, &[]).await?;
    let ours = observed.database.as_ref().and_then(|facts| facts.comment.as_deref()) == Some(&one.comment());
    if !ours {
        return Ok(());
    }
    let database = one.database.clone();
    let batch = |step, changes| Batch { step, place: Place::Maintenance, changes };
    let batches = vec![
        batch(END_SESSIONS, end_sessions(&one.key, &[&database], &observed)),
        batch(step::DROP_DATABASE, vec![Change::Database(DatabaseChange::Drop { database: database.clone() })]),
    ];
    let plan = Plan { database, batches, beyond: Vec::new(), partial: false };
    run_maintenance(server, session, &plan, fence, &|_| {}).await
}

/// Ends the sessions of a claim's roles in its database, once none of them may connect any more.
///
/// # Errors
/// What the server says.
pub async fn end_claims_sessions(
    server: &Server,
    session: &mut Session,
    key: &ClaimKey,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let database = key.database();
    let observed = observe(server, session, key, &database, &[]).await?;
    let changes = end_sessions(key, &[&database], &observed);
    let batches = vec![Batch { step: END_SESSIONS, place: Place::Maintenance, changes }];
    let plan = Plan { database, batches, beyond: Vec::new(), partial: false };
    run_maintenance(server, session, &plan, fence, &|_| {}).await
}

/// Casts have no owner, so that dropping what somebody owns leaves them, and they keep the types that they are of; who owns one of these
/// may drop them. Those that a type of ranges or an extension has brought go with it.
const DROP_CASTS: &str = "SELECT format('DROP CAST (%s AS %s)', format_type(s.oid, NULL), format_type(t.oid, NULL)) \
     FROM pg_cast c JOIN pg_type s ON s.oid = c.castsource JOIN pg_type t ON t.oid = c.casttarget \
     WHERE (pg_has_role(s.typowner, 'USAGE') OR pg_has_role(t.typowner, 'USAGE')) AND NOT EXISTS ( \
       SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))";

/// With the comment that it has from the beginning: a dump says nothing of that one.
const MAKE_PUBLIC: &str = "DO $$ BEGIN IF to_regnamespace('public') IS NULL THEN \
     CREATE SCHEMA public; COMMENT ON SCHEMA public IS 'standard public schema'; END IF; END $$";

/// Whether something is only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehearsal {
    /// All is done, and rolled back.
    Yes,
    /// It stays.
    No,
}

/// Drops all that the claim's roles own in its database, in one transaction, on a session of a login that is a member of all three.
/// Nothing is dropped where that does not empty it, and where `fence` has ended by the time of the commit. Schema `public` is theirs, and
/// goes as well: [`make_public`].
///
/// # Errors
/// What the server says; what is in the way, where something depends on what is to be dropped.
pub async fn empty(
    login: &mut Session,
    key: &ClaimKey,
    rehearsal: Rehearsal,
    fence: &dyn Fence,
) -> Result<(), PostgresError> {
    let database = key.database();
    let (deadline, what) = (login.timeouts().database, format!("empty database {database:?}"));
    let begun = login.batch("SET ROLE NONE; BEGIN", deadline).await;
    begun.map_err(|failure| failure.cause.into_error(&what))?;
    let casts = login.texts(&what, DROP_CASTS, &[]).await?;
    let owned = sql::drop_owned(&Tier::ALL.map(|tier| key.role(tier)));
    let drop: Vec<String> = casts.into_iter().flatten().chain([owned]).collect();
    let dropped = login.batch(&drop.join("; "), deadline).await;
    dropped.map_err(|failure| needed(&what, failure.cause))?;
    if let Some(left) = occupant(login).await? {
        let reason = format!(
            "{left} is somebody else's and would stay: its owner, or a superuser, drops it or moves it to another database"
        );
        return Err(PostgresError::Occupied { what, reason });
    }
    if fence.remaining().is_none() {
        return Err(PostgresError::Fenced { what });
    }
    let end = match rehearsal {
        Rehearsal::Yes => "ROLLBACK",
        Rehearsal::No => "COMMIT",
    };
    login.batch(end, deadline).await.map_err(|failure| failure.cause.into_error(&what))
}

/// Where what somebody else owns, or a cast of others' types, needs something that is to be dropped: that, and what to do.
fn needed(what: &str, cause: Cause) -> PostgresError {
    match &cause {
        Cause::Error(error) if cause.sqlstate() == Some(DEPENDED_ON) => {
            // The server's hint, CASCADE, is for whoever types the statement.
            let said = error.as_db_error().map(|answer| [Some(answer.message()), answer.detail()]);
            let said: Vec<_> = said.into_iter().flatten().flatten().map(redact).collect();
            let reason = format!("{}: its owner, or a superuser, drops what depends on it first", said.join("; "));
            PostgresError::Occupied { what: what.to_owned(), reason }
        }
        _ => cause.into_error(what),
    }
}

/// Makes schema `public` as a new database has it, where [`empty`] has dropped it with its owner's other things.
///
/// # Errors
/// What the server says.
pub async fn make_public(server: &Server, key: &ClaimKey) -> Result<(), PostgresError> {
    let database = key.database();
    let mut session = server.inside(&database).await?;
    let made = session.batch(MAKE_PUBLIC, session.timeouts().database).await;
    made.map_err(|failure| failure.cause.into_error(&format!("make schema public of database {database:?}")))
}

/// Something that is in the database of a session, and that no extension has brought.
///
/// # Errors
/// What the server says.
pub async fn occupant(session: &mut Session) -> Result<Option<String>, PostgresError> {
    Ok(session.texts("see whether the database is empty", OCCUPANT, &[]).await?.into_iter().flatten().next())
}

fn plan(Exchange { comes, goes }: &Exchange, observed: &Observed) -> Plan {
    let own = goes.key.database();
    let comment = |name: &str, text| {
        let object = Object::Database(name.to_owned());
        Change::Object(ObjectChange::Comment { object, text })
    };
    let rename =
        |from: &str, to: &str| Change::Database(DatabaseChange::Rename { from: from.to_owned(), to: to.to_owned() });
    let close = [&own, comes].map(|name| Change::Database(DatabaseChange::Close { database: name.clone() }));
    let exchange = vec![
        rename(&own, &goes.database),
        rename(comes, &own),
        comment(&goes.database, goes.comment()),
        comment(&own, database_comment(&goes.key)),
        Change::Database(DatabaseChange::AllowConnections { database: own.clone() }),
    ];
    let batch = |step, changes| Batch { step, place: Place::Maintenance, changes };
    Plan {
        database: own.clone(),
        batches: vec![
            batch(HOLD_OFF, close.to_vec()),
            batch(END_SESSIONS, end_sessions(&goes.key, &[&own, comes], observed)),
            batch(EXCHANGE, exchange),
        ],
        beyond: Vec::new(),
        partial: false,
    }
}

/// Nobody ends another's sessions; a member of their role may.
pub(crate) fn end_sessions(key: &ClaimKey, databases: &[&String], observed: &Observed) -> Vec<Change> {
    let with_options = observed.server.version.has_membership_options();
    let roles = Tier::ALL.into_iter().flat_map(|tier| [key.role(tier), key.second_login(tier)]);
    let lent: Vec<_> = roles.filter(|role| observed.roles.get(role).is_some_and(|facts| !facts.usable)).collect();
    let borrow = lent.iter().map(|role| RoleChange::Borrow { role: role.clone(), with_options });
    let give_back = lent.iter().map(|role| RoleChange::GiveBack { role: role.clone() });
    let end = databases.iter().map(|name| DatabaseChange::EndSessions { database: (*name).clone() });
    borrow.map(Change::Role).chain(end.map(Change::Database)).chain(give_back.map(Change::Role)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comment::parse_database_comment;

    #[test]
    fn a_database_beside_says_whose_it_is() {
        let restore = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_1f2e_3d4c);
        for kind in BesideKind::ALL {
            let key = ClaimKey::new("shop", "orders").unwrap();
            let one = Beside::new(kind, &key, restore);
            assert_eq!(one.database, format!("shop-orders-{}-1f2e3d4c", kind.as_str()));
            assert_eq!(Beside::parse(one.database.clone(), &one.comment()), Some(one.clone()));
            assert_eq!(parse_database_comment(&one.comment()), None, "it is not the claim's own");
        }
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let key = ClaimKey::new("n".repeat(30), "d".repeat(24)).unwrap();
        let one = Beside::new(BesideKind::Copy, &key, Uuid::max());
        assert_eq!(one.database.len(), 63);
        assert!(one.database.ends_with("-restore-ffffffff"), "{}", one.database);
    }
}
