//! The laws, on a real server: whatever was done by hand, one plan puts it right, and nobody else notices.

use pgtenant_model::Tier;
use pgtenant_postgres::{Change, Observed, generate_password, plan};
use pgtenant_testkit::unique;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{Tenant, World, run};

/// Something that somebody with all privileges does by hand: D, R, W, A stand for the claim's database and roles, O for
/// another tenant's admin, X for a role that is nobody's.
const BY_HAND: &[&str] = &[
    "ALTER ROLE R NOLOGIN",
    "ALTER ROLE W CREATEDB CREATEROLE",
    "ALTER ROLE A NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2020-02-02'",
    "ALTER ROLE A SET role = 'R'",
    "ALTER ROLE R IN DATABASE D SET role = 'W'",
    "COMMENT ON ROLE W IS NULL",
    "COMMENT ON DATABASE D IS NULL",
    "SET ROLE pgtenant; GRANT R TO X",
    "SET ROLE pgtenant; GRANT A TO X WITH ADMIN OPTION",
    "SET ROLE pgtenant; GRANT O TO W",
    "SET ROLE pgtenant; GRANT W TO O",
    "SET ROLE pgtenant; GRANT A TO R",
    "GRANT ALL ON DATABASE D TO PUBLIC",
    "GRANT CONNECT ON DATABASE D TO X, O",
    "GRANT CREATE ON DATABASE D TO W WITH GRANT OPTION",
    "GRANT ALL ON DATABASE D TO A WITH GRANT OPTION; SET ROLE A; GRANT CONNECT ON DATABASE D TO O, W",
    "REVOKE ALL ON DATABASE D FROM R, W, A",
    "ALTER DATABASE D CONNECTION LIMIT 0",
    "ALTER DATABASE D SET work_mem = '9MB'; ALTER DATABASE D SET search_path = 'x'",
    "ALTER DATABASE D OWNER TO A",
    "ALTER SCHEMA public OWNER TO W",
    "ALTER SCHEMA public OWNER TO pgtenant",
    "ALTER SCHEMA reporting RENAME TO other",
    "DROP SCHEMA reporting CASCADE",
    "GRANT ALL ON SCHEMA public TO PUBLIC, R, X",
    "REVOKE ALL ON SCHEMA public FROM R, W; REVOKE ALL ON SCHEMA reporting FROM W",
    "REVOKE ALL ON SCHEMA reporting FROM A",
    "REVOKE ALL ON DATABASE D FROM pgtenant",
    "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM R, W",
    "SET ROLE A; CREATE TABLE IF NOT EXISTS reporting.late (id serial); REVOKE ALL ON reporting.late FROM W",
    "REVOKE UPDATE ON t FROM W; REVOKE ALL ON SEQUENCE t_id_seq FROM W, R",
    "ALTER DEFAULT PRIVILEGES FOR ROLE A IN SCHEMA public REVOKE ALL ON TABLES FROM R, W",
    "ALTER DEFAULT PRIVILEGES FOR ROLE A IN SCHEMA public REVOKE USAGE ON SEQUENCES FROM W",
    "DROP EXTENSION pg_trgm",
    "DROP OWNED BY R; DROP ROLE R",
    "REASSIGN OWNED BY W TO A; DROP OWNED BY W; DROP ROLE W",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_plan_puts_right_whatever_was_done_by_hand() {
    at_random(World::new().await).await;
}

/// From 16 on memberships are another matter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_plan_puts_right_whatever_was_done_by_hand_on_18() {
    at_random(World::of_major(18).await).await;
}

async fn at_random(world: World) {
    let mut tenant = world.tenant();
    tenant.desired.schemas = vec!["reporting".into()];
    tenant.desired.extensions = vec!["pg_trgm".into()];
    tenant.create().await;
    tenant.sql(Tier::Admin, "CREATE TABLE t (id serial)").await.unwrap();
    let other = world.tenant();
    other.create().await;
    let stranger = unique("stranger");
    world.sql("postgres", &format!("CREATE ROLE \"{stranger}\"")).await;
    let others = [other.role(Tier::Admin), stranger];

    let lists = proptest::collection::vec(0..BY_HAND.len(), 1..7);
    // What one list left would mislead about the next, so none is made shorter.
    let config = Config { cases: 25, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let result = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&lists, |list| {
            let case = case(&world, &tenant, &other, &others, &list);
            tokio::runtime::Handle::current().block_on(case).map_err(TestCaseError::fail)
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn case(
    world: &World,
    tenant: &Tenant<'_>,
    other: &Tenant<'_>,
    others: &[String; 2],
    list: &[usize],
) -> Result<(), String> {
    let names: Vec<_> = list.iter().map(|index| BY_HAND[*index]).collect();
    let mut root = world.root(&tenant.database()).await;
    for by_hand in &names {
        // Some of them can not follow each other.
        let _ = run(&mut root, &filled(tenant, others, by_hand)).await;
        run(&mut root, "RESET ROLE").await.unwrap();
    }
    drop(root);
    let before = without_clock(other.observe().await);
    let seen = settle(tenant, &names).await?;
    if !seen {
        // The provisioner could not enter before its plan was applied; now it sees the rest.
        settle(tenant, &names).await?;
    }
    let left = tenant.plan().await.map_err(|refusal| format!("{names:?}: {refusal}"))?;
    if !left.is_empty() || !left.beyond.is_empty() {
        let texts: Vec<_> = left.changes().map(Change::text).collect();
        return Err(format!("{names:?}: left {texts:#?}, beyond {:?}", left.beyond));
    }
    let noticed = without_clock(other.observe().await);
    if names.iter().all(|name| !name.contains('O')) && noticed != before {
        return Err(format!("{names:?}: another tenant noticed"));
    }
    works(tenant).await.map_err(|error| format!("{names:?}: {error}"))
}

/// One look, one plan; says whether the look reached the inside.
async fn settle(tenant: &Tenant<'_>, names: &[&str]) -> Result<bool, String> {
    let observed = tenant.observe().await;
    let mut wanted = tenant.desired.clone();
    let refused = |refusal| format!("{names:?}: {refusal}");
    let printed = plan(&wanted, &observed).map_err(refused)?;
    let nameless = printed.roles_without_password();
    wanted.passwords = tenant.with_passwords().passwords;
    wanted.passwords.retain(|tier, _| nameless.contains(tenant.role(*tier).as_str()));
    let plan = plan(&wanted, &observed).map_err(refused)?;
    tenant.apply(&plan).await.map_err(|error| format!("{names:?}: {error}"))?;
    Ok(observed.inside.is_some())
}

fn filled(tenant: &Tenant<'_>, others: &[String; 2], sql: &str) -> String {
    let mut text = String::new();
    for word in sql.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let (stem, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_').len());
        let name = match stem {
            "D" => tenant.database(),
            "R" => tenant.role(Tier::Read),
            "W" => tenant.role(Tier::Write),
            "A" => tenant.role(Tier::Admin),
            "O" => others[0].clone(),
            "X" => others[1].clone(),
            _ => {
                text += word;
                continue;
            }
        };
        // Within '…' it is a value already.
        if text.ends_with('\'') {
            text += &name
        } else {
            text += &format!("\"{name}\"")
        }
        text += end;
    }
    text
}

fn without_clock(observed: Observed) -> String {
    format!("{:?} {:?} {:?}", observed.database, observed.roles, observed.inside)
}

async fn works(tenant: &Tenant<'_>) -> sqlx::Result<()> {
    let table = unique("w");
    tenant.sql(Tier::Admin, &format!("CREATE TABLE public.\"{table}\" (id serial)")).await?;
    tenant
        .sql(Tier::Write, &format!("INSERT INTO public.\"{table}\" DEFAULT VALUES; INSERT INTO t DEFAULT VALUES"))
        .await?;
    tenant.sql(Tier::Read, &format!("SELECT FROM public.\"{table}\"; SELECT FROM t")).await?;
    tenant.sql(Tier::Admin, &format!("DROP TABLE public.\"{table}\"")).await
}

#[tokio::test]
async fn a_new_password_takes_the_place_of_the_old_one() {
    let world = World::new().await;
    let mut tenant = world.tenant();
    tenant.create().await;
    let (d, write) = (tenant.database(), tenant.role(Tier::Write));
    let old = tenant.passwords[&Tier::Write].clone();
    let new = generate_password(&mut rand::rng());
    tenant.passwords.insert(Tier::Write, new.clone());
    let mut wanted = tenant.with_passwords();
    wanted.passwords.retain(|tier, _| *tier == Tier::Write);
    let change = plan(&wanted, &tenant.observe().await).unwrap();
    assert_eq!(change.changes().count(), 1);
    tenant.apply(&change).await.unwrap();
    world.server.prove(&d, &write, &new).await.unwrap();
    assert_eq!(world.server.prove(&d, &write, &old).await.unwrap_err().password_is_right(), Some(false));
}
