//! A copy takes the place of a claim's database, and a job's login copies into it.

use std::time::Duration;

use pgtenant_model::Tier;
use pgtenant_postgres::{
    Beside, BesideKind, Desired, ErrorClass, Exchange, Job, JobOptions, PostgresError, Rehearsal, Step, Unfenced,
    beside, empty, end_claims_sessions, end_job, exchange, jobs, make_public, server_version,
};
use sqlx::ConnectOptions;
use uuid::Uuid;

use crate::world::{Tenant, World, run, sqlstate, value};

impl Tenant<'_> {
    /// A copy beside it, made by the planner that makes claims.
    async fn copy(&self, restore: Uuid) -> Tenant<'_> {
        let copy = Beside::new(BesideKind::Copy, &self.desired.key, restore);
        let desired = Desired { comment: copy.comment(), database: copy.database, ..self.desired.clone() };
        let copy = Tenant { world: self.world, desired, passwords: self.passwords.clone() };
        copy.repair().await;
        copy
    }

    async fn exchange(&self, comes: &str, kind: BesideKind, restore: Uuid) -> Result<(), PostgresError> {
        let goes = Beside::new(kind, &self.desired.key, restore);
        let wanted = Exchange { comes: comes.to_owned(), goes };
        let server = &self.world.server;
        let mut session = server.maintenance().await.unwrap();
        exchange(server, &mut session, &wanted, &Unfenced, &|_: Step| {}).await
    }

    async fn content(&self) -> String {
        let mut db = self.options(Tier::Read).connect().await.unwrap();
        value(&mut db, "select said from content").await
    }

    async fn beside(&self) -> Vec<BesideKind> {
        let all = beside(&mut self.world.server.maintenance().await.unwrap()).await.unwrap();
        all.into_iter().filter(|one| one.key == self.desired.key).map(|one| one.kind).collect()
    }
}

#[tokio::test]
async fn a_copy_takes_the_place_and_gives_it_back_on_every_version() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let tenant = world.tenant();
        tenant.create().await;
        tenant.sql(Tier::Admin, "create table content as select 'before' as said").await.unwrap();
        let restore = Uuid::now_v7();
        let copy = tenant.copy(restore).await;
        copy.sql(Tier::Admin, "create table content as select 'restored' as said").await.unwrap();
        tenant.assert_settled().await;
        assert_eq!(tenant.beside().await, [BesideKind::Copy]);

        // Whoever is connected is cut off, by the claim's own roles and by second logins.
        let mut application = tenant.options(Tier::Write).connect().await.unwrap();
        tenant.exchange(&copy.database(), BesideKind::Before, restore).await.unwrap();
        assert!(run(&mut application, "select 1").await.is_err(), "PostgreSQL {major}: its session was ended");
        assert_eq!(tenant.content().await, "restored");
        tenant.assert_settled().await;
        assert_eq!(tenant.beside().await, [BesideKind::Before]);

        let before = Beside::new(BesideKind::Before, &tenant.desired.key, restore).database;
        let into = tenant.options(Tier::Read).database(&before).connect().await;
        assert!(into.is_err(), "nobody reaches what was put aside");
        tenant.exchange(&before, BesideKind::After, restore).await.unwrap();
        assert_eq!(tenant.content().await, "before");
        tenant.assert_settled().await;
        assert_eq!(tenant.beside().await, [BesideKind::After]);
    }
}

#[tokio::test]
async fn who_can_not_be_cut_off_keeps_the_database_as_it_was() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    tenant.sql(Tier::Admin, "create table content as select 'before' as said").await.unwrap();
    let restore = Uuid::now_v7();
    let copy = tenant.copy(restore).await;
    let superuser = world.root(&tenant.database()).await;
    let error = tenant.exchange(&copy.database(), BesideKind::Before, restore).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("55006"), "{error}");
    drop(superuser);
    assert_eq!(tenant.content().await, "before", "it is open again");
    assert_eq!(tenant.beside().await, [BesideKind::Copy]);
}

#[tokio::test]
async fn a_jobs_login_is_its_claims_and_no_more_on_every_version() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let (tenant, other) = (world.tenant(), world.tenant());
        tenant.create().await;
        other.create().await;
        let (id, valid) = (Uuid::now_v7(), Duration::from_secs(3600));
        let version = tenant.observe().await.server.version;
        let mut session = world.server.maintenance().await.unwrap();
        let mut begin = async |acts_as| {
            let (login, key) = (Job::name(id), &tenant.desired.key);
            let options = JobOptions { login, key, acts_as, replicates: false, valid };
            Job::begin(&world.server, &mut session, options).await.unwrap()
        };
        let first = begin(None).await;
        let job = begin(Some(Tier::Admin)).await;
        assert_eq!(job.login, first.login);
        let log_in = async |job: &Job, database: String| {
            world.server.log_in(&database, &job.login, &job.password).await.map(drop)
        };
        assert!(log_in(&first, tenant.database()).await.is_err(), "who had it before is out");
        log_in(&job, tenant.database()).await.unwrap();
        assert!(log_in(&job, other.database()).await.is_err());
        let options = world.superuser.options.clone().username(&job.login);
        let options = options.password(secrecy::ExposeSecret::expose_secret(&job.password));
        let mut db = options.database(&tenant.database()).connect().await.unwrap();
        run(&mut db, "create table made as select 1 as n").await.unwrap();
        let owner: String = value(&mut db, "select tableowner::text from pg_tables where tablename = 'made'").await;
        assert_eq!(owner, tenant.role(Tier::Admin));
        // What a tenant's code could try with it.
        run(&mut db, "reset role").await.unwrap();
        for sql in ["create role evil", "set role prov_a", "create database evil"] {
            assert_eq!(sqlstate(run(&mut db, sql).await), "42501", "PostgreSQL {major}: {sql}");
        }
        tenant.assert_settled().await;

        end_job(&world.server, &mut session, version, &job.login).await.unwrap();
        end_job(&world.server, &mut session, version, &job.login).await.unwrap();
        assert!(run(&mut db, "select 1").await.is_err(), "its session was ended");
        assert!(!jobs(&mut session).await.unwrap().contains(&job.login));
        tenant.assert_settled().await;
    }
}

impl Tenant<'_> {
    /// Empties it, or tries to, on a login that is made for that.
    async fn empty(&self, rehearsal: Rehearsal) -> Result<(), PostgresError> {
        let server = &self.world.server;
        let mut session = server.maintenance().await.unwrap();
        let version = server_version(&mut session).await.unwrap();
        let (key, login, acts_as) = (&self.desired.key, Job::name(Uuid::now_v7()), Some(Tier::Admin));
        let options = JobOptions { login, key, acts_as, replicates: false, valid: Duration::from_secs(60) };
        let job = Job::begin(server, &mut session, options).await.unwrap();
        let filled = Desired { filled_by: vec![job.login.clone()], ..self.desired.clone() };
        let closed = Tenant { world: self.world, desired: filled, passwords: self.passwords.clone() };
        closed.repair().await;
        end_claims_sessions(server, &mut session, key, &Unfenced).await.unwrap();
        let mut inside = server.log_in(&self.database(), &job.login, &job.password).await.unwrap();
        let emptied = empty(&mut inside, key, rehearsal, &Unfenced).await;
        drop(inside);
        end_job(server, &mut session, version, &job.login).await.unwrap();
        emptied?;
        if rehearsal == Rehearsal::No {
            make_public(server, key).await.unwrap();
        }
        Ok(())
    }
}

#[tokio::test]
async fn it_is_emptied_with_nobody_in_it_and_is_as_new_on_every_version() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let tenant = world.tenant();
        tenant.create().await;
        let made = "create table content as select 'before' as said; create view v as select * from content;
                    create schema more; create type more.kind as enum ('a'); create table more.t (k more.kind);
                    create type more.pair as (a int); create cast (more.pair as text) with inout;
                    create function f() returns int language sql as 'select 1'; select lo_create(4711)";
        tenant.sql(Tier::Admin, made).await.unwrap();
        tenant.sql(Tier::Write, "insert into content values ('written')").await.unwrap();
        let mut application = tenant.options(Tier::Write).connect().await.unwrap();

        tenant.empty(Rehearsal::Yes).await.unwrap();
        assert!(run(&mut application, "select 1").await.is_err(), "PostgreSQL {major}: its session was ended");
        assert!(tenant.options(Tier::Read).connect().await.is_err(), "PostgreSQL {major}: nobody is let in");
        tenant.repair().await;
        assert_eq!(tenant.content().await, "before", "PostgreSQL {major}: it was only tried");

        tenant.empty(Rehearsal::No).await.unwrap();
        tenant.empty(Rehearsal::No).await.unwrap();
        tenant.repair().await;
        tenant.assert_settled().await;
        let mut db = tenant.options(Tier::Admin).connect().await.unwrap();
        let left = "select (select count(*) from pg_class where relnamespace = 'public'::regnamespace)
                         + (select count(*) from pg_largeobject_metadata) + (select count(*) from pg_namespace where nspname = 'more')";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut db).await.unwrap();
        assert_eq!(left, 0, "PostgreSQL {major}");
        tenant.sql(Tier::Admin, made).await.unwrap();
        assert_eq!(tenant.content().await, "before", "PostgreSQL {major}");
    }
}

#[tokio::test]
async fn what_keeps_it_from_being_emptied_is_named_with_what_to_do_on_every_version() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let tenant = world.tenant();
        tenant.create().await;
        tenant.sql(Tier::Admin, "create table content as select 'before' as said").await.unwrap();
        let refused = async |named: &str| {
            let error = tenant.empty(Rehearsal::Yes).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Refused, "PostgreSQL {major}: {error}");
            let told = error.to_string();
            for part in [named, "its owner, or a superuser, drops what depends on it first"] {
                assert!(told.contains(part), "PostgreSQL {major}: no {part:?} in {told}");
            }
            assert!(error.advice().is_none() && !told.contains("CASCADE"), "PostgreSQL {major}: {error}");
            tenant.repair().await;
            assert_eq!(tenant.content().await, "before", "PostgreSQL {major}");
        };
        let (made, gone) =
            ("create schema others; create view others.v as select * from content", "drop schema others cascade");
        world.sql(&tenant.database(), made).await;
        refused("view others.v depends on table public.content").await;
        world.sql(&tenant.database(), gone).await;

        let function = "create function f(point) returns macaddr language sql as 'select null::macaddr'";
        tenant.sql(Tier::Admin, function).await.unwrap();
        world.sql(&tenant.database(), "create cast (point as macaddr) with function f(point)").await;
        refused("cast from point to macaddr depends on function public.f(point)").await;
        world.sql(&tenant.database(), "drop cast (point as macaddr)").await;
        tenant.empty(Rehearsal::Yes).await.unwrap();
    }
}
