//! Any database is copied whole.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Job;
use super::whole::assert_same_content;
use crate::world::World;

/// A column: its type, and a value of it made from `n`.
const TYPES: [(&str, &str); 16] = [
    ("int", "n"),
    ("bigint", "n * 10000000000"),
    ("text", "repeat('ü\t\\', n % 50) || n"),
    ("varchar(40)", "'v' || n"),
    ("numeric(20, 5)", "n / 7.0"),
    ("double precision", "sqrt(n)"),
    ("bytea", "decode(md5(n::text), 'hex')"),
    ("timestamptz", "timestamptz '2026-01-01' + n * interval '1 hour 3 min'"),
    ("jsonb", "jsonb_build_object('n', n, 'x', ARRAY[n, NULL])"),
    ("mood", "(enum_range(NULL::mood))[1 + n % 3]"),
    ("mood[]", "ARRAY[(enum_range(NULL::mood))[1 + n % 3], NULL]"),
    ("pair", "ROW(n, 'x' || n)::pair"),
    ("positive", "n + 1"),
    ("span", "span(n, n + 1)"),
    ("text[]", "ARRAY['a' || n, NULL, '{}']"),
    ("date", "date '2026-01-01' + n % 90"),
];

#[derive(Debug, Clone)]
struct Table {
    columns: Vec<(usize, Constraint)>,
    shape: Shape,
    key: bool,
    rows: u32,
    nulls: u32,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Constraint {
    None,
    Default,
    Index,
    Check,
    Unlikely,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Plain,
    Unlogged,
    ByRange,
    ByHash,
    ByList,
    Parent,
    Guarded,
}

#[derive(Debug, Clone)]
struct Database {
    tables: Vec<Table>,
    references: Vec<(usize, usize)>,
    views: Vec<(usize, bool)>,
    sequences: Vec<(i64, u32)>,
    objects: Vec<(u32, u32)>,
    chunk: u64,
}

fn tables() -> impl Strategy<Value = Table> {
    use Constraint::{Check, Default, Index, None, Unlikely};
    use Shape::{ByHash, ByList, ByRange, Guarded, Parent, Plain, Unlogged};
    let constraint = prop::sample::select(vec![None, Default, Index, Check, Unlikely]);
    let shape = prop::sample::select(vec![Plain, Plain, Unlogged, ByRange, ByHash, ByList, Parent, Guarded]);
    let name = prop_oneof!["[a-z]{1,8}", "[A-Z \"';.\\\\$%ü\n-]{1,12}", Just("select".to_owned())];
    (prop::collection::vec((0..TYPES.len(), constraint), 0..7), shape, any::<bool>(), 0..400_u32, 2..9_u32, name)
        .prop_map(|(columns, shape, key, rows, nulls, name)| Table { columns, shape, key, rows, nulls, name })
}

fn databases() -> impl Strategy<Value = Database> {
    (
        prop::collection::vec(tables(), 1..7),
        prop::collection::vec((0..7_usize, 0..7_usize), 0..5),
        prop::collection::vec((0..7_usize, any::<bool>()), 0..4),
        prop::collection::vec((prop_oneof![1..20_i64, -20..-1_i64], 0..4_u32), 0..4),
        prop::collection::vec((1..1000_u32, 0..3_000_000_u32), 0..4),
        prop_oneof![Just(64_u64 << 10), Just(1 << 30)],
    )
        .prop_map(|(tables, references, views, sequences, objects, chunk)| Database {
            tables,
            references,
            views,
            sequences,
            objects,
            chunk,
        })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    fn name(&self, index: usize) -> String {
        quoted(&format!("{} {index}", self.name))
    }

    fn is_partitioned(&self) -> bool {
        matches!(self.shape, Shape::ByRange | Shape::ByHash | Shape::ByList)
    }

    fn sql(&self, index: usize) -> String {
        let name = self.name(index);
        let mut columns = vec!["id int NOT NULL".to_owned(), "split mood".to_owned()];
        let mut after = String::new();
        for (at, (kind, constraint)) in self.columns.iter().enumerate() {
            let (kind, sample) = TYPES[*kind];
            let column = quoted(&format!("{}{at}", self.name));
            let extra = match constraint {
                Constraint::Default => format!(
                    "DEFAULT {}",
                    sample.replace('n', "7").replace("7umeric", "numeric").replace("i7terval", "interval")
                ),
                Constraint::Check => format!("CHECK ({column} IS NULL OR {column} IS NOT NULL)"),
                _ => String::new(),
            };
            // A default that can not be made from its sample by replacing is none.
            let extra =
                if extra.starts_with("DEFAULT") && !matches!(kind, "int" | "bigint") { String::new() } else { extra };
            columns.push(format!("{column} {kind} {extra}"));
            if *constraint == Constraint::Index && !matches!(kind, "pair") {
                after += &format!("CREATE INDEX ON {name} ({column}) WHERE id > 10;\n");
            }
            if *constraint == Constraint::Unlikely {
                after += &format!("COMMENT ON COLUMN {name}.{column} IS {};\n", "'it''s; a \"comment\"\n'");
            }
        }
        if self.key && !self.is_partitioned() {
            columns.push("PRIMARY KEY (id)".into());
        }
        let (prefix, suffix) = match self.shape {
            Shape::Unlogged => ("UNLOGGED", String::new()),
            Shape::ByRange => ("", " PARTITION BY RANGE (id)".into()),
            Shape::ByHash => ("", " PARTITION BY HASH (split)".into()),
            Shape::ByList => ("", " PARTITION BY LIST (split)".into()),
            _ => ("", String::new()),
        };
        let child = |at: u32, bound: &str| {
            format!("CREATE TABLE {} PARTITION OF {name} {bound};\n", quoted(&format!("{index} child {at}")))
        };
        let children = match self.shape {
            Shape::ByRange => {
                child(0, "FOR VALUES FROM (MINVALUE) TO (100)") + &child(1, "FOR VALUES FROM (100) TO (MAXVALUE)")
            }
            Shape::ByHash => {
                (0..3).map(|at| child(at, &format!("FOR VALUES WITH (MODULUS 3, REMAINDER {at})"))).collect()
            }
            Shape::ByList => child(0, "FOR VALUES IN ('sad')") + &child(1, "DEFAULT"),
            Shape::Parent => format!(
                "CREATE TABLE {0} (more text DEFAULT 'x') INHERITS ({name}); INSERT INTO {0} (id, more) SELECT n, 'm' FROM generate_series(1, 50) n;\n",
                quoted(&format!("{index} heir"))
            ),
            Shape::Guarded => {
                format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {name} USING (id > 3);\n")
            }
            _ => String::new(),
        };
        let values = self
            .columns
            .iter()
            .map(|(kind, _)| format!(", CASE WHEN n % {} > 0 THEN {} END", self.nulls, TYPES[*kind].1));
        let values: String = values.collect();
        // A domain of the types says NOT NULL of its own.
        let values = values.replace("THEN n + 1 END", "THEN n + 1 ELSE 5 END");
        let fill = format!(
            "INSERT INTO {name} SELECT n, (enum_range(NULL::mood))[1 + n % 3]{values} FROM generate_series(1, {}) n;\n",
            self.rows
        );
        format!("CREATE {prefix} TABLE {name} ({}){suffix};\n{children}{fill}{after}", columns.join(", "))
    }
}

impl Database {
    fn sql(&self) -> String {
        let mut sql = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
                       CREATE TYPE span AS RANGE (SUBTYPE = int4);\n".to_owned();
        for (index, table) in self.tables.iter().enumerate() {
            sql += &table.sql(index);
        }
        let named = |index: &usize| self.tables.get(*index).map(|table| (table, table.name(*index)));
        for (at, (from, to)) in self.references.iter().enumerate() {
            let (Some((first, from)), Some((second, to))) = (named(from), named(to)) else { continue };
            // Of a partitioned table only one that refers to a larger key would do.
            if second.key
                && !second.is_partitioned()
                && first.rows <= second.rows
                && first.shape != Shape::Unlogged
                && second.shape != Shape::Unlogged
                && first.shape != Shape::Parent
            {
                sql +=
                    &format!("ALTER TABLE {from} ADD CONSTRAINT \"fk {at}\" FOREIGN KEY (id) REFERENCES {to} (id);\n");
            }
        }
        for (at, (table, stored)) in self.views.iter().enumerate() {
            let Some((_, table)) = named(table) else { continue };
            let kind = if *stored { "MATERIALIZED VIEW" } else { "VIEW" };
            sql += &format!(
                "CREATE {kind} view_{at} AS SELECT split, count(*) AS n FROM {table} WHERE split IN ('sad', 'ok') GROUP BY split;\n"
            );
        }
        for (at, (increment, uses)) in self.sequences.iter().enumerate() {
            sql += &format!(
                "CREATE SEQUENCE sequence_{at} INCREMENT {increment} CYCLE; SELECT nextval('sequence_{at}') FROM generate_series(1, {uses});\n"
            );
        }
        let mut seen = Vec::new();
        for (oid, length) in &self.objects {
            if !seen.contains(oid) {
                sql += &format!("SELECT lo_from_bytea({oid}, convert_to(repeat('x', {length}), 'UTF8'));\n");
                seen.push(*oid);
            }
        }
        sql
    }
}

#[test]
fn any_database_is_copied_whole() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let config = Config { cases: 8, max_shrink_iters: 30, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&databases(), |database| {
        runtime.block_on(async {
            let mut job = Job::new(&world).await;
            job.chunk = Some(database.chunk);
            job.fill(&database.sql()).await;
            let (export, copied) = job.copy().await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&copied.left_out, &vec![]);
            let verification = job.verify(&export, &copied, 20_000).await;
            prop_assert_eq!(verification.differences, vec![]);
            assert_same_content(&job, &job.tenant.database(), &job.target, "nothing");
            Ok(())
        })
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}
