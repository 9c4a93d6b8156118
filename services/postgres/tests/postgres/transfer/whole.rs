//! A copy is whole.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use pgtenant_postgres::transfer::{Archive, Part, RoleMap, Scrutiny, Side, compare};

use super::{Job, job_login, tools};
use crate::world::World;

const EVERYTHING: &str = include_str!("everything.sql");

/// What pg_dump says of rows, sorted: it writes tables in the order of their oids.
pub(super) fn content(job: &Job<'_>, database: &str) -> BTreeMap<String, Vec<String>> {
    let text =
        job.dump(database, &["--data-only", "--load-via-partition-root", "--no-owner", "--exclude-table-data=nothing"]);
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines().filter(|line| !line.starts_with("--") && !line.is_empty()) {
        if line.starts_with("COPY ") {
            table = line.to_owned();
        }
        tables.entry(table.clone()).or_default().push(line.to_owned());
    }
    tables.values_mut().for_each(|lines| lines.sort());
    tables
}

pub(super) fn assert_same_content(job: &Job<'_>, ours: &str, theirs: &str, but: &str) {
    let (ours, theirs) = (content(job, ours), content(job, theirs));
    assert!(!ours.is_empty());
    for (table, lines) in ours.iter().filter(|(table, _)| !table.starts_with(but)) {
        assert_eq!(Some(lines), theirs.get(table), "{table}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[tokio::test]
async fn a_database_with_everything_is_copied() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(EVERYTHING).await;
    let (export, copied) = job.copy().await.unwrap();
    let left: Vec<_> = copied.left_out.iter().map(|left| left.object.as_str()).collect();
    assert_eq!(left, ["publication \"published\""], "{:?}", copied.left_out);
    let (ours, theirs) = (job.tenant.database(), job.target.clone());
    // Its columns are in the order of what it inherits from, as pg_restore makes it.
    let arguments = ["--schema-only", "--no-owner", "--no-publications", "--exclude-table=late"];
    assert_same(&job.dump(&ours, &arguments), &job.dump(&theirs, &arguments));
    assert_same_content(&job, &ours, &theirs, "COPY public.late ");
    let verification = job.verify(&export, &copied, 1 << 30).await;
    assert_eq!(verification.differences, []);
    assert_eq!((verification.large_objects, &verification.left_out), (3, &copied.left_out));
    assert!(verification.objects > 100 && verification.tables == 20 && verification.rows > 3000, "{verification:?}");
}

fn assert_same(ours: &str, theirs: &str) {
    // `IN` on a varchar is printed with its casts elsewhere after one round trip, whoever makes it.
    let printed = |line: &str| match line.contains(" = ANY (") {
        true => ["::character varying", "::text[]", "::text", "(", ")"]
            .iter()
            .fold(line.to_owned(), |line, cast| line.replace(cast, "")),
        false => line.to_owned(),
    };
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().map(printed).collect(), theirs.lines().map(printed).collect());
    let differing: Vec<_> = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).take(10).collect();
    assert!(ours == theirs, "{differing:#?}");
}

#[tokio::test]
async fn it_goes_through_a_store_as_well_in_many_parts_and_in_any_order() {
    let world = World::new().await;
    let mut job = Job::new(&world).await;
    (job.chunk, job.jobs) = (Some(16 << 10), 3);
    job.fill(EVERYTHING).await;
    let export = job.export().await;
    let archive = export.schema(&tools()).await.unwrap().bytes().clone();
    let parts: Vec<Part> = export.parts().to_vec();
    assert!(parts.iter().filter(|part| part.name.contains("\"children\"")).count() > 1, "{parts:#?}");
    let mut stored: Vec<(String, Vec<Bytes>)> = Vec::new();
    for part in &parts {
        let bytes: Vec<Bytes> = export.read(part).await.unwrap().try_collect().await.unwrap();
        stored.push((serde_json::to_string(part).unwrap(), bytes));
    }
    let source = export.inventory(Scrutiny::default()).await.unwrap();
    drop(export);
    job.fill("DROP TABLE types; DELETE FROM parents; SELECT lo_unlink(4711)").await;

    let archive = Archive::from_bytes(archive).unwrap();
    let import = job.import().await;
    import.prepare(&archive).await.unwrap();
    stored.reverse();
    let writing = futures::stream::iter(&stored).map(|(part, bytes)| {
        let part: Part = serde_json::from_str(part).unwrap();
        // Cut in another way than they came.
        let bytes: Vec<_> =
            bytes.concat().chunks(777).map(|some| io::Result::Ok(Bytes::copy_from_slice(some))).collect();
        let import = &import;
        async move { import.write(&part, futures::stream::iter(bytes)).await }
    });
    writing.buffer_unordered(5).try_collect::<Vec<_>>().await.unwrap();
    let left_out = import.finish(&archive).await.unwrap();

    let other = job.export_of(&job.target).await.unwrap();
    let copy = other.inventory(Scrutiny { like: Some(&source), ..Scrutiny::default() }).await.unwrap();
    let archive_of_copy = other.schema(&tools()).await.unwrap();
    let verification = compare(
        Side { inventory: &source, archive: &archive },
        Side { inventory: &copy, archive: &archive_of_copy },
        &left_out,
        &RoleMap::default(),
    );
    assert_eq!(verification.differences, []);
}

#[tokio::test]
async fn a_sample_is_of_the_same_rows_on_both_sides() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill("CREATE TABLE big (id int PRIMARY KEY, x text); CREATE TABLE keyless (x text);
              INSERT INTO big SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
              INSERT INTO keyless SELECT md5(n::text) FROM generate_series(1, 20000) n;
              CREATE TABLE bloated (id int PRIMARY KEY, x text); INSERT INTO bloated SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
              DELETE FROM bloated WHERE id > 100").await;
    let (export, copied) = job.copy().await.unwrap();
    let verification = job.verify(&export, &copied, 10_000).await;
    assert_eq!(verification.differences, []);
    let inventory = export.inventory(Scrutiny { sample_above: 10_000, like: None }).await.unwrap();
    assert!(inventory.tables.iter().all(|table| table.sample == 64 && table.checksum != "0"), "{inventory:?}");
}

#[tokio::test]
async fn roles_have_other_names_in_another_claim() {
    let world = World::new().await;
    let mut job = Job::new(&world).await;
    job.fill(EVERYTHING).await;
    let other = world.tenant();
    other.create().await;
    job.login = job_login(&world, &[&job.tenant, &other]).await;
    let pairs = pgtenant_model::Tier::ALL.map(|tier| (job.tenant.role(tier), other.role(tier)));
    job.roles = RoleMap::new(pairs);
    (job.target, job.admin) = (other.database(), other.role(pgtenant_model::Tier::Admin));
    let (export, copied) = job.copy().await.unwrap();
    // A policy names a role that has no rights in the other claim.
    assert_eq!(copied.left_out.len(), 1, "{:?}", copied.left_out);
    let verification = job.verify(&export, &copied, 1 << 30).await;
    assert_eq!(verification.differences, []);
    other.sql(pgtenant_model::Tier::Read, "SELECT FROM parents; SELECT own.twice(2)").await.unwrap();
}

#[tokio::test]
async fn it_is_as_raw_tools_do_it() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(EVERYTHING).await;
    job.copy().await.unwrap();
    let raw = format!("{}-raw", job.tenant.database());
    super::make_target(&job.tenant, &raw).await;
    let file = std::env::temp_dir().join(&raw);
    let dumped = job.tool("pg_dump", &job.tenant.database()).arg("-Fc").arg("-f").arg(&file).status().unwrap();
    assert!(dumped.success());
    let role = format!("--role={}", job.admin);
    let restored =
        job.tool("pg_restore", &raw).args(["--no-owner", "--no-publications", &role]).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let errors = String::from_utf8_lossy(&restored.stderr).into_owned();
    // Comments on extensions.
    assert!(!errors.contains("TABLE"), "{errors}");
    let arguments = ["--schema-only", "--no-owner", "--no-publications", "--no-privileges"];
    assert_same(&job.dump(&raw, &arguments), &job.dump(&job.target, &arguments));
    assert_same_content(&job, &raw, &job.target, "nothing");
}
