//! A database of some GB: dumped and restored by pgtenant, against `pg_dump -j` and `pg_restore -j` on the same servers.
//!
//! Both read one database and make another one of it, over as many connections. Between them `pg_dump` has a folder of compressed files,
//! as it makes it unless somebody says otherwise; pgtenant has what it keeps: compressed, encrypted, sealed, with a checksum of each
//! table. What pgtenant does beyond that (comparing every row, logins, the exchange) is told of by itself, and so is `pg_dump` at its
//! fastest, which compresses nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pgtenant_lab::Binaries;
use pgtenant_model::EventKind;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::process::Command;

use crate::api::Claim;
use crate::args::{Args, Sizes};
use crate::bench::{Bench, PATIENCE};
use crate::connect::Session;
use crate::error::{BenchError, Result};
use crate::lab::{Described, Lab};
use crate::report::new_table;
use crate::run;
use crate::stats::median;
use crate::verdict::Verdict;

/// pgtenant's pace, in times of the tools' own.
const AIM: f64 = 0.9;
/// Connections of each side; pgtenant's default.
const JOBS: &str = "2";
const PARTITIONS: usize = 8;
/// Rows of a MiB, with their indexes.
const ROWS: usize = 3800;
/// Of each MiB, so much is a large object.
const LARGE_OBJECTS: f64 = 0.08;

/// Raw samples.
#[derive(Debug, Serialize)]
pub(crate) struct Restores {
    /// Of the database on the server.
    bytes: i64,
    rounds: Vec<Round>,
}

/// In seconds.
#[derive(Debug, Serialize)]
struct Round {
    raw_dump: f64,
    raw_restore: f64,
    /// Without compression.
    plain_dump: f64,
    plain_restore: f64,
    dump: f64,
    /// Until all is copied.
    copy: f64,
    /// Comparing with the snapshot, privileges, logins.
    verify: f64,
    /// From the request to the end.
    restore: f64,
}

pub(crate) async fn measure(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    say: &(impl Fn(&str) + Sync),
) -> Result<Restores> {
    let lab = Lab::start(folder, Described { dumps: true, ..Described::files() }, say).await?;
    run::on(args, binary, lab, say, async |bench| on(bench, sizes, folder).await).await
}

async fn on(bench: &Bench<'_>, sizes: &Sizes, folder: &Path) -> Result<Restores> {
    let claim = Claim { namespace: "bench-restores".to_owned(), name: "large".to_owned() };
    bench.claim(&claim).await?;
    bench.say(&format!("restores: a database of {} MiB is filled", sizes.restored_mib));
    let login = bench.lab.credential(&claim.namespace, &format!("{}-admin", claim.database()))?;
    let db = bench.lab.primary.connect(&login, &claim.database()).await?;
    fill(&db, sizes.restored_mib).await?;
    let size = db.client().query_one("select pg_database_size(current_database())", &[]).await;
    let bytes: i64 = size.map_err(BenchError::postgres("ask for the size"))?.get(0);
    db.close().await;
    let mut rounds = Vec::new();
    for number in 0..sizes.rounds {
        bench.say(&format!("restores: round {} of {}", number + 1, sizes.rounds));
        let (raw_dump, raw_restore) = raw(bench, &claim.database(), &folder.join("raw"), &[]).await?;
        let plain = raw(bench, &claim.database(), &folder.join("raw"), &["--compress=0"]).await?;
        let (dump, copy, verify, restore) = own(bench, &claim, &format!("copy-{number}")).await?;
        let (plain_dump, plain_restore) = plain;
        rounds.push(Round { raw_dump, raw_restore, plain_dump, plain_restore, dump, copy, verify, restore });
    }
    Ok(Restores { bytes, rounds })
}

/// Partitions with three indexes each, a table that refers to them, large objects.
async fn fill(db: &Session, mib: usize) -> Result<()> {
    let rows = ROWS * mib;
    let each = rows.div_ceil(PARTITIONS);
    db.batch(
        "create table events (id bigint not null, at timestamptz not null, kind int not null, payload text not null)
         partition by range (id); create table kinds (kind int primary key, name text); create index on events (at);
         create index on events (kind); alter table events add primary key (id);
         insert into kinds select n, 'kind ' || n from generate_series(0, 99) n",
    )
    .await?;
    for part in 0..PARTITIONS {
        let (from, to) = (part * each, (part + 1) * each);
        db.batch(&format!("create table events_{part} partition of events for values from ({from}) to ({to})")).await?;
        // As large as it is allowed to be in the time that a statement has.
        for from in (from..to).step_by(500_000) {
            let to = to.min(from + 500_000);
            db.batch(&format!(
                "insert into events select n, timestamptz '2026-01-01' + n * interval '1 second', n % 100,
                        md5(n::text) || md5((n + 1)::text) || repeat('x', n % 60)
                 from generate_series({from}, {to} - 1) n"
            ))
            .await?;
        }
    }
    db.batch("alter table events add foreign key (kind) references kinds; create view late as select * from events where kind = 1")
        .await?;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about")]
    let objects = (mib as f64 * LARGE_OBJECTS) as usize;
    let object = "select count(lo_from_bytea(0, convert_to(repeat(md5(n::text), 32768), 'UTF8')))";
    db.batch(&format!("{object} from generate_series(1, {objects}) n")).await?;
    // Otherwise the server does it by itself while the first of both is measured.
    db.batch("vacuum analyze").await
}

/// Seconds of `pg_dump`, with these further options, and of `pg_restore`.
async fn raw(bench: &Bench<'_>, database: &str, folder: &Path, further: &[&str]) -> Result<(f64, f64)> {
    let maintenance = bench.lab.primary.connect(&bench.lab.superuser, "postgres").await?;
    maintenance.batch("create database raw template template0").await?;
    let directory = folder.display().to_string();
    let format = ["--format=directory", "--jobs", JOBS];
    let dump = tool(bench, "pg_dump", &[&format[..], further, &["--file", &directory, database]].concat()).await?;
    let restore = tool(bench, "pg_restore", &[&format[..], &["--dbname=raw", &directory]].concat()).await?;
    maintenance.batch("drop database raw").await?;
    maintenance.close().await;
    std::fs::remove_dir_all(folder).map_err(BenchError::io("remove", folder))?;
    Ok((dump, restore))
}

async fn tool(bench: &Bench<'_>, name: &str, arguments: &[&str]) -> Result<f64> {
    let program = Binaries::locate(None)?.dir().join(name);
    let begun = Instant::now();
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.env("PGHOST", "localhost").env("PGPORT", bench.lab.primary.port().to_string()).env("PGSSLMODE", "require");
    command.env("PGUSER", &bench.lab.superuser.user).env("PGPASSWORD", bench.lab.superuser.password.expose_secret());
    let output = command.output().await.map_err(BenchError::io("start", &program))?;
    if output.status.success() {
        return Ok(begun.elapsed().as_secs_f64());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Claim { claim: name.to_owned(), message: said })
}

/// Seconds of a dump, and of the copying, the comparing and the whole of a restore into another claim, which goes again.
async fn own(bench: &Bench<'_>, claim: &Claim, copy: &str) -> Result<(f64, f64, f64, f64)> {
    let begun = Instant::now();
    let operation = bench.api.dump(claim).await?;
    let dumped = until(begun, async || Ok(bench.api.operation(&operation).await?.as_str().to_owned()), "Succeeded");
    dumped.await?;
    let dump = begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let restore = bench.api.restore(claim, copy).await?;
    let phase = async || bench.api.restore_phase(&restore).await;
    let mut reached = Vec::new();
    for phases in ["Copying", "Verifying", "Switching", "Succeeded"] {
        reached.push(until(begun, phase, phases).await?);
    }
    let made = Claim { name: copy.to_owned(), ..claim.clone() };
    let removed = bench.events.expect(&made, EventKind::Deleted);
    bench.api.remove(&made).await?;
    removed.within(PATIENCE).await?;
    Ok((dump, reached[1] - reached[0], reached[2] - reached[1], reached[3]))
}

/// When this phase, or a later one, was seen, in seconds since `begun`.
async fn until(begun: Instant, now: impl AsyncFn() -> Result<String>, wanted: &str) -> Result<f64> {
    const ORDER: [&str; 9] = [
        "Requested",
        "Approved",
        "Preparing",
        "Copying",
        "Verifying",
        "Switching",
        "CleaningUp",
        "Running",
        "Succeeded",
    ];
    let place = |phase: &str| ORDER.iter().position(|one| *one == phase);
    loop {
        let phase = now().await?;
        match place(&phase) {
            Some(found) if Some(found) >= place(wanted) => return Ok(begun.elapsed().as_secs_f64()),
            None if phase != "Pending" => {
                return Err(BenchError::Claim { claim: wanted.to_owned(), message: format!("it is {phase}") });
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl Restores {
    fn median(&self, value: fn(&Round) -> f64) -> f64 {
        median(&self.rounds.iter().map(value).collect::<Vec<_>>())
    }
}

pub(crate) fn judge(restores: &Restores) -> Vec<Verdict> {
    let row = |what: &str, mine: fn(&Round) -> f64, raw: fn(&Round) -> f64, aim: f64| {
        let (mine, raw) = (restores.median(mine), restores.median(raw));
        Verdict {
            what: format!("{what}, in times of the tools' pace"),
            value: raw / mine,
            shown: format!("{:.2} ×", raw / mine),
            aim: if aim > 0.0 { format!("≥ {aim} ×") } else { String::new() },
            met: raw / mine >= aim,
            pgtenant: format!("{mine:.1} s"),
            floor: format!("{raw:.1} s"),
        }
    };
    vec![
        row("dump and restore", |one| one.dump + one.copy, |one| one.raw_dump + one.raw_restore, AIM),
        row("dump", |one| one.dump, |one| one.raw_dump, 0.0),
        row(
            "dump and restore, the tools' without compression",
            |one| one.dump + one.copy,
            |one| one.plain_dump + one.plain_restore,
            0.0,
        ),
        row("restore without comparing", |one| one.copy, |one| one.raw_restore, 0.0),
        row("restore with all", |one| one.restore, |one| one.raw_restore, 0.0),
    ]
}

pub(crate) fn details(restores: &Restores) -> String {
    let mut text =
        format!("\ndump and restore of a database of {} MiB, seconds, over {JOBS} connections\n", restores.bytes >> 20);
    let mut table = new_table(&[
        "pg_dump",
        "pg_restore",
        "pg_dump, plain",
        "pg_restore, plain",
        "dump",
        "copying",
        "comparing",
        "restore, all",
    ]);
    for one in &restores.rounds {
        let Round { raw_dump, raw_restore, plain_dump, plain_restore, dump, copy, verify, restore } = one;
        let all = [raw_dump, raw_restore, plain_dump, plain_restore, dump, copy, verify, restore];
        table.add_row(all.map(|seconds| format!("{seconds:.1}")));
    }
    let _ = writeln!(text, "{table}");
    text
}
