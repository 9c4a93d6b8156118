//! A database that follows another one on another cluster, by PostgreSQL's own logical replication: a publication and a slot where it
//! comes from, a subscription where it goes. All three have one name, so that what is left of it is found.
//!
//! From PostgreSQL 16 on nobody needs to be a superuser for it: a login that may replicate is made by a role that may itself, and
//! subscriptions by members of `pg_create_subscription`. What is applied runs as the tables' owner (16, "CREATE SUBSCRIPTION").

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::change::{Change, RoleChange};
use crate::error::PostgresError;
use crate::job::{Job, end_job};
use crate::server::{Server, ServerOptions};
use crate::session::{Parameter, Session};
use crate::sessions::server_version;
use crate::sql::{ident, literal};

mod obstacle;

pub use obstacle::{cannot_publish, cannot_replicate, cannot_subscribe};

/// A slot is in use for a moment after its session was ended.
const FREE_WITHIN: Duration = Duration::from_secs(10);

const PREFIX: &str = "pgtenant_move_";

/// What the publication, the slot and the subscription of move `id` are called.
fn name_of(id: Uuid) -> String {
    format!("{PREFIX}{}", id.simple())
}

/// Whether a publication, or what an archive has of one of its tables, is there for a move.
pub(crate) fn is_of_move(name: &str) -> bool {
    let id = name.split(' ').next().and_then(|publication| publication.strip_prefix(PREFIX));
    id.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const TABLES: &str = "SELECT format('TABLE ONLY %I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
     ORDER BY c.oid";

const MAKE_SLOT: &str = "SELECT slot_name::text FROM pg_create_logical_replication_slot($1::text, 'pgoutput')";

/// Publishes all tables of `database` under a login that may replicate, and keeps the log from now on.
///
/// # Errors
/// What the server says: 57014 where a transaction has been open on the server for so long that no slot can be made.
pub async fn publish(server: &Server, database: &str, follower: &Job, id: Uuid) -> Result<(), PostgresError> {
    let name = name_of(id);
    let mut session = server.log_in(database, &follower.login, &follower.password).await?;
    let tables: Vec<String> = session.texts("look for tables", TABLES, &[]).await?.into_iter().flatten().collect();
    let whole = if tables.is_empty() { String::new() } else { format!(" FOR {}", tables.join(", ")) };
    let deadline = session.timeouts().statement;
    let published = session.batch(&format!("CREATE PUBLICATION {}{whole}", ident(&name)), deadline).await;
    published.map_err(|failure| failure.cause.into_error("publish the tables"))?;
    drop(session);
    server.inside(database).await?.texts("make a replication slot", MAKE_SLOT, &[(&name, Type::TEXT)]).await?;
    Ok(())
}

/// A table of the session's database that is not published for move `id`, as one that was made since; none: all are.
///
/// # Errors
/// What the server says.
pub async fn unpublished(inside: &mut Session, id: Uuid) -> Result<Option<String>, PostgresError> {
    const UNPUBLISHED: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
         AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
                         WHERE r.prrelid = c.oid AND p.pubname = $1) ORDER BY 1 LIMIT 1";
    let rows = inside.texts("look for what is not published", UNPUBLISHED, &[(&name_of(id), Type::TEXT)]).await?;
    Ok(rows.into_iter().flatten().next())
}

/// How another server reaches the one that `follower` logs in to. A server proves with its channel binding that it has the login's
/// verifier, so that nobody in between can pass for it; no file with its authority is needed on the other server.
fn connection(server: &ServerOptions, database: &str, follower: &Job) -> String {
    let (host, port) = (&server.host, server.port.to_string());
    let keys = [
        ("host", host.as_str()),
        ("port", &port),
        ("dbname", database),
        ("user", &follower.login),
        ("password", follower.password.expose_secret()),
        ("sslmode", "require"),
        ("channel_binding", "require"),
        ("connect_timeout", "5"),
        ("keepalives_idle", "10"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        // A policy would run as a login that may replicate: where rows are hidden from a table's owner too, nothing is copied
        // (18, "Logical Replication: Security").
        ("options", "-crow_security=off"),
    ];
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    keys.map(|(key, value)| format!("{key}='{}'", quoted(value))).join(" ")
}

/// Lets `database` of `target`, which has the tables and none of their rows, follow the database of move `id` on `source`: what is
/// there is copied, and what is written from then on, as soon as it is [let](go_on_following). `owner`, a login of `target`, owns the subscription; its changes are made as the
/// tables' owners.
///
/// # Errors
/// What `target` says, as when its server does not reach `source`.
pub async fn follow(
    target: &Server,
    database: &str,
    owner: &Job,
    source: (&ServerOptions, &str, &Job),
    id: Uuid,
) -> Result<(), PostgresError> {
    let (options, followed, follower) = source;
    let name = ident(name_of(id));
    let mut session = target.inside(database).await?;
    let with_options = server_version(&mut session).await?.has_membership_options();
    let role = || owner.login.clone();
    // First: the tables are looked up as the provisioner, which may do nothing in tenants' schemas.
    let mut statements = Change::Role(RoleChange::Borrow { role: role(), with_options }).statements();
    statements.extend([
        format!(
            "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {name} WITH (create_slot = false, slot_name = {name}, \
             enabled = false, disable_on_error = true)",
            literal(connection(options, followed, follower))
        ),
        format!("ALTER SUBSCRIPTION {name} OWNER TO {}", ident(&owner.login)),
    ]);
    statements.extend(Change::Role(RoleChange::GiveBack { role: role() }).statements());
    run(&mut session, &statements, "subscribe to the database").await
}

const FOLLOWING: &str =
    "SELECT d.datname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE s.subname = $1";

/// The databases that follow another one for move `id`, which are one at most.
///
/// # Errors
/// What the server says.
pub async fn databases_following(session: &mut Session, id: Uuid) -> Result<Vec<String>, PostgresError> {
    let rows = session.texts("look for a subscription", FOLLOWING, &[(&name_of(id), Type::TEXT)]).await?;
    Ok(rows.into_iter().flatten().collect())
}

const FOLLOWED: &str = "SELECT json_build_object('enabled', s.subenabled, \
     'tables', (SELECT count(*) FROM pg_subscription_rel r WHERE r.srsubid = s.oid), \
     'ready', (SELECT count(*) FROM pg_subscription_rel r WHERE r.srsubid = s.oid AND r.srsubstate = 'r'))::text \
     FROM pg_subscription s WHERE s.subname = $1";

/// How far a database follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Followed {
    /// False after an error, which the server has logged.
    pub enabled: bool,
    /// Tables that it follows.
    pub tables: usize,
    /// Those whose rows are all there, so that only changes come.
    pub ready: usize,
}

/// How far the database of a session follows, for move `id`; none: it does not.
///
/// # Errors
/// What the server says.
pub async fn followed(inside: &mut Session, id: Uuid) -> Result<Option<Followed>, PostgresError> {
    maybe(inside, "look how far it follows", FOLLOWED, &[(&name_of(id), Type::TEXT)]).await
}

/// How PostgreSQL names the slots of first copies for the subscription of move `id`, as a regular expression; none: it is not there.
///
/// # Errors
/// What the server says.
pub async fn slots_of_first_copies(session: &mut Session, id: Uuid) -> Result<Option<String>, PostgresError> {
    const NAMES: &str = "SELECT format('^pg_%s_sync_[0-9]+_%s$', s.oid, c.system_identifier) \
         FROM pg_subscription s, pg_control_system() c WHERE s.subname = $1";
    let rows = session.texts("ask how slots are called", NAMES, &[(&name_of(id), Type::TEXT)]).await?;
    Ok(rows.into_iter().flatten().next())
}

/// What a server keeps for whoever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Whether the other server has all until the position that was asked for, on its disk.
    pub reached: bool,
    /// Bytes of the log that are kept.
    pub kept: u64,
    /// The server does not keep all that is needed (`max_slot_wal_keep_size`).
    pub lost: bool,
}

const SLOT: &str = "SELECT json_build_object('reached', coalesce(confirmed_flush_lsn >= $2::text::pg_lsn, false), \
     'kept', greatest(0, coalesce(pg_current_wal_lsn() - restart_lsn, 0))::int8, \
     'lost', wal_status IN ('unreserved', 'lost'))::text FROM pg_replication_slots WHERE slot_name = $1";

/// The slot of move `id`, held against a [position](closing_position) of the log, where one is meant; none: it is gone, as after a failover.
///
/// # Errors
/// What the server says.
pub async fn slot(session: &mut Session, id: Uuid, position: Option<&str>) -> Result<Option<Slot>, PostgresError> {
    let parameters: [Parameter<'_>; 2] = [(&name_of(id), Type::TEXT), (&position, Type::TEXT)];
    maybe(session, "look at the replication slot", SLOT, &parameters).await
}

/// A position of the log that is after all that was committed, and on the disk.
///
/// # Errors
/// What the server says.
pub async fn closing_position(session: &mut Session) -> Result<String, PostgresError> {
    const MARK: &str = "SELECT pg_logical_emit_message(true, 'pgtenant', 'closed')::text";
    let what = "write a mark into the log";
    let rows = session.texts(what, MARK, &[]).await?;
    let none = || PostgresError::Answer { what: what.to_owned(), reason: "it has no position".to_owned() };
    rows.into_iter().flatten().next().ok_or_else(none)
}

/// Lets the database that follows for move `id` take no more changes for now, so that it can be renamed.
///
/// # Errors
/// What the server says.
pub async fn stop_following(server: &Server, id: Uuid) -> Result<(), PostgresError> {
    alter(server, id, &["DISABLE"], None).await
}

/// Lets it take changes again.
///
/// # Errors
/// What the server says.
pub async fn go_on_following(server: &Server, id: Uuid) -> Result<(), PostgresError> {
    alter(server, id, &["ENABLE"], None).await
}

/// Nothing of `server` follows for move `id` any more. The other server is not asked: it may be gone, and [`unpublish`] is for that.
///
/// # Errors
/// What the server says.
pub async fn unfollow(server: &Server, id: Uuid) -> Result<(), PostgresError> {
    let drop = format!("DROP SUBSCRIPTION {}", ident(name_of(id)));
    alter(server, id, &["DISABLE", "SET (slot_name = NONE)"], Some(drop)).await?;
    let mut session = server.maintenance().await?;
    let version = server_version(&mut session).await?;
    end_job(server, &mut session, version, &Job::follower(id)).await
}

/// Changes the subscription of move `id`, where there is one, as its owner.
async fn alter(server: &Server, id: Uuid, changes: &[&str], last: Option<String>) -> Result<(), PostgresError> {
    const OWNER: &str =
        "SELECT r.rolname::text FROM pg_subscription s JOIN pg_roles r ON r.oid = s.subowner WHERE s.subname = $1";
    let name = name_of(id);
    for database in databases_following(&mut server.maintenance().await?, id).await? {
        let mut session = server.inside(&database).await?;
        let with_options = server_version(&mut session).await?.has_membership_options();
        let owner = session.texts("ask who owns the subscription", OWNER, &[(&name, Type::TEXT)]).await?;
        let Some(role) = owner.into_iter().flatten().next() else { continue };
        let mut statements = Change::Role(RoleChange::Borrow { role: role.clone(), with_options }).statements();
        statements.extend(changes.iter().map(|change| format!("ALTER SUBSCRIPTION {} {change}", ident(&name))));
        statements.extend(last.clone());
        statements.extend(Change::Role(RoleChange::GiveBack { role }).statements());
        run(&mut session, &statements, "change the subscription").await?;
    }
    Ok(())
}

const SLOTS: &str =
    "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = $1 OR ($2 <> '' AND slot_name ~ $2)";
const DROP_SLOT: &str =
    "SELECT pg_drop_replication_slot(slot_name)::text FROM pg_replication_slots WHERE slot_name = $1";

/// Nothing of `server` is kept or published for move `id` any more, whoever follows it; nor [for first copies](slots_of_first_copies).
///
/// # Errors
/// What the server says; 55006 where a slot does not come free.
pub async fn unpublish(server: &Server, id: Uuid, first_copies: Option<&str>) -> Result<(), PostgresError> {
    let mut session = server.maintenance().await?;
    let version = server_version(&mut session).await?;
    // Its sessions, and the publication.
    end_job(server, &mut session, version, &Job::follower(id)).await?;
    let first_copies = first_copies.unwrap_or_default();
    let parameters: [Parameter<'_>; 2] = [(&name_of(id), Type::TEXT), (&first_copies, Type::TEXT)];
    let slots = session.texts("look for replication slots", SLOTS, &parameters).await?;
    for slot in slots.into_iter().flatten() {
        drop_slot(&mut session, &slot).await?;
    }
    Ok(())
}

async fn drop_slot(session: &mut Session, slot: &str) -> Result<(), PostgresError> {
    let begun = Instant::now();
    loop {
        match session.texts("drop a replication slot", DROP_SLOT, &[(&slot, Type::TEXT)]).await {
            Err(error) if error.sqlstate() == Some("55006") && begun.elapsed() < FREE_WITHIN => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            dropped => return dropped.map(drop),
        }
    }
}

/// Moves that this server has something of in the provisioner's databases: a slot keeps the log, and a subscription its database.
///
/// # Errors
/// What the server says.
pub async fn moves_here(session: &mut Session) -> Result<Vec<Uuid>, PostgresError> {
    const HERE: &str = "SELECT DISTINCT to_json(right(name, 32))::text FROM ( \
         SELECT slot_name::text AS name, database FROM pg_replication_slots \
         UNION ALL SELECT s.subname::text, d.datname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid) AS both_kinds \
         JOIN pg_database d ON d.datname = both_kinds.database JOIN pg_roles r ON r.oid = d.datdba \
         WHERE name ~ '^pgtenant_move_[0-9a-f]{32}$' AND r.rolname = current_user";
    let what = "look for what follows";
    let rows = session.texts(what, HERE, &[]).await?;
    rows.into_iter().flatten().map(|text| read(what, &text)).collect()
}

async fn maybe<T: DeserializeOwned>(
    session: &mut Session,
    what: &str,
    query: &'static str,
    parameters: &[Parameter<'_>],
) -> Result<Option<T>, PostgresError> {
    let rows = session.texts(what, query, parameters).await?;
    rows.into_iter().flatten().next().map(|text| read(what, &text)).transpose()
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, PostgresError> {
    let unread = |error: serde_json::Error| PostgresError::Answer { what: what.to_owned(), reason: error.to_string() };
    serde_json::from_str(text).map_err(unread)
}

async fn run(session: &mut Session, statements: &[String], what: &str) -> Result<(), PostgresError> {
    let deadline = session.timeouts().statement;
    let done = session.batch(&statements.join(";\n"), deadline).await;
    done.map_err(|failure| failure.cause.into_error(what))
}
