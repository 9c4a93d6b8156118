//! What goes wrong, and what can be done after it.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use pgtenant_model::Tier;
use pgtenant_postgres::transfer::{
    Export, ExportOptions, Flow, Import, ImportOptions, Part, PartKind, Scrutiny, Tools, TransferError, copy_all,
};
use pgtenant_postgres::{ErrorClass, ServerOptions};
use sqlx::ConnectOptions as _;

use super::{Job, tools};
use crate::world::{World, run, value};

const BIG: &str = "CREATE TABLE big (id int, x text); INSERT INTO big SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 30000) n;
                   CREATE TABLE small (x int); INSERT INTO small VALUES (1)";

fn part<'a>(export: &'a Export, name: &str) -> &'a Part {
    export.parts().iter().find(|part| part.name.contains(name)).unwrap()
}

async fn end(world: &World, job: &Job<'_>, doing: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '{doing}%' AND datname LIKE '{}%'",
        job.login.username,
        job.tenant.database()
    );
    assert!(value::<bool>(&mut world.root("postgres").await, &sql).await, "{doing}");
}

async fn rows(world: &World, job: &Job<'_>, table: &str) -> i64 {
    value(&mut world.root(&job.target).await, &format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test]
async fn a_part_whose_connection_broke_is_copied_again_without_double_rows() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(BIG).await;
    let (export, import) = (job.export().await, job.import().await);
    let archive = export.schema(&tools()).await.unwrap();
    import.prepare(&archive).await.unwrap();
    let big = part(&export, "big");

    // On the side of the source.
    let mut stream = export.read(big).await.unwrap();
    let first = stream.try_next().await.unwrap();
    end(&world, &job, "COPY").await;
    let stream = futures::stream::iter(first.map(io::Result::Ok)).chain(stream);
    let error = import.write(big, stream).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    assert!(error.to_string().contains("read \"public\".\"big\""), "{error}");
    assert_eq!(rows(&world, &job, "big").await, 0);

    // On the side of the target, while it waits for more.
    let stream = export.read(big).await.unwrap();
    let (sender, waiting) = tokio::sync::oneshot::channel::<()>();
    let stalled = stream.take(3).chain(futures::stream::once(async move {
        waiting.await.ok();
        Ok(Bytes::new())
    }));
    let writing = import.write(big, stalled);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'COPY%'",
            job.target
        );
        assert!(value::<bool>(&mut world.root("postgres").await, &sql).await);
        sender.send(()).unwrap();
    };
    let (error, ()) = tokio::join!(writing, ending);
    let error = error.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    assert_eq!(rows(&world, &job, "big").await, 0);

    // Again; and once more after a commit that did not happen.
    let admin = job.tenant.role(Tier::Admin);
    let trap = format!(
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
         GRANT EXECUTE ON FUNCTION trap() TO \"{admin}\";
         CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON small DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap()"
    );
    world.sql(&job.target, &trap).await;
    let small = part(&export, "small");
    let error = import.write(small, export.read(small).await.unwrap()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    world.sql(&job.target, "DROP FUNCTION trap CASCADE").await;
    for part in export.parts() {
        import.write(part, export.read(part).await.unwrap()).await.unwrap();
    }
    import.finish(&archive).await.unwrap();
    assert_eq!((rows(&world, &job, "big").await, rows(&world, &job, "small").await), (30_000, 1));
}

#[tokio::test]
async fn a_copy_goes_on_when_one_of_its_connections_breaks() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(BIG).await;
    let (export, import) = (job.export().await, job.import().await);
    let flow = Flow::new(export.parts(), Some(10_000_000));
    let copying = copy_all(&export, &import, &flow);
    let ending = async {
        let mut root = world.root("postgres").await;
        let reading = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE 'COPY \"public\".\"big\"%' AND usename = '{}' AND state = 'active'",
            job.target, job.login.username
        );
        while value::<i64>(&mut root, &reading).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        run(&mut root, &reading.replace("count(*)", "pg_terminate_backend(pid)")).await.unwrap();
    };
    let (copied, ()) = tokio::join!(copying, ending);
    let verification = job.verify(&export, &copied.unwrap(), 1 << 30).await;
    assert_eq!(verification.differences, []);
}

#[tokio::test]
async fn whoever_stops_waiting_ends_what_runs() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill("CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 3); CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
              'BEGIN IF current_database() LIKE ''%-copy'' THEN PERFORM pg_sleep(600); END IF; RETURN 1; END'; CREATE INDEX ON t (slow(x)); CREATE INDEX ON t (slow(x + 1))").await;
    let (export, import) = (job.export().await, job.import().await);
    let mut root = world.root("postgres").await;
    let of_job = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", job.login.username);
    let building = format!("{of_job} AND query LIKE 'CREATE INDEX%' AND state = 'active'");
    let both_are_built = async {
        while value::<i64>(&mut root, &building).await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let flow = Flow::new(export.parts(), None);
    tokio::select! {
        copied = copy_all(&export, &import, &flow) => panic!("{copied:?}"),
        () = both_are_built => {}
    }
    drop((export, import));
    let begun = Instant::now();
    while value::<i64>(&mut root, &of_job).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "its sessions go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn tables_that_can_not_be_read_are_named() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    let d = job.tenant.database();
    world.sql(&d, "CREATE TABLE public.\"not mine\" (); CREATE SEQUENCE public.nor_this").await;
    let error = job.export_of(&d).await.unwrap_err();
    assert!(matches!(error, TransferError::Unreadable { .. }), "{error}");
    assert!(
        error.to_string().starts_with("\"public\".\"not mine\", \"public\".\"nor_this\" can not be read"),
        "{error}"
    );
    world.sql(&d, "DROP TABLE public.\"not mine\"; DROP SEQUENCE public.nor_this").await;
    job.fill("CREATE TABLE hidden (); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY").await;
    let error = job.export_of(&d).await.unwrap_err();
    assert!(error.to_string().contains("\"hidden\"") && error.to_string().contains("NO FORCE ROW LEVEL"), "{error}");
    job.fill("ALTER TABLE hidden DISABLE ROW LEVEL SECURITY").await;
    job.export().await;
}

#[tokio::test]
async fn a_change_of_a_definition_waits_and_is_waited_for_with_a_limit() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(BIG).await;
    let d = job.tenant.database();
    let mut changing = job.tenant.options(Tier::Admin).connect().await.unwrap();
    run(&mut changing, "BEGIN; ALTER TABLE small ADD y int").await.unwrap();
    let options = ExportOptions { lock_timeout: Duration::from_millis(200), ..ExportOptions::default() };
    let begin = async || Export::begin(&job.login, &d, &options).await;
    let error = begin().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    run(&mut changing, "ROLLBACK").await.unwrap();

    let export = begin().await.unwrap();
    let small = part(&export, "small").clone();
    let waiting = tokio::spawn(async move { run(&mut changing, "ALTER TABLE small ADD y int").await });
    let mut root = world.root("postgres").await;
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{d}' AND wait_event_type = 'Lock'");
    while value::<i64>(&mut root, &waits).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It does not queue behind whoever waits for the export itself.
    let Err(error) = export.read(&small).await else { panic!("it was read") };
    assert_eq!(error.class(), ErrorClass::Conflict, "{error}");
    drop(export);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_cut_short_or_damaged_is_not_taken() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(
        "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2); SELECT lo_from_bytea(5, 'five'); CREATE SEQUENCE s",
    )
    .await;
    let (export, import) = (job.export().await, job.import().await);
    import.prepare(&export.schema(&tools()).await.unwrap()).await.unwrap();
    for part in export.parts() {
        let bytes: Vec<Bytes> = export.read(part).await.unwrap().try_collect().await.unwrap();
        let bytes = bytes.concat();
        let cut = Bytes::copy_from_slice(&bytes[..bytes.len() - 3]);
        let error = import.write(part, futures::stream::iter([Ok(cut)])).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Refused, "{error}");
        let lost = futures::stream::iter([Ok(Bytes::from(bytes)), Err(io::Error::other("the disk is gone"))]);
        let error = import.write(part, lost).await.unwrap_err();
        assert!(matches!(error, TransferError::Data { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Transient);
    }
    assert_eq!(rows(&world, &job, "t").await, 0);
    assert!(export.parts().iter().any(|part| matches!(part.kind, PartKind::LargeObjects(_))));
}

#[tokio::test]
async fn only_an_empty_database_becomes_a_copy() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill("CREATE TABLE t (x int)").await;
    job.copy().await.unwrap();
    let error = job.copy().await.unwrap_err();
    assert!(matches!(error, TransferError::NotEmpty { .. }) && error.to_string().contains("public.t"), "{error}");
}

#[tokio::test]
async fn data_that_do_not_fit_their_definitions_stop_a_copy() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    // A function that says something else in the copy, as one that looks at another table does.
    job.fill(
        "CREATE FUNCTION here() RETURNS bool LANGUAGE sql AS $$ SELECT current_database() NOT LIKE '%-copy' $$;
              CREATE TABLE t (x int CHECK (here())); INSERT INTO t VALUES (1)",
    )
    .await;
    let error = job.copy().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Refused, "{error}");
    assert!(error.to_string().contains("write \"public\".\"t\"") && error.to_string().contains("t_check"), "{error}");
}

#[tokio::test]
async fn what_a_tenant_could_not_have_made_is_left_out_and_said() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    let (d, admin) = (job.tenant.database(), job.tenant.role(Tier::Admin));
    job.fill("CREATE TABLE t (x int); GRANT SELECT ON t TO \"{read}\"").await;
    let sql = format!(
        "CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; GRANT USAGE ON FOREIGN SERVER files TO \"{admin}\";
         CREATE FOREIGN TABLE lines (x text) SERVER files OPTIONS (filename '/dev/null'); COMMENT ON FOREIGN TABLE lines IS 'lines'; ALTER TABLE lines OWNER TO \"{admin}\";
         CREATE FUNCTION public.noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION public.noted();
         CREATE SUBSCRIPTION follows CONNECTION 'host=nowhere' PUBLICATION x WITH (connect = false);
         CREATE USER MAPPING FOR \"{admin}\" SERVER files;
         CREATE FUNCTION public.in_c(float8) RETURNS float8 LANGUAGE internal AS 'dsin';
         CREATE ROLE \"{d}-visitor\"; GRANT SELECT ON t TO \"{d}-visitor\"; ALTER DATABASE \"{d}\" SET work_mem = '7MB'"
    );
    world.sql(&d, &sql.replace("CREATE SUBSCRIPTION", "COMMIT; CREATE SUBSCRIPTION")).await;
    world.sql(&d, &format!("ALTER TABLE t OWNER TO \"{}\"", job.tenant.role(Tier::Write))).await;
    let export = job.export().await;
    let archive = export.schema(&tools()).await.unwrap();
    world.sql(&d, &format!("REVOKE ALL ON t FROM \"{d}-visitor\"; DROP ROLE \"{d}-visitor\"")).await;
    let import = job.import().await;
    import.prepare(&archive).await.unwrap();
    for part in export.parts() {
        import.write(part, export.read(part).await.unwrap()).await.unwrap();
    }
    let mut left_out = import.finish(&archive).await.unwrap();
    left_out.extend(export.left_out().to_vec());
    let mut objects: Vec<_> = left_out.iter().map(|left| left.object.replace(&d, "D")).collect();
    objects.sort();
    let expected = [
        "database properties \"D\"",
        "event trigger \"noted\"",
        "extension \"file_fdw\"",
        "extension \"postgres_fdw\"",
        "foreign table \"public\".\"lines\"",
        "function \"public\".\"in_c(double precision)\"",
        "ownership by role \"D-write\"",
        "ownership by role \"postgres\"",
        "privileges on \"public\".\"TABLE t\" for \"D-visitor\"",
        "server \"files\"",
        "subscription \"follows\"",
        "user mapping \"USER MAPPING D-admin SERVER files\"",
    ];
    assert_eq!(objects, expected, "{left_out:#?}");
    assert!(left_out.iter().all(|left| !left.remedy.is_empty()));
    let source = export.inventory(Scrutiny::default()).await.unwrap();
    let other = job.export_of(&job.target).await.unwrap();
    let copy = other.inventory(Scrutiny { like: Some(&source), ..Scrutiny::default() }).await.unwrap();
    let (ours, theirs) = (super::Side { inventory: &source, archive: &archive }, other.schema(&tools()).await.unwrap());
    let verification = super::compare(ours, super::Side { inventory: &copy, archive: &theirs }, &left_out, &job.roles);
    let differences: Vec<_> = verification.differences.iter().map(|finding| finding.object.as_str()).collect();
    assert!(differences.is_empty(), "{:?}", verification.differences);
    world.sql(&d, "ALTER SUBSCRIPTION follows DISABLE").await;
    world.sql(&d, "ALTER SUBSCRIPTION follows SET (slot_name = NONE)").await;
    world.sql(&d, "DROP SUBSCRIPTION follows").await;
}

#[tokio::test]
async fn what_rows_need_is_not_left_out() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    world.sql(&job.tenant.database(), "CREATE EXTENSION cube SCHEMA public; CREATE EXTENSION earthdistance SCHEMA public; CREATE EXTENSION isn SCHEMA public").await;
    world.sql("postgres", "SELECT 1").await;
    job.fill("CREATE TABLE books (number isbn)").await;
    // It can be made by nobody but a superuser in the copy.
    world.sql(&job.tenant.database(), "UPDATE pg_extension SET extname = 'isn_of_old' WHERE extname = 'isn'").await;
    let TransferError::Refused { failures } = job.copy().await.unwrap_err() else { panic!("it was copied") };
    let refused: Vec<_> = failures.iter().map(|failure| failure.object.as_str()).collect();
    assert!(
        refused.contains(&"extension \"isn_of_old\"") && refused.contains(&"table \"public\".\"books\""),
        "{failures:?}"
    );
}

#[tokio::test]
async fn what_an_extension_says_is_the_tenants_is_copied() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    // As an extension's script does it; the rows that it brings itself are in both.
    for database in [job.tenant.database(), job.target.clone()] {
        let sql = format!(
            "SET ROLE \"{}\"; CREATE EXTENSION hstore; CREATE TABLE settings (id int); CREATE SEQUENCE counter; RESET ROLE;
             ALTER EXTENSION hstore ADD TABLE settings; ALTER EXTENSION hstore ADD SEQUENCE counter; INSERT INTO settings VALUES (1);
             UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass, 'counter'], extcondition = ARRAY['WHERE id > 1', ''] WHERE extname = 'hstore'",
            job.admin
        );
        world.sql(&database, &sql).await;
    }
    world.sql(&job.tenant.database(), "INSERT INTO settings VALUES (2), (3); SELECT setval('counter', 9)").await;
    let (export, copied) = job.copy().await.unwrap();
    assert_eq!(copied.left_out, []);
    assert_eq!(rows(&world, &job, "settings").await, 3);
    let last: i64 = value(&mut world.root(&job.target).await, "SELECT last_value FROM counter").await;
    assert_eq!(last, 9);
    assert_eq!(job.verify(&export, &copied, 1 << 30).await.differences, []);
    // Where the extension is another one, it is said.
    world.sql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", job.target)).await;
    super::make_target(&job.tenant, &job.target).await;
    let (export, copied) = job.copy().await.unwrap();
    let mut left: Vec<_> = copied.left_out.iter().map(|left| left.object.as_str()).collect();
    left.sort();
    assert_eq!(left, ["content of \"public\".\"settings\"", "content of sequence \"public\".\"counter\""]);
    assert_eq!(job.verify(&export, &copied, 1 << 30).await.differences, []);
}

#[tokio::test]
async fn an_export_whose_snapshot_is_gone_says_so() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(BIG).await;
    let export = job.export().await;
    world
        .sql(
            "postgres",
            &format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}'",
                job.login.username
            ),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Err(error) = export.read(part(&export, "big")).await else { panic!("it was read") };
    assert!(error.to_string().contains("begin the export again"), "{error}");
    assert_eq!(error.class(), ErrorClass::Moved);
}

#[tokio::test]
async fn without_programs_it_says_what_to_install() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    let error = job.export().await.schema(&Tools::default()).await.unwrap_err();
    assert!(error.to_string().contains("postgresql-client-15"), "{error}");
    let wrong = ServerOptions { password: "wrong".to_owned().into(), ..job.login.clone() };
    let (admin, roles) = (job.admin.clone(), job.roles.clone());
    let options = ImportOptions { admin, roles, jobs: 1, tools: tools() };
    let error = Import::begin(&wrong, &job.target, options).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Refused, "{error}");
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
}
