//! Every statement of a transfer whose text is put together at run time. As in the crate's own: each name passes through
//! [`ident`], each value through [`literal`].

use crate::sql::{ident, literal};

use super::acl::RoleMap;
use super::part::{Blocks, LargeObject, LargeObjectGrant, Relation, Rows};

/// Begins what a session of an export does: it sees what the session that exported the snapshot sees.
pub(super) fn join_snapshot(snapshot: &str) -> String {
    format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot))
}

/// A database without an encoding has bytes that no other can tell how to read: they stay as they are.
pub(super) fn encoding_of(server_encoding: &str) -> &'static str {
    if server_encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" }
}

/// Texts are sent in the encoding of [`encoding_of`].
pub(super) fn client_encoding(server_encoding: &str) -> String {
    format!("SET client_encoding = {}", literal(encoding_of(server_encoding)))
}

/// Acts as `role` from now on.
pub(super) fn act_as(role: &str) -> String {
    format!("SET ROLE {}", ident(role))
}

/// Locks tables so that nobody changes what they are.
pub(super) fn lock(tables: &[Relation], wait: bool) -> String {
    let names: Vec<_> = tables.iter().map(relation).collect();
    format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE{}", names.join(", ONLY "), if wait { "" } else { " NOWAIT" })
}

/// Waits for a lock at most so many milliseconds.
pub(super) fn lock_timeout(milliseconds: u128) -> String {
    format!("SET lock_timeout = {milliseconds}")
}

/// The rows of a part, as COPY gives them.
pub(super) fn copy_out(rows: &Rows) -> String {
    let what = if rows.blocks.is_none() && rows.condition.is_none() {
        format!("{}{}", relation(&rows.table), listed(&rows.columns))
    } else {
        format!("(SELECT {} FROM {})", idents(&rows.columns), source(rows))
    };
    format!("COPY {what} TO STDOUT (FORMAT {})", format(rows))
}

/// Takes what [`copy_out`] gives.
pub(super) fn copy_in(rows: &Rows) -> String {
    let table = rows.into.as_ref().unwrap_or(&rows.table);
    format!("COPY {}{} FROM STDIN (FORMAT {})", relation(table), listed(&rows.columns), format(rows))
}

/// Counts rows, and adds up a hash of each row's text: the sum does not depend on their order. With a sample only rows whose
/// key's hash begins with so many zeroes are added.
pub(super) fn summed(rows: &Rows, sample: u32) -> String {
    // In the order of their names: a copy may have them in another, where tables inherit. The text of a record is made by the
    // types' own output functions; no cast of a tenant's is in it.
    let mut columns = rows.columns.clone();
    columns.sort();
    let hash =
        |columns: &[String]| format!("pg_catalog.hashtextextended(ROW({})::text COLLATE \"C\", 0)", idents(columns));
    let mut term = hash(&columns);
    if sample > 1 {
        let key = if rows.key.is_empty() { &columns } else { &rows.key };
        term = format!("CASE WHEN ({} & {}) = 0 THEN {term} END", hash(key), sample - 1);
    }
    format!(
        "SELECT pg_catalog.count(*)::text || ' ' || coalesce(pg_catalog.sum({term}), 0)::text FROM {}",
        source(rows)
    )
}

fn source(rows: &Rows) -> String {
    let mut text = format!("ONLY {}", relation(&rows.table));
    // The condition is the extension's own text, with its WHERE.
    if let Some(condition) = &rows.condition {
        text.push(' ');
        text.push_str(condition);
    }
    match rows.blocks {
        Some(Blocks { from, to: Some(to) }) => {
            text.push_str(&format!(" WHERE ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid"));
        }
        Some(Blocks { from, to: None }) => text.push_str(&format!(" WHERE ctid >= '({from},0)'::tid")),
        None => {}
    }
    text
}

/// Where sequences are, all in one query.
pub(super) fn sequence_values(sequences: &[Relation]) -> String {
    let one = |(index, sequence): (usize, &Relation)| {
        format!("SELECT {index} AS index, last_value, is_called FROM {}", relation(sequence))
    };
    let all: Vec<_> = sequences.iter().enumerate().map(one).collect();
    let query = all.join(" UNION ALL ");
    format!("SELECT pg_catalog.json_build_array(index, last_value, is_called)::text FROM ({query}) AS s ORDER BY index")
}

/// Makes an extension, as the role that the session acts as.
pub(super) fn create_extension(name: &str, schema: Option<&str>) -> String {
    let schema = schema.map(|schema| format!(" SCHEMA {}", ident(schema))).unwrap_or_default();
    format!("CREATE EXTENSION IF NOT EXISTS {}{schema}", ident(name))
}

/// Undoes one entry of a role's default privileges.
pub(super) fn forget_default(role: &str, schema: Option<&str>, kind: &str, grantee: Option<&str>) -> Option<String> {
    let kind = match kind {
        "r" => "TABLES",
        "S" => "SEQUENCES",
        "f" => "FUNCTIONS",
        "T" => "TYPES",
        "n" => "SCHEMAS",
        "L" => "LARGE OBJECTS",
        _ => return None,
    };
    let schema = schema.map(|schema| format!(" IN SCHEMA {}", ident(schema))).unwrap_or_default();
    let grantee = grantee.map_or_else(|| "PUBLIC".to_owned(), ident);
    Some(format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{schema} REVOKE ALL ON {kind} FROM {grantee}", ident(role)))
}

/// What became of a transaction.
pub(super) fn transaction_status(transaction: &str) -> String {
    format!("SELECT pg_xact_status({}::xid8)", literal(transaction))
}

/// No more of a large object than this is in memory at once.
pub(super) const PIECE: usize = 1 << 20;

/// Each object is opened only to learn its length. What depends on what decides the order in which the server runs them.
fn pieces(objects: &[LargeObject]) -> String {
    format!(
        "unnest({}) AS o(oid)
         CROSS JOIN LATERAL lo_open(o.oid, 262144) AS opened(fd)
         CROSS JOIN LATERAL lo_lseek64(opened.fd, 0, 2) AS measured(length)
         CROSS JOIN LATERAL lo_close(CASE WHEN measured.length >= 0 THEN opened.fd END) AS closed(result)
         CROSS JOIN LATERAL generate_series(0, measured.length, {PIECE}) AS piece(at)
         CROSS JOIN LATERAL lo_get(o.oid, piece.at, {PIECE}) AS got(bytes)
         WHERE closed.result = 0",
        oids(objects)
    )
}

fn oids(objects: &[LargeObject]) -> String {
    let oids: Vec<_> = objects.iter().map(|object| object.oid.to_string()).collect();
    format!("{}::oid[]", literal(format!("{{{}}}", oids.join(","))))
}

/// Makes those large objects that are not there.
pub(super) fn create_large_objects(objects: &[LargeObject]) -> String {
    format!(
        "SELECT count(lo_create(o.oid)) FROM unnest({}) AS o(oid)
         WHERE NOT EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = o.oid)",
        oids(objects)
    )
}

/// What goes with a large object, one statement for each.
pub(super) fn about_large_object(object: &LargeObject, roles: &RoleMap) -> Vec<String> {
    let LargeObject { oid, comment, grants } = object;
    let comment = comment.iter().map(|text| format!("COMMENT ON LARGE OBJECT {oid} IS {}", literal(text)));
    let grants = grants.iter().map(|LargeObjectGrant { to, update, grantable }| {
        let privilege = if *update { "UPDATE" } else { "SELECT" };
        let to = to.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| ident(roles.map(role)));
        let option = if *grantable { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {privilege} ON LARGE OBJECT {oid} TO {to}{option}")
    });
    comment.chain(grants).collect()
}

/// Pieces of large objects: oid, position, bytes.
pub(super) fn copy_large_objects(objects: &[LargeObject]) -> String {
    format!("COPY (SELECT o.oid, piece.at, got.bytes FROM {}) TO STDOUT (FORMAT binary)", pieces(objects))
}

/// Bytes of large objects, and the sum of a hash of each piece.
pub(super) fn large_objects_summed(objects: &[LargeObject]) -> String {
    format!(
        "SELECT coalesce(sum(length(got.bytes)), 0)::text || ' ' || coalesce(sum(hashtextextended(
           (o.oid || ' ' || piece.at || ' ' || md5(got.bytes)) COLLATE \"C\", 0)), 0)::text
         FROM {}",
        pieces(objects)
    )
}

/// Has the planner know a table.
pub(super) fn analyze(table: &Relation) -> String {
    format!("ANALYZE {}", relation(table))
}

/// A connection string of libpq's.
pub(super) fn conninfo(fields: &[(&str, &str)]) -> String {
    let one = |(key, value): &(&str, &str)| format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    fields.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// `"schema"."name"`.
pub(super) fn relation(relation: &Relation) -> String {
    format!("{}.{}", ident(&relation.schema), ident(&relation.name))
}

fn format(rows: &Rows) -> &'static str {
    if rows.binary { "binary" } else { "text" }
}

fn idents(names: &[String]) -> String {
    names.iter().map(ident).collect::<Vec<_>>().join(", ")
}

/// No list at all means all columns that are not generated, of which there are none then.
fn listed(columns: &[String]) -> String {
    if columns.is_empty() { String::new() } else { format!(" ({})", idents(columns)) }
}
