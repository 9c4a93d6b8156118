//! What is in a database, so that a copy of it can be told to be whole; and what came of the comparison.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is in a database, as of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// As `server_version_num` has it: 150018.
    pub server_version: u32,
    /// Tables with rows of their own: partitions, not what they are partitions of. Rows that are spread by a hash are counted
    /// together, as another server may spread them in another way.
    pub tables: Vec<InventoryTable>,
    /// Sequences.
    pub sequences: Vec<InventorySequence>,
    /// Extensions and their versions.
    pub extensions: BTreeMap<String, String>,
    /// Large objects.
    pub large_objects: LargeObjects,
}

/// A table's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Rows, counted.
    pub rows: u64,
    /// Bytes on the server, with what is stored out of line, without indexes.
    pub bytes: u64,
    /// A sum over the rows that does not depend on their order.
    pub checksum: String,
    /// The sum is over one row in so many; 1: over all.
    pub sample: u32,
}

/// Where a sequence is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventorySequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The value that it gave last, or gives next.
    pub last: i64,
    /// Whether it has given that value.
    pub called: bool,
    /// What is added for the next one; less than 0: it goes down.
    pub increment: i64,
}

/// Large objects together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// A sum over their contents that does not depend on their order.
    pub checksum: String,
}

/// What a comparison of the copy with the snapshot came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Tables, views, functions and all else that has a definition, compared one by one.
    pub objects: u64,
    /// Tables whose rows were counted and whose content was summed up.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sequences that are where they were.
    pub sequences: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Logins that were tried.
    pub logins: Vec<String>,
    /// What differs, which stops a restore before anything is switched.
    pub differences: Vec<Finding>,
    /// What can not be brought back, and what to do about it.
    pub left_out: Vec<LeftOut>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// What it is: `table "public"."orders"`.
    pub object: String,
    /// In what it differs.
    pub message: String,
}

/// Something of the snapshot that the copy does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeftOut {
    /// What it is: `extension "postgis"`.
    pub object: String,
    /// Why.
    pub reason: String,
    /// Who can do what about it.
    pub remedy: String,
}

impl Verification {
    /// Whether the copy is whole.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.differences.is_empty()
    }
}
