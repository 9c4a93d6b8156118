//! What a database's data are split into.

use serde::{Deserialize, Serialize};

use super::sql;

/// Data that are read, stored and written together. The order of parts does not matter, but for the pace: the biggest come first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// What is in it, for people: `"public"."orders" 2 of 5`. No two parts of an export have the same.
    pub name: String,
    /// Bytes on the server, about.
    pub bytes: u64,
    /// How it is read and written.
    pub kind: PartKind,
}

/// How a part is read and written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PartKind {
    /// Rows of one table, as COPY has them.
    Rows(Rows),
    /// Where sequences are: a line of JSON for each.
    Sequences,
    /// Contents of large objects: oid, position and bytes, as a binary COPY has them.
    LargeObjects(Vec<LargeObject>),
}

/// A large object, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObject {
    /// By which it is known.
    pub oid: u32,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Who may do what with it, besides its owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<LargeObjectGrant>,
}

/// A privilege on a large object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjectGrant {
    /// Who has it; none: everybody.
    pub to: Option<String>,
    /// Whether it is for changing it; else for reading it.
    pub update: bool,
    /// Whether it can be passed on.
    pub grantable: bool,
}

/// A schema and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
}

/// Rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// Where they are read.
    pub table: Relation,
    /// Where they are written, if not there: what they are partitions of, when the copy may place them in others.
    pub into: Option<Relation>,
    /// The columns that are copied: not the generated ones.
    pub columns: Vec<String>,
    /// Columns of the primary key, if there is one.
    pub key: Vec<String>,
    /// The format of COPY: binary, or text.
    pub binary: bool,
    /// Only these blocks.
    pub blocks: Option<Blocks>,
    /// Only these rows: what an extension says of its own table, beginning with `WHERE`.
    pub condition: Option<String>,
    /// The extension that the table belongs to.
    pub extension: Option<String>,
}

/// Blocks of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// The first.
    pub from: u64,
    /// The one after the last; none: to the end.
    pub to: Option<u64>,
}

/// A table of which rows are copied.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) rows: Rows,
    pub(super) bytes: u64,
    /// Where it can be read block by block: how many it has.
    pub(super) blocks: Option<u64>,
}

/// Smaller pieces cost more than they gain.
const SMALLEST_CHUNK: u64 = 32 << 20;
/// What is lost when a piece has to be copied again, and the size of a stored file.
const LARGEST_CHUNK: u64 = 1 << 30;

/// How many bytes are one part, so that so many jobs are evenly used.
pub(super) fn chunk_size(tables: &[Table], jobs: usize) -> u64 {
    let total: u64 = tables.iter().map(|table| table.bytes).sum();
    (total / (jobs.max(1) as u64 * 4)).clamp(SMALLEST_CHUNK, LARGEST_CHUNK)
}

/// Tables larger than `chunk` are split by their blocks.
pub(super) fn split(table: &Table, chunk: u64) -> Vec<Part> {
    let name = sql::relation(&table.rows.table);
    let blocks = table.blocks.unwrap_or(0);
    // A part of less than 8 blocks is not worth a statement, however much is stored out of line.
    let pieces = table.bytes.div_ceil(chunk.max(1)).min(blocks / 8).max(1);
    if pieces == 1 {
        return vec![Part { name, bytes: table.bytes, kind: PartKind::Rows(table.rows.clone()) }];
    }
    let bound = |piece: u64| piece * blocks / pieces;
    let part = |piece: u64| {
        // What was appended since then is after the last bound.
        let to = (piece + 1 < pieces).then(|| bound(piece + 1));
        let rows = Rows { blocks: Some(Blocks { from: bound(piece), to }), ..table.rows.clone() };
        let name = format!("{name} {} of {pieces}", piece + 1);
        Part { name, bytes: table.bytes / pieces, kind: PartKind::Rows(rows) }
    };
    (0..pieces).map(part).collect()
}

/// Large objects of one part.
const OBJECTS_AT_ONCE: usize = 1000;

/// Large objects that take about `bytes` together.
pub(super) fn of_large_objects(objects: &[LargeObject], bytes: u64) -> Vec<Part> {
    let each = bytes / (objects.len().max(1) as u64);
    let part = |(index, objects): (usize, &[LargeObject])| Part {
        name: format!("large objects {}", index + 1),
        bytes: each * objects.len() as u64,
        kind: PartKind::LargeObjects(objects.to_vec()),
    };
    objects.chunks(OBJECTS_AT_ONCE).enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: u64, blocks: Option<u64>) -> Table {
        let table = Relation { schema: "s".into(), name: "t".into() };
        let (columns, key) = (Vec::new(), Vec::new());
        let rows =
            Rows { table, into: None, columns, key, binary: true, blocks: None, condition: None, extension: None };
        Table { rows, bytes, blocks }
    }

    #[test]
    fn pieces_cover_a_table_without_a_gap() {
        let parts = split(&table(1000 * 8192, Some(1000)), 300 * 8192);
        let blocks = parts.iter().map(|part| match &part.kind {
            PartKind::Rows(rows) => rows.blocks.unwrap(),
            _ => panic!("rows"),
        });
        let blocks: Vec<_> = blocks.map(|one| (one.from, one.to)).collect();
        assert_eq!(blocks, [(0, Some(250)), (250, Some(500)), (500, Some(750)), (750, None)]);
    }

    #[test]
    fn what_can_not_be_split_is_one_part() {
        for table in [table(1 << 40, None), table(100, Some(1)), table(0, Some(0))] {
            let parts = split(&table, 1 << 30);
            assert_eq!(parts.len(), 1);
            assert_eq!(parts[0].name, "\"s\".\"t\"");
        }
    }
}
