//! What an export asks the source for.

use pgtenant_model::LeftOut;
use serde::Deserialize;

use super::TransferError;
use super::connect::Wire;
use super::part::{LargeObject, Relation, Rows, Table};
use super::sql;
use crate::error::PostgresError;

/// Tables with rows of their own, as `pg_dump` picks them.
///
/// Rows are copied in text where a type's binary form does not hold in another database: oids of types are in arrays and
/// records of types that are not built in, and oids of objects in `regclass` and the like; the binary form of an
/// extension's type is its own affair. XML in binary has an encoding added.
const TABLES: &str = "
WITH RECURSIVE
candidates AS (
  SELECT c.oid, c.relname, n.nspname, c.relpersistence, c.relam, c.relispartition, x.extname,
         x.extcondition[array_position(x.extconfig, c.oid)] AS condition
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
       AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  LEFT JOIN pg_extension x ON x.oid = d.refobjid
  WHERE c.relkind = 'r' AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (x.oid IS NULL OR c.oid = ANY (x.extconfig))
),
used AS (
  SELECT DISTINCT a.atttypid AS root, a.atttypid AS type
  FROM pg_attribute a JOIN candidates c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT used.root, inner_type.type
  FROM used JOIN pg_type t ON t.oid = used.type
  CROSS JOIN LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
  ) AS inner_type(type)
),
textual AS (
  SELECT DISTINCT used.root
  FROM used JOIN pg_type t ON t.oid = used.type
  WHERE t.typtype IN ('c', 'p') OR t.typsend = 0 OR t.typreceive = 0
     OR (t.typtype = 'b' AND t.typcategory <> 'A' AND t.oid >= 16384)
     OR (t.typcategory = 'A' AND t.typelem >= 16384)
     OR t.oid = 'xml'::regtype
     OR (t.oid < 16384 AND t.typname ~ '^reg')
),
parents AS (
  SELECT i.inhrelid AS leaf, i.inhparent AS ancestor, 1 AS depth
  FROM pg_inherits i JOIN candidates c ON c.oid = i.inhrelid WHERE c.relispartition
  UNION ALL
  SELECT p.leaf, i.inhparent, p.depth + 1
  FROM parents p JOIN pg_inherits i ON i.inhrelid = p.ancestor JOIN pg_class c ON c.oid = p.ancestor AND c.relispartition
),
hashed AS (
  SELECT p.leaf, (array_agg(p.ancestor ORDER BY p.depth DESC))[1] AS root
  FROM parents p JOIN pg_partitioned_table t ON t.partrelid = p.ancestor
  GROUP BY p.leaf HAVING bool_or(t.partstrat = 'h')
)
SELECT json_build_object(
  'schema', c.nspname, 'name', c.relname, 'extension', c.extname, 'condition', nullif(c.condition, ''),
  'unlogged', c.relpersistence = 'u',
  'into', (SELECT json_build_object('schema', n.nspname, 'name', r.relname)
           FROM hashed h JOIN pg_class r ON r.oid = h.root JOIN pg_namespace n ON n.oid = r.relnamespace
           WHERE h.leaf = c.oid),
  'columns', (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
  'key', (SELECT coalesce(json_agg(a.attname ORDER BY k.position), '[]')
          FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
          WHERE i.indrelid = c.oid AND i.indisprimary AND k.position <= i.indnkeyatts),
  'binary', NOT EXISTS (SELECT FROM pg_attribute a JOIN textual t ON t.root = a.atttypid
                        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
  'bytes', coalesce(pg_table_size(c.oid), 0),
  'blocks', CASE WHEN c.relam = (SELECT oid FROM pg_am WHERE amname = 'heap')
                 THEN coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int END,
  'readable', has_schema_privilege(c.nspname, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
  'filtered', row_security_active(c.oid)
)::text
FROM candidates c
ORDER BY c.oid";

/// Tables that only hold others: `pg_dump` locks them too.
const PARTITIONED: &str = "
SELECT json_build_object('schema', n.nspname, 'name', c.relname)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";

const SEQUENCES: &str = "
SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'increment', s.seqincrement,
  'extension', x.extname,
  'readable', has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
     AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_extension x ON x.oid = d.refobjid
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND (x.oid IS NULL OR c.oid = ANY (x.extconfig))
ORDER BY n.nspname, c.relname";

const EXTENSIONS: &str =
    "SELECT json_build_array(extname, extversion)::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname";

const LARGE_OBJECTS: &str = "
SELECT json_build_object('oid', m.oid::int8, 'comment', d.description, 'grants', (
  SELECT coalesce(json_agg(json_build_object(
    'to', r.rolname, 'update', a.privilege_type = 'UPDATE', 'grantable', a.is_grantable)), '[]')
  FROM aclexplode(m.lomacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
  WHERE a.grantee <> m.lomowner AND (a.grantee = 0 OR r.oid IS NOT NULL)))::text
FROM pg_largeobject_metadata m
LEFT JOIN pg_description d ON d.objoid = m.oid AND d.classoid = 'pg_largeobject'::regclass AND d.objsubid = 0
ORDER BY m.oid";

const LARGE_OBJECT_BYTES: &str = "SELECT pg_table_size('pg_catalog.pg_largeobject')::text";

/// `pg_dump` does not dump them for a login that is no superuser.
const SUBSCRIPTIONS: &str = "SELECT to_json(subname)::text FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Sequences whose values are asked for in one statement.
const SEQUENCES_AT_ONCE: usize = 200;

/// Where a sequence is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(super) struct SequenceState {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) increment: i64,
    pub(super) last: i64,
    pub(super) called: bool,
    /// The extension that it belongs to.
    pub(super) extension: Option<String>,
}

/// What an export is made of.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) tables: Vec<Table>,
    pub(super) sequences: Vec<SequenceState>,
    pub(super) extensions: Vec<(String, String)>,
    pub(super) large_objects: Vec<LargeObject>,
    pub(super) large_object_bytes: u64,
    pub(super) left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
struct FoundTable {
    schema: String,
    name: String,
    extension: Option<String>,
    condition: Option<String>,
    unlogged: bool,
    into: Option<Relation>,
    columns: Vec<String>,
    key: Vec<String>,
    binary: bool,
    bytes: u64,
    blocks: Option<u64>,
    readable: bool,
    filtered: bool,
}

#[derive(Debug, Deserialize)]
struct FoundSequence {
    schema: String,
    name: String,
    increment: i64,
    extension: Option<String>,
    readable: bool,
}

/// Looks at everything that is to be copied, in the transaction of `keeper`. Of a server that is in recovery, or was,
/// unlogged tables have no rows.
pub(super) async fn read(keeper: &Wire, recovered: bool) -> Result<Catalog, TransferError> {
    let found: Vec<FoundTable> = keeper.documents("look for tables", TABLES, &[]).await?;
    let partitioned: Vec<Relation> = keeper.documents("look for partitioned tables", PARTITIONED, &[]).await?;
    let sequences: Vec<FoundSequence> = keeper.documents("look for sequences", SEQUENCES, &[]).await?;
    let unreadable = |table: &&FoundTable| !table.readable;
    let name = |table: &FoundTable| sql::relation(&Relation { schema: table.schema.clone(), name: table.name.clone() });
    let mut names: Vec<_> = found.iter().filter(unreadable).map(name).collect();
    names.extend(partitioned.iter().map(sql::relation));
    let unreadable = sequences.iter().filter(|sequence| !sequence.readable);
    names.extend(unreadable.map(|one| sql::relation(&Relation { schema: one.schema.clone(), name: one.name.clone() })));
    refuse(
        names,
        "the login has no SELECT on it",
        "Whoever owns it gives it to the admin tier: ALTER TABLE … OWNER TO",
    )?;
    let filtered = found.iter().filter(|table| table.filtered).map(name).collect();
    refuse(
        filtered,
        "row-level security hides rows from its owner too",
        "The owner runs ALTER TABLE … NO FORCE ROW LEVEL SECURITY for the time of the copy",
    )?;
    let mut left_out = subscriptions(keeper).await?;
    let (here, lost): (Vec<_>, Vec<_>) = found.into_iter().partition(|table| !(recovered && table.unlogged));
    left_out.extend(lost.iter().map(|table| LeftOut {
        object: format!("content of {}", name(table)),
        reason: "it is unlogged: what is made from the log, as a standby or a backup, has none of it".into(),
        remedy: "a dump of the primary has it".into(),
    }));
    let large_object_bytes = keeper.text("ask for the size of large objects", LARGE_OBJECT_BYTES).await?;
    Ok(Catalog {
        tables: here.into_iter().map(FoundTable::into_table).collect(),
        sequences: states(keeper, sequences).await?,
        extensions: keeper.documents("look for extensions", EXTENSIONS, &[]).await?,
        large_objects: keeper.documents("look for large objects", LARGE_OBJECTS, &[]).await?,
        large_object_bytes: large_object_bytes.parse().unwrap_or(0),
        left_out,
    })
}

fn refuse(tables: Vec<String>, reason: &'static str, remedy: &'static str) -> Result<(), TransferError> {
    if tables.is_empty() { Ok(()) } else { Err(TransferError::Unreadable { tables, reason, remedy }) }
}

async fn subscriptions(keeper: &Wire) -> Result<Vec<LeftOut>, PostgresError> {
    let names: Vec<String> = keeper.documents("look for subscriptions", SUBSCRIPTIONS, &[]).await?;
    let left_out = |name: String| LeftOut {
        object: format!("subscription {name:?}"),
        reason: "a copy follows nobody by itself".into(),
        remedy: "have a superuser create it again".into(),
    };
    Ok(names.into_iter().map(left_out).collect())
}

async fn states(keeper: &Wire, found: Vec<FoundSequence>) -> Result<Vec<SequenceState>, PostgresError> {
    let mut states = Vec::with_capacity(found.len());
    for some in found.chunks(SEQUENCES_AT_ONCE) {
        let relation = |one: &FoundSequence| Relation { schema: one.schema.clone(), name: one.name.clone() };
        let query = sql::sequence_values(&some.iter().map(relation).collect::<Vec<_>>());
        let values: Vec<(usize, i64, bool)> = keeper.documents("ask where sequences are", &query, &[]).await?;
        states.extend(values.into_iter().filter_map(|(index, last, called)| {
            let FoundSequence { schema, name, increment, extension, .. } = some.get(index)?;
            let (schema, name, extension) = (schema.clone(), name.clone(), extension.clone());
            Some(SequenceState { schema, name, increment: *increment, last, called, extension })
        }));
    }
    Ok(states)
}

impl FoundTable {
    fn into_table(self) -> Table {
        let Self { schema, name, extension, condition, into, columns, key, binary, bytes, blocks, .. } = self;
        // What an extension picks by a condition is small.
        let splittable = condition.is_none();
        let table = Relation { schema, name };
        let rows = Rows { table, into, columns, key, binary, blocks: None, condition, extension };
        Table { rows, bytes, blocks: blocks.filter(|_| splittable) }
    }
}

/// Extensions, schemas and whatever else is there in a target.
pub(super) mod target {
    pub(crate) const EXTENSIONS: &str = "SELECT to_json(extname)::text FROM pg_extension";
    pub(crate) const SCHEMAS: &str = "SELECT to_json(nspname)::text FROM pg_namespace";
    /// Anything that somebody put there: not what extensions brought.
    pub(crate) const OCCUPANT: &str = "
        SELECT to_json(format('%I.%I', n.nspname, c.relname))::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
          SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        LIMIT 1";
    /// What roles that this login acts for would give away of what they make.
    pub(crate) const DEFAULT_PRIVILEGES: &str = "
        SELECT DISTINCT ON (r.rolname, n.nspname, d.defaclobjtype, g.rolname) json_build_array(
          r.rolname, n.nspname, d.defaclobjtype, g.rolname)::text
        FROM pg_default_acl d JOIN pg_roles r ON r.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
        CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a LEFT JOIN pg_roles g ON g.oid = a.grantee
        WHERE pg_has_role(d.defaclrole, 'USAGE') AND a.grantee <> d.defaclrole";
    pub(crate) const TABLES_TO_ANALYZE: &str = "
        SELECT json_build_object('schema', n.nspname, 'name', c.relname)::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (c.relkind IN ('r', 'm') AND NOT c.relispartition OR c.relkind = 'p')
          AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND pg_has_role(c.relowner, 'USAGE') AND NOT (c.relispartition)
        ORDER BY pg_table_size(c.oid) DESC";
}
