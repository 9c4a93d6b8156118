//! What a replica that lost its claim can still do: nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgtenant_model::Tier;
use pgtenant_postgres::{
    ErrorClass, Fence, PostgresError, Server, ServerOptions, Step, Unfenced, apply, drop_half_made, plan, plan_drop,
    run_maintenance, step,
};
use pgtenant_testkit::unique;

use crate::servers::until;
use crate::world::{World, value};

/// Holds for so many checks, then says that it is lost.
struct Falls(AtomicU32);

impl Fence for Falls {
    fn remaining(&self) -> Option<Duration> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        self.0.store(left, Ordering::Relaxed);
        Some(Duration::from_secs(60))
    }
}

/// Said to hold while it does not: as a process sees it that stands still between looking and sending.
struct Stale;

impl Fence for Stale {
    fn remaining(&self) -> Option<Duration> {
        Some(Duration::from_nanos(1))
    }
}

#[tokio::test]
async fn steps_are_announced_before_and_after() {
    let world = World::new().await;
    let tenant = world.tenant();
    let plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    let steps = Mutex::new(Vec::new());
    let on_step = |step: Step| steps.lock().unwrap().push((step.name, step.done));
    let mut session = world.server.maintenance().await.unwrap();
    apply(&world.server, &mut session, &plan, &Unfenced, &on_step).await.unwrap();
    let names = [step::CREATE_DATABASE, step::ROLES, step::INSIDE];
    let expected: Vec<_> = names.into_iter().flat_map(|name| [(name, false), (name, true)]).collect();
    assert_eq!(steps.into_inner().unwrap(), expected);
}

#[tokio::test]
async fn a_fence_is_looked_at_before_each_statement() {
    let world = World::new().await;
    let tenant = world.tenant();
    for checks in 0..3 {
        let plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
        let mut session = world.server.maintenance().await.unwrap();
        let fence = Falls(checks.into());
        let error = apply(&world.server, &mut session, &plan, &fence, &|_| {}).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
        drop(session);
        tenant.drop().await;
    }
}

#[tokio::test]
async fn a_batch_that_comes_too_late_does_nothing() {
    let world = World::new().await;
    let tenant = world.tenant();
    let mut plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    let server = &world.server;
    let mut session = server.maintenance().await.unwrap();
    // An empty, closed database is all that it can leave.
    let error = run_maintenance(server, &mut session, &plan, &Stale, &|_| {}).await.unwrap_err();
    assert!(matches!(error, PostgresError::Fenced { .. }), "{error}");
    let observed = tenant.observe().await;
    assert!(observed.roles.is_empty() && !observed.database.unwrap().allow_connections);

    plan.batches.remove(0);
    run_maintenance(server, &mut session, &plan, &Unfenced, &|_| {}).await.unwrap();
    let inside = pgtenant_postgres::connect_inside(server, &plan).await.unwrap();
    let error = pgtenant_postgres::run_inside(server, inside, &plan, &Stale, &|_| {}).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
    tenant.repair().await;

    let removal = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap();
    let error = run_maintenance(server, &mut session, &removal, &Stale, &|_| {}).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
    tenant.assert_settled().await;
}

/// A process that stands still between the fence's check and `DROP DATABASE`: by then the server has ended its session.
#[tokio::test]
async fn a_drop_that_comes_too_late_reaches_nobody() {
    struct Short;
    impl Fence for Short {
        fn remaining(&self) -> Option<Duration> {
            Some(Duration::from_millis(300))
        }
    }
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let mut removal = plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap();
    // Stands still after the guard was set: another drop, of nothing, is sent first.
    let drop_database = removal.batches.remove(1);
    let drop_roles = removal.batches.remove(1);
    assert_eq!((drop_database.step, drop_roles.step), (step::DROP_DATABASE, step::DROP_ROLES));
    let mut session = world.server.maintenance().await.unwrap();
    let mut nothing = removal.clone();
    nothing.batches = vec![drop_of_nothing(&drop_database)];
    run_maintenance(&world.server, &mut session, &nothing, &Short, &|_| {}).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    nothing.batches = vec![drop_database];
    let error = run_maintenance(&world.server, &mut session, &nothing, &Unfenced, &|_| {}).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    tenant.assert_settled().await;
}

fn drop_of_nothing(like: &pgtenant_postgres::Batch) -> pgtenant_postgres::Batch {
    let database = pgtenant_testkit::unique("nothing");
    let change = pgtenant_postgres::Change::Database(pgtenant_postgres::DatabaseChange::Drop { database });
    pgtenant_postgres::Batch { changes: vec![change], ..like.clone() }
}

/// A replica that stands still after it was told that nobody claims the database: somebody may claim it meanwhile.
#[tokio::test]
async fn a_half_made_database_is_dropped_at_once_or_not_at_all() {
    let world = World::new().await;
    let tenant = world.tenant();
    let mut made = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    made.batches.truncate(1);
    tenant.apply(&made).await.unwrap();
    let database = tenant.database();
    let options = ServerOptions { application_name: unique("stalls"), ..world.server.options().clone() };
    let sessions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", options.application_name);
    let server = Server::new(options).unwrap();

    let mut root = world.root("postgres").await;
    let stalls = async {
        let begun = Instant::now();
        while value::<i64>(&mut root, &sessions).await > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the session goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, PostgresError>(false)
    };
    let mut session = server.maintenance().await.unwrap();
    let error = drop_half_made(&mut session, &database, stalls).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    drop(session);
    assert!(tenant.observe().await.database.is_some());

    let mut session = server.maintenance().await.unwrap();
    let claimed = async |claimed: bool| Ok::<_, PostgresError>(claimed);
    assert!(!drop_half_made(&mut session, &database, claimed(true)).await.unwrap());
    assert!(tenant.observe().await.database.is_some());
    assert!(drop_half_made(&mut session, &database, claimed(false)).await.unwrap());
    assert_eq!(tenant.observe().await.database, None);
    drop(session);
    // A session with such a limit is not used again.
    until("it is closed", || server.connections() == 0).await;
}

/// Two replicas that both believe they hold the claim: each failure is one to try again after, and the end is right.
#[tokio::test]
async fn two_at_once_end_where_one_ends() {
    let world = World::new().await;
    let tenant = world.tenant();
    let desired = tenant.with_passwords();
    let replica = async || {
        for _ in 0..100 {
            let plan = match plan(&desired, &tenant.observe().await) {
                Ok(plan) => plan,
                Err(refusal) => panic!("{refusal}"),
            };
            match tenant.apply(&plan).await {
                Ok(()) => return,
                Err(error) => {
                    let again = [ErrorClass::Conflict, ErrorClass::Transient, ErrorClass::Moved];
                    assert!(again.contains(&error.class()), "{:?}: {error}", error.class());
                }
            }
        }
        panic!("it did not end");
    };
    tokio::join!(replica(), replica(), replica());
    tenant.assert_settled().await;
    tenant.sql(Tier::Admin, "CREATE TABLE t ()").await.unwrap();
    tenant.sql(Tier::Read, "SELECT FROM t").await.unwrap();
}

/// Neither errors nor the server's activity view hold a password; a failed batch says which statement failed.
#[tokio::test]
async fn an_error_names_the_statement_without_its_verifier() {
    let world = World::new().await;
    let tenant = world.tenant();
    let plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    // Made by somebody else between the look and the change.
    let write = tenant.role(Tier::Write);
    world.sql("postgres", &format!("CREATE ROLE \"{write}\"")).await;
    let error = tenant.apply(&plan).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("create role {write:?} [CREATE ROLE")), "{text}");
    assert!(text.contains("PASSWORD '<withheld>'") && text.contains("SQLSTATE 42710"), "{text}");
    assert!(!format!("{error:?}").contains("SCRAM"), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Conflict);
    // All of the batch was undone.
    assert!(!tenant.observe().await.roles.contains_key(&tenant.role(Tier::Admin)));
    let mut root = world.root("postgres").await;
    let comment: Option<String> = value(
        &mut root,
        &format!(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'",
            tenant.database()
        ),
    )
    .await;
    assert_eq!(comment, None);
    world.sql("postgres", &format!("DROP ROLE \"{write}\"")).await;
    tenant.drop().await;
}
