//! What is in a database, counted and summed up in the snapshot of an export.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use pgtenant_model::{Inventory, InventorySequence, InventoryTable, LargeObjects};

use super::export::Export;
use super::part::{Part, PartKind, Relation, Rows};
use super::{TransferError, sql};
use crate::error::PostgresError;

/// How closely rows are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Scrutiny<'a> {
    /// Of tables that are larger, in bytes, one row in 64 is summed up; all are counted.
    pub sample_above: u64,
    /// Of the same rows as there: the copy's size may differ.
    pub like: Option<&'a Inventory>,
}

impl Default for Scrutiny<'_> {
    fn default() -> Self {
        Self { sample_above: 256 << 20, like: None }
    }
}

/// One row in so many: a power of two.
const SAMPLE: u32 = 64;

/// Counted and summed.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    sum: i128,
}

impl Export {
    /// Counts every row, and sums up the content of every table, over all sessions at once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn inventory(&self, scrutiny: Scrutiny<'_>) -> Result<Inventory, TransferError> {
        let sizes = self.sizes();
        let samples: BTreeMap<&Relation, u32> =
            sizes.iter().map(|(table, bytes)| (*table, sample(table, *bytes, scrutiny))).collect();
        // Boxed, so that the compiler sees that this can be sent to another thread whatever the references' lifetimes are.
        let mut summing: Vec<BoxFuture<'_, Result<(&Part, Sum), TransferError>>> =
            Vec::with_capacity(self.parts().len());
        for part in self.parts() {
            let sample = table_of(part).and_then(|table| samples.get(table)).copied().unwrap_or(1);
            summing.push(async move { Ok((part, self.sum(part, sample).await?)) }.boxed());
        }
        let sums = futures::stream::iter(summing).buffer_unordered(self.jobs());
        let sums: Vec<(&Part, Sum)> = sums.try_collect().await?;
        let tables = sizes.iter().map(|(table, bytes)| {
            let of_table = sums.iter().filter(|(part, _)| table_of(part) == Some(table)).map(|(_, sum)| *sum);
            let Sum { count, sum } = of_table.reduce(Sum::and).unwrap_or_default();
            let Relation { schema, name } = (*table).clone();
            let sample = samples.get(table).copied().unwrap_or(1);
            InventoryTable { schema, name, rows: count, bytes: *bytes, checksum: sum.to_string(), sample }
        });
        let tables = tables.collect();
        let of_objects = sums.iter().filter(|(part, _)| matches!(part.kind, PartKind::LargeObjects(_)));
        let Sum { count, sum } = of_objects.map(|(_, sum)| *sum).reduce(Sum::and).unwrap_or_default();
        let objects = self.catalog.large_objects.len() as u64;
        Ok(Inventory {
            server_version: self.server_version(),
            tables,
            sequences: self.sequences(),
            extensions: self.catalog.extensions.iter().cloned().collect(),
            large_objects: LargeObjects { count: objects, bytes: count, checksum: sum.to_string() },
        })
    }

    /// What is known without reading a row: tables, their sizes, and which of them [`inventory`](Self::inventory) sums up by samples, so that
    /// a copy can be looked at in the same way and at the same time.
    #[must_use]
    pub fn outline(&self) -> Inventory {
        let table = |(table, bytes): (&Relation, u64)| InventoryTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            rows: 0,
            bytes,
            checksum: String::new(),
            sample: sample(table, bytes, Scrutiny::default()),
        };
        Inventory { tables: self.sizes().into_iter().map(table).collect(), ..Inventory::default() }
    }

    /// Tables by where their rows are written: a copy may place them in other partitions.
    fn sizes(&self) -> BTreeMap<&Relation, u64> {
        let mut sizes = BTreeMap::new();
        for table in &self.catalog.tables {
            *sizes.entry(place(&table.rows)).or_default() += table.bytes;
        }
        sizes
    }

    async fn sum(&self, part: &Part, sample: u32) -> Result<Sum, TransferError> {
        let query = match &part.kind {
            PartKind::Rows(rows) => sql::summed(rows, sample),
            PartKind::LargeObjects(oids) => sql::large_objects_summed(oids),
            PartKind::Sequences => return Ok(Sum::default()),
        };
        let lease = self.session().await?;
        if let PartKind::Rows(rows) = &part.kind {
            self.lock(&lease.wire, rows).await?;
        }
        let what = format!("sum up {}", part.name);
        let answer = lease.wire.text(&what, &query).await?;
        lease.give_back();
        let numbers = answer.split_once(' ').and_then(|(count, sum)| Some((count.parse().ok()?, sum.parse().ok()?)));
        let (count, sum) =
            numbers.ok_or_else(|| PostgresError::Answer { what, reason: format!("{answer:?} are not two numbers") })?;
        Ok(Sum { count, sum })
    }

    fn sequences(&self) -> Vec<InventorySequence> {
        let one = |state: &super::catalog::SequenceState| InventorySequence {
            schema: state.schema.clone(),
            name: state.name.clone(),
            last: state.last,
            called: state.called,
            increment: state.increment,
        };
        self.catalog.sequences.iter().map(one).collect()
    }
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, sum: self.sum + other.sum }
    }
}

fn sample(table: &Relation, bytes: u64, scrutiny: Scrutiny<'_>) -> u32 {
    let Some(like) = scrutiny.like else {
        return if bytes > scrutiny.sample_above { SAMPLE } else { 1 };
    };
    let same = like.tables.iter().find(|other| other.schema == table.schema && other.name == table.name);
    same.map_or(1, |other| other.sample)
}

fn table_of(part: &Part) -> Option<&Relation> {
    match &part.kind {
        PartKind::Rows(rows) => Some(place(rows)),
        PartKind::Sequences | PartKind::LargeObjects(_) => None,
    }
}

fn place(rows: &Rows) -> &Relation {
    rows.into.as_ref().unwrap_or(&rows.table)
}
