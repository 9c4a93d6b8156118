//! What stands in the way of a database that is to follow another: on the servers, and in the database.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::maybe;
use crate::error::PostgresError;
use crate::session::Session;

/// Since then no superuser is needed.
const OLDEST: i32 = 160_000;

/// The stream of changes, and two tables whose rows are copied at first (`max_sync_workers_per_subscription`).
const STREAMS: i64 = 3;

const PUBLISHER: &str = "SELECT json_build_object('version', current_setting('server_version_num')::int, \
     'logical', current_setting('wal_level') = 'logical', \
     'allowed', (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), \
     'free', least(current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots), \
                   current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)), \
     'any', strpos(current_setting('synchronous_standby_names'), '*') > 0)::text";

/// Origins were counted by `max_replication_slots` until 17 (18, "Release Notes").
const SUBSCRIBER: &str = "SELECT json_build_object('version', current_setting('server_version_num')::int, 'logical', true, \
     'allowed', coalesce((SELECT pg_has_role(current_user, oid, 'USAGE') FROM pg_roles \
                          WHERE rolname = 'pg_create_subscription'), false), \
     'free', least(current_setting('max_logical_replication_workers')::int \
                     - (SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL), \
                   coalesce(current_setting('max_active_replication_origins', true), \
                            current_setting('max_replication_slots'))::int \
                     - (SELECT count(*) FROM pg_replication_origin)), \
     'any', false)::text";

#[derive(Deserialize)]
struct Side {
    version: i32,
    logical: bool,
    allowed: bool,
    free: i64,
    any: bool,
}

/// Why nothing can follow databases of this server; none: it can.
///
/// # Errors
/// What the server says.
pub async fn cannot_publish(session: &mut Session) -> Result<Option<String>, PostgresError> {
    let side: Side = one(session, "ask whether databases can be followed", PUBLISHER).await?;
    Ok(match side {
        Side { version, .. } if version < OLDEST => Some(too_old("it is on", version)),
        Side { logical: false, .. } => Some("its servers have not wal_level = logical".to_owned()),
        Side { allowed: false, .. } => Some(
            "the provisioner there may not replicate: run the script of `pgtenant cluster bootstrap --logical-replication`"
                .to_owned(),
        ),
        // The other server would be waited for, and be taken for a standby that has the commit.
        Side { any: true, .. } => Some("synchronous_standby_names there has `*`, which names it too".to_owned()),
        Side { free, .. } if free < STREAMS => Some(format!(
            "{free} replication slots or senders are free there, of which {STREAMS} are needed: raise max_replication_slots and \
             max_wal_senders"
        )),
        _ => None,
    })
}

/// Why databases of this server can not follow others; none: they can.
///
/// # Errors
/// What the server says.
pub async fn cannot_subscribe(session: &mut Session) -> Result<Option<String>, PostgresError> {
    let side: Side = one(session, "ask whether a database can follow another", SUBSCRIBER).await?;
    Ok(match side {
        Side { version, .. } if version < OLDEST => Some(too_old("it goes to", version)),
        Side { allowed: false, .. } => Some(
            "the provisioner of the other cluster may not subscribe: run the script of \
             `pgtenant cluster bootstrap --logical-replication` there"
                .to_owned(),
        ),
        Side { free, .. } if free < STREAMS => Some(format!(
            "{free} workers or origins of replication are free on the other cluster, of which {STREAMS} are needed: raise \
             max_logical_replication_workers, and max_active_replication_origins (until 17 max_replication_slots)"
        )),
        _ => None,
    })
}

fn too_old(what: &str, version: i32) -> String {
    format!("{what} PostgreSQL {}, and from 16 on that needs no superuser", version / 10_000)
}

/// Tables as `pg_dump` has them whose rows do not come by replication, and what else does not. A table without an identity would
/// refuse updates as soon as it is published (18, "Publication").
const OBSTACLE: &str = "
WITH tables AS (
  SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relpersistence, c.relreplident, x.extname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
       AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  LEFT JOIN pg_extension x ON x.oid = d.refobjid
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (x.oid IS NULL OR c.oid = ANY (x.extconfig)))
SELECT reason FROM (
  SELECT 1 AS rank, 'table ' || name || ' has neither a primary key nor another replica identity' AS reason FROM tables
   WHERE relreplident = 'n' OR (relreplident <> 'f' AND pg_get_replica_identity_index(oid) IS NULL)
  UNION ALL SELECT 2, 'table ' || name || ' is unlogged' FROM tables WHERE relpersistence = 'u'
  UNION ALL SELECT 3, 'table ' || name || ' is of extension ' || extname FROM tables WHERE extname IS NOT NULL
  UNION ALL SELECT 4, 'it has large objects' WHERE EXISTS (SELECT FROM pg_largeobject_metadata)
  UNION ALL SELECT 5, 'it has the materialised view ' || oid::regclass FROM pg_class WHERE relkind = 'm'
  UNION ALL SELECT 6, 'trigger ' || quote_ident(tgname) || ' of ' || tgrelid::regclass || ' fires for replicated rows too'
   FROM pg_trigger WHERE tgenabled IN ('R', 'A') AND NOT tgisinternal
) AS obstacles ORDER BY rank, reason LIMIT 1";

/// Why this database can not be followed; none: it can.
///
/// # Errors
/// What the server says.
pub async fn cannot_replicate(session: &mut Session) -> Result<Option<String>, PostgresError> {
    let rows = session.texts("look for what is not replicated", OBSTACLE, &[]).await?;
    Ok(rows.into_iter().flatten().next())
}

async fn one<T: DeserializeOwned>(session: &mut Session, what: &str, query: &'static str) -> Result<T, PostgresError> {
    let none = || PostgresError::Answer { what: what.to_owned(), reason: "it is empty".to_owned() };
    maybe(session, what, query, &[]).await?.ok_or_else(none)
}
