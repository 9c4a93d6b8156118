//! Every version, and from one to another.

use std::time::Duration;

use pgtenant_model::Tier;
use pgtenant_postgres::transfer::{
    Flow, Import, ImportOptions, RoleMap, Scrutiny, Side, TransferError, compare, copy_all,
};

use super::{Job, job_login, tools};
use crate::world::World;

fn everything(major: u32) -> String {
    let text = include_str!("everything.sql");
    let lines = text.lines().filter(|line| major >= 15 || !line.contains("NULLS NOT DISTINCT"));
    let text = lines.collect::<Vec<_>>().join("\n");
    if major >= 15 { text } else { text.replace("UNIQUE (parent, note),", "UNIQUE (parent, note)") }
}

#[tokio::test]
async fn every_version_is_copied_or_says_what_it_needs() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let job = Job::new(&world).await;
        job.fill(&everything(major)).await;
        let copied = job.copy().await;
        if tools().for_server(major * 10_000).is_err() {
            let error = copied.unwrap_err();
            assert!(matches!(error, TransferError::NoTools { needed, .. } if needed == major), "{error}");
            continue;
        }
        let (export, copied) = copied.unwrap_or_else(|error| panic!("PostgreSQL {major}: {error}"));
        assert_eq!(copied.left_out.len(), 1, "PostgreSQL {major}: {:#?}", copied.left_out);
        let verification = job.verify(&export, &copied, 1 << 30).await;
        assert_eq!(verification.differences, [], "PostgreSQL {major}");
    }
}

#[tokio::test]
async fn a_newer_server_takes_a_copy_of_an_older_one() {
    if tools().for_server(180_000).is_err() {
        return;
    }
    let (old, new) = (World::of_major(15).await, World::of_major(18).await);
    let job = Job::new(&old).await;
    job.fill(&everything(15)).await;
    let other = new.tenant();
    other.create().await;
    let login = job_login(&new, &[&other]).await;
    let export = job.export().await;
    let roles = RoleMap::new(Tier::ALL.map(|tier| (job.tenant.role(tier), other.role(tier))));
    let options = ImportOptions { admin: other.role(Tier::Admin), roles: roles.clone(), jobs: 2, tools: tools() };
    let import = Import::begin(&login, &other.database(), options).await.unwrap();
    let copied = copy_all(&export, &import, &Flow::new(export.parts(), None)).await.unwrap();

    let source = export.inventory(Scrutiny::default()).await.unwrap();
    let options =
        pgtenant_postgres::transfer::ExportOptions { lock_timeout: Duration::from_secs(1), ..Default::default() };
    let copy = pgtenant_postgres::transfer::Export::begin(&login, &other.database(), &options).await.unwrap();
    let inventory = copy.inventory(Scrutiny { like: Some(&source), ..Scrutiny::default() }).await.unwrap();
    let archive = copy.schema(&tools()).await.unwrap();
    let (source, copy) =
        (Side { inventory: &source, archive: &copied.archive }, Side { inventory: &inventory, archive: &archive });
    let verification = compare(source, copy, &copied.left_out, &roles);
    assert_eq!(verification.differences, []);
    let said = verification.left_out.last().unwrap();
    assert!(said.reason.contains("15") && said.reason.contains("18"), "{said:?}");
}

#[tokio::test]
async fn a_database_without_an_encoding_is_copied_byte_by_byte() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    let (admin, d) = (job.admin.clone(), job.tenant.database());
    for database in [&d, &job.target] {
        world.sql("postgres", &format!("DROP DATABASE \"{database}\"")).await;
        world
            .sql(
                "postgres",
                &format!("CREATE DATABASE \"{database}\" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"),
            )
            .await;
        world
            .sql(
                database,
                &format!(
                    "ALTER SCHEMA public OWNER TO \"{admin}\"; GRANT CREATE ON DATABASE \"{database}\" TO \"{admin}\""
                ),
            )
            .await;
    }
    job.fill("CREATE TABLE t (x text, y regclass); INSERT INTO t VALUES (convert_from('\\xff41', 'SQL_ASCII'), 't'); CREATE TABLE u (x text); INSERT INTO u SELECT x FROM t").await;
    let (export, copied) = job.copy().await.unwrap();
    let verification = job.verify(&export, &copied, 1 << 30).await;
    assert_eq!((verification.differences, verification.rows), (vec![], 2));
}
