//! What is defined becomes claims.

use std::fs;
use std::time::Duration;

use pgtenant_model::Source;

use crate::world::{OURS, REST, World, values};

#[tokio::test]
async fn definitions_become_claims_and_follow_their_files() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: b, mode: protected, schemas: [s], connectionLimit: 5"]);
    world.application("other/team/x/billing", &["a"]);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.withdrawn, synced.look_again, synced.problems.len()), (3, 0, None, 0));
    let claims = [
        "ns/a present standard ns/orders/values.yaml",
        "ns/b present protected ns/orders/values.yaml",
        "other/a present standard other/team/x/billing/values.yaml",
    ];
    assert_eq!(world.claims().await, claims);
    let actors: String =
        world.one("select string_agg(distinct actor || ' ' || action, ', ') from audit where namespace = 'ns'").await;
    assert_eq!(actors, "apps:ns/orders/values.yaml database.create");

    // Changed in place, moved as it is, moved and changed.
    world.application("ns/orders", &["name: a, extensions: [pgcrypto]"]);
    world.application("ns/stock", &["name: b, mode: protected, schemas: [s], connectionLimit: 5"]);
    world.remove("other/team");
    world.application("other/billing", &["name: a, mode: protected"]);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.withdrawn, synced.look_again), (3, 0, None));
    assert_eq!(
        world.claims().await,
        [
            "ns/a present standard ns/orders/values.yaml",
            "ns/b present protected ns/stock/values.yaml",
            "other/a present protected other/billing/values.yaml"
        ]
    );
    let generations: String =
        world.one("select string_agg(name || generation, ' ' order by namespace, name) from claims").await;
    assert_eq!(generations, "a2 b1 a2", "a move alone is no change of the wish");
}

#[tokio::test]
async fn a_file_that_comes_later_takes_no_claim_over() {
    let mut world = World::new().await;
    world.application("ns/orders", &["name: a, mode: protected"]);
    world.application("ns/zeta", &["c"]);
    world.settle().await;
    let before = world.claims().await;
    // Earlier by name, and with a wish of its own; a new name belongs to the first file.
    world.application("ns/billing", &["name: a, connectionLimit: 3", "d"]);
    world.application("ns/zeta", &["c", "d"]);
    for _ in 0..2 {
        world.look().await;
        let mut claims = world.claims().await;
        assert_eq!(claims.remove(2), "ns/d present standard ns/billing/values.yaml");
        assert_eq!(claims, before);
        assert_eq!(
            world.problems().await,
            "ns/billing/values.yaml:2: postgresqlDatabases[0].name: \"a\" is defined in ns/orders/values.yaml:2 already, and \
             that one counts\n\
             ns/zeta/values.yaml:3: postgresqlDatabases[1].name: \"d\" is defined in ns/billing/values.yaml:3 already, and \
             that one counts\n"
        );
    }
    // Nor does a broken one: the claim's own file still changes it.
    world.application("ns/billing", &["a", "d", "name: x, mode: wrong"]);
    world.application("ns/orders", &["name: a, mode: protected, schemas: [s]"]);
    assert_eq!(world.look().await.written, 1);
    assert_eq!(world.claims().await[0], before[0]);
    // It goes to the next file when its own one gives it up.
    world.application("ns/zeta", &["c"]);
    world.application("ns/billing", &["name: a, mode: protected", "d"]);
    world.application("ns/orders", &[]);
    world.settle().await;
    assert_eq!(world.claims().await[0], "ns/a present protected ns/billing/values.yaml");
}

#[tokio::test]
async fn a_look_without_a_difference_writes_nothing() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: b, mode: wrong"]);
    world.application("ns/stock", &["c"]);
    world.look().await;
    let state = "select format('%s %s %s %s %s', (select max(id) from events), (select count(*) from operations),
                   (select count(*) from audit), (select array_agg((xmin, ctid)::text order by id) from claims),
                   (select array_agg((xmin, ctid)::text) from apps_problems))";
    let before: String = world.one(state).await;
    for _ in 0..3 {
        let synced = world.look().await;
        assert_eq!((synced.written, synced.withdrawn, synced.problems.len(), synced.look_again), (0, 0, 1, None));
    }
    assert_eq!(world.one::<String>(state).await, before);
}

#[tokio::test]
async fn a_removal_is_believed_when_it_was_seen_twice() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: p, mode: protected", "c"]);
    world.settle().await;
    let id: uuid::Uuid = world.one("select id from claims where name = 'p'").await;

    let look = async |world: &mut World, wait| {
        let synced = world.look_after(Duration::from_millis(wait)).await;
        (synced.withdrawn, synced.look_again.map(|wait| wait.as_millis()))
    };
    world.application("ns/orders", &["c"]);
    assert_eq!(look(&mut world, 1000).await, (0, Some(5000)));
    // Too early.
    assert_eq!(look(&mut world, 4900).await, (0, Some(100)));
    // Something else is gone by now: whoever does that is not done.
    world.application("ns/orders", &[]);
    assert_eq!(look(&mut world, 1000).await, (0, Some(5000)));
    world.application("ns/orders", &["c"]);
    assert_eq!(look(&mut world, 6000).await, (0, Some(5000)));
    assert_eq!(look(&mut world, 5000).await, (2, None));
    assert_eq!(world.wishes().await, ["ns/a absent", "ns/c present", "ns/p retained"]);

    // Defined again, in another file: the protected one is the same as before, the other one waits until it is gone.
    world.application("ns/stock", &["a", "name: p, mode: protected"]);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.look_again), (1, Some(Duration::from_millis(500))));
    assert_eq!(
        world.problems().await,
        "ns/stock/values.yaml:2: postgresqlDatabases[0]: database ns/a is being removed; it is made again when that is done\n"
    );
    assert_eq!(world.one::<uuid::Uuid>("select id from claims where name = 'p' and wish = 'present'").await, id);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.look_again), (0, Some(Duration::from_secs(1))));
    world.execute("delete from claims where wish = 'absent'").await;
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a present", "ns/c present", "ns/p present"]);
}

#[tokio::test]
async fn a_removal_that_is_taken_back_in_time_is_none() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a"]);
    world.settle().await;
    world.application("ns/orders", &[]);
    world.look().await;
    world.application("ns/orders", &["a"]);
    world.look().await;
    // The first look has been forgotten.
    world.application("ns/orders", &[]);
    assert_eq!(world.look().await.withdrawn, 0);
    assert_eq!(world.wishes().await, ["ns/a present"]);
}

#[tokio::test]
async fn a_removal_waits_until_the_folder_has_come_to_rest() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: p, mode: protected"]);
    world.application("ns/stock", &["c"]);
    world.settle().await;
    let before = world.claims().await;
    world.remove("ns/orders");
    world.application("ns/stock", &["c"]);
    world.look().await;
    // A checkout removes what was renamed first, and writes it again last.
    for _ in 0..20 {
        world.changed = Some(world.now + Duration::from_millis(100));
        let synced = world.look_after(REST).await;
        assert_eq!(synced.look_again, Some(Duration::from_millis(100)));
    }
    assert_eq!(world.claims().await, before);
    world.application("ns/zeta", &["a", "name: p, mode: protected"]);
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a present", "ns/c present", "ns/p present"]);
    // At rest: it is believed.
    world.remove("ns/zeta");
    world.changed = Some(world.now);
    assert_eq!(world.look().await.withdrawn, 0);
    assert_eq!(world.look_after(REST).await.withdrawn, 2);
}

#[tokio::test]
async fn protection_is_taken_off_when_that_was_seen_twice() {
    let mut world = World::new().await;
    world.application("ns/orders", &["name: a, mode: protected"]);
    world.settle().await;
    world.application("ns/orders", &["a"]);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.look_again), (0, Some(REST)));
    world.changed = Some(world.now + Duration::from_millis(1));
    let synced = world.look_after(REST).await;
    assert_eq!((synced.written, synced.look_again), (0, Some(Duration::from_millis(1))));
    assert_eq!(world.look().await.written, 1);
    assert_eq!(world.claims().await, ["ns/a present standard ns/orders/values.yaml"]);
    world.application("ns/orders", &["name: a, mode: protected"]);
    assert_eq!(world.look().await.written, 1);
}

#[tokio::test]
async fn what_a_person_released_is_left_alone_until_it_was_gone() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "c"]);
    world.settle().await;
    world.release("ns", "a").await;
    assert_eq!(world.look().await.written, 0);
    assert_eq!(
        world.problems().await,
        "ns/orders/values.yaml:2: postgresqlDatabases[0]: database ns/a was released and is left alone; to take it back, \
         remove this entry, and add it again a moment later\n"
    );
    world.application("ns/orders", &["c"]);
    // Nothing changes for the database: this does not wait for the folder to rest.
    assert_eq!(world.look().await.look_again, Some(Duration::from_millis(300)));
    world.look_after(Duration::from_millis(300)).await;
    assert!(!world.one::<bool>("select released from claims where name = 'a'").await);
    assert_eq!(world.wishes().await, ["ns/a retained", "ns/c present"]);
    world.application("ns/orders", &["c", "a"]);
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a present", "ns/c present"]);
}

#[tokio::test]
async fn another_doors_claim_comes_over_by_a_release() {
    let mut world = World::new().await;
    world.create_over_rest("ns", "a").await;
    world.application("ns/orders", &["name: a, mode: protected"]);
    world.look().await;
    assert_eq!(
        world.problems().await,
        "ns/orders/values.yaml:2: postgresqlDatabases[0].name: database ns/a is managed by api; release it there first\n"
    );
    world.release("ns", "a").await;
    world.settle().await;
    assert_eq!(world.claims().await, ["ns/a present protected ns/orders/values.yaml"]);
}

#[tokio::test]
async fn one_replica_writes_at_a_time() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a"]);
    let mut other = world.ledger.begin().await.unwrap();
    assert!(pgtenant_ledger::try_door_turn(&mut other, Source::Apps).await.unwrap());
    let synced = world.look().await;
    assert_eq!((synced.written, synced.look_again), (0, Some(Duration::from_millis(500))));
    assert_eq!(world.claims().await, [""; 0]);
    other.commit().await.unwrap();
    assert_eq!(world.look().await.written, 1);
}

#[tokio::test]
async fn an_application_that_changes_its_chart_says_so_in_its_values_too() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a"]);
    world.application("ns/stock", &["b"]);
    world.settle().await;
    world.put("ns/orders/application.yaml", "helm: {chart: web}\n");
    let stays = "ns/orders/values.yaml: database ns/a is not defined any more and stays, because ns/orders/values.yaml belongs to \
                 an application of another chart; mend helm.chart in application.yaml, or write `postgresqlDatabases: []` or \
                 remove both files if they shall go\n";
    for text in [&*values(&["a"]), "replicas: 3\n", "[", ""] {
        world.put("ns/orders/values.yaml", text);
        for _ in 0..3 {
            world.look().await;
        }
        assert_eq!(
            (world.wishes().await.join(", "), world.problems().await),
            ("ns/a present, ns/b present".to_owned(), stays.to_owned())
        );
    }
    world.put("ns/orders/values.yaml", "replicas: 3\npostgresqlDatabases: []\n");
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a absent", "ns/b present"]);
    world.put("ns/orders/application.yaml", OURS);
    fs::write(world.root.join("ns/stock/values.yaml"), values(&["b", "d"])).unwrap();
    world.look().await;
    assert_eq!(world.wishes().await, ["ns/a absent", "ns/b present", "ns/d present"]);
}
