//! What the ledger refuses is a problem at the line of whoever asked, and holds up nobody else.

use crate::world::World;

#[tokio::test]
async fn a_taken_name_is_told_without_its_owner() {
    let mut world = World::new().await;
    world.application("a/orders", &["name: b-c"]);
    world.settle().await;
    world.application("a-b/orders", &["x", "c", "z"]);
    assert_eq!(world.look().await.written, 2);
    assert_eq!(
        world.problems().await,
        "a-b/orders/values.yaml:3: postgresqlDatabases[1].name: the name \"a-b-c\" on cluster \"default\" belongs to another \
         claim; choose another name\n"
    );
    assert_eq!(world.wishes().await, ["a/b-c present", "a-b/x present", "a-b/z present"]);
}

#[tokio::test]
async fn a_refused_field_is_told_at_its_line() {
    let mut world = World::new().await;
    world.application("ns/orders", &[]);
    world.put(
        "ns/orders/values.yaml",
        "postgresqlDatabases:\n  - name: a\n    extensions:\n      - pgcrypto\n      - postgis\n    cluster: default\n\
         \x20 - name: b\n    cluster: elsewhere\n  - name: c\n",
    );
    world.application("stranger/orders", &["a"]);
    assert_eq!(world.look().await.written, 1);
    assert_eq!(
        world.problems().await,
        "ns/orders/values.yaml:5: postgresqlDatabases[0].extensions[1]: \"postgis\" is not allowed; allowed: pgcrypto\n\
         ns/orders/values.yaml:8: postgresqlDatabases[1].cluster: there is no cluster \"elsewhere\" for namespace \"ns\"\n\
         stranger/orders/values.yaml:2: postgresqlDatabases[0].cluster: there is no cluster \"default\" for namespace \"stranger\"\n"
    );
    world.put("ns/orders/values.yaml", "postgresqlDatabases:\n  - name: a\n  - name: c\n    cluster: elsewhere\n");
    assert_eq!(world.look().await.written, 1);
    let problems = world.problems().await;
    assert!(problems.starts_with("ns/orders/values.yaml:4: postgresqlDatabases[1].cluster: "), "{problems}");
    assert_eq!(world.claims().await[1], "ns/c present standard ns/orders/values.yaml");
}

#[tokio::test]
async fn a_full_namespace_takes_as_many_as_it_may() {
    let mut world = World::new().await;
    let names: Vec<String> = (10..41).map(|i| format!("d{i}")).collect();
    world.application("ns/orders", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let synced = world.look().await;
    assert_eq!((synced.written, synced.look_again), (30, None));
    assert_eq!(
        world.problems().await,
        "ns/orders/values.yaml:32: postgresqlDatabases[30]: namespace \"ns\" has 30 databases on cluster \"default\", which is its limit\n"
    );
    // A place that is being freed is looked for soon.
    world.application("ns/orders", &names[1..].iter().map(String::as_str).collect::<Vec<_>>());
    world.look().await;
    let synced = world.look().await;
    assert_eq!(synced.withdrawn, 1);
    assert!(synced.look_again.is_some());
    world.execute("delete from claims where wish = 'absent'").await;
    world.settle().await;
}
