//! Nothing is dropped because of a mistake in the folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use pgtenant_apps_repo::Guard;

use crate::world::{REST, World, values};

const NAMES: [&str; 12] = ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b1", "b2", "b3"];

#[tokio::test]
async fn a_broken_file_keeps_its_claims_as_they_are() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: b, mode: protected"]);
    world.application("ns/stock", &["c"]);
    world.settle().await;
    let before = world.claims().await;
    for text in [
        "postgresqlDatabases:\n  - name: [",
        "postgresqlDatabases:\n  - name: a\n    mode: protected\n  - naem: b\n",
        "postgresqlDatabases: []\ncolour: red\n",
        "postgresqlDatabase: []\n",
        "postgresqlDatabases:\n",
        "postgresqlDatabases: []\n---\n",
        "\0\0\0\0",
    ] {
        world.put("ns/orders/values.yaml", text);
        for _ in 0..3 {
            assert_eq!(world.look().await.withdrawn, 0, "{text:?}");
        }
        assert_eq!(world.claims().await, before, "{text:?}");
        assert!(world.problems().await.starts_with("ns/orders/values.yaml:"), "{}", world.problems().await);
    }
    world.application("ns/orders", &["a", "name: b, mode: protected"]);
    world.settle().await;
}

#[tokio::test]
async fn what_can_not_be_read_keeps_its_claims() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a"]);
    world.application("ns/stock", &["c"]);
    world.settle().await;
    let before = world.claims().await;
    let values_file = world.root.join("ns/orders/values.yaml");
    let application = world.root.join("ns/orders/application.yaml");
    let folder = world.root.join("ns/orders");
    let aside = world.dir.path().join("aside");

    fs::remove_file(&values_file).unwrap();
    world.twice(&before, "ns/orders/values.yaml: is missing beside").await;
    fs::create_dir(&values_file).unwrap();
    world.twice(&before, "ns/orders/values.yaml: is a folder").await;
    fs::remove_dir(&values_file).unwrap();
    symlink("nowhere", &values_file).unwrap();
    world.twice(&before, "ns/orders/values.yaml: is a symbolic link that leads nowhere").await;
    fs::remove_file(&values_file).unwrap();
    fs::write(&values_file, "").unwrap();
    world
        .twice(
            &before,
            "ns/orders/values.yaml: database ns/a is not defined any more and stays, because ns/orders/values.yaml \
             has no `postgresqlDatabases`; write `postgresqlDatabases: []` if they shall go",
        )
        .await;
    fs::write(&values_file, values(&["a"])).unwrap();
    for text in ["", "helm:\n", "helm: {chart: idp-postgresql}\nx: 1"] {
        fs::write(&application, text).unwrap();
        world.twice(&before, "ns/orders/application.yaml:").await;
    }
    fs::rename(&folder, &aside).unwrap();
    symlink(&aside, &folder).unwrap();
    world.twice(&before, "ns/orders: is a symbolic link that leads out of the apps folder").await;
    fs::remove_dir_all(&aside).unwrap();
    world
        .twice(
            &before,
            "ns/orders/values.yaml: database ns/a is not defined any more and stays, because ns/orders leads nowhere",
        )
        .await;
    fs::remove_file(&folder).unwrap();
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a absent", "ns/c present"]);
}

impl World {
    async fn twice(&mut self, claims: &[String], problem: &str) {
        for _ in 0..3 {
            self.look().await;
        }
        assert_eq!(self.claims().await, claims, "{problem}");
        let problems = self.problems().await;
        assert!(problems.starts_with(problem), "{problems}");
    }
}

#[tokio::test]
async fn half_of_a_file_or_of_an_application_keeps_its_claims() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: b, mode: protected"]);
    world.application("ns/stock", &["c"]);
    world.settle().await;
    let before = world.claims().await;
    let stays =
        "ns/orders/values.yaml: database ns/a is not defined any more and stays, because ns/orders/values.yaml ";
    // Cut off before the list.
    world.put("ns/orders/values.yaml", "global: {a: b}\n");
    let reason = "has no `postgresqlDatabases`; write `postgresqlDatabases: []` if they shall go";
    world.twice(&before, &format!("{stays}{reason}")).await;
    world.application("ns/orders", &["a", "name: b, mode: protected"]);
    // Cut off within the chart's name.
    world.put("ns/orders/application.yaml", "helm:\n  chart: idp-postgre\n");
    world.twice(&before, &format!("{stays}belongs to an application of another chart")).await;
    // Not there yet, or not any more.
    world.remove("ns/orders/application.yaml");
    world.twice(&before, &format!("{stays}has no application.yaml beside it")).await;
    // Who takes them over meanwhile is told, and is none.
    world.application("ns/stock", &["c", "name: a, connectionLimit: 3"]);
    let told = "ns/stock/values.yaml:3: postgresqlDatabases[1].name: database ns/a was made from ns/orders/values.yaml and stays \
                as it is, because that has no application.yaml beside it";
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.claims().await, before);
    assert!(world.problems().await.contains(told), "{}", world.problems().await);
    world.application("ns/stock", &["c"]);
    // Both files are gone.
    world.remove("ns/orders/values.yaml");
    world.settle().await;
    assert_eq!(world.wishes().await, ["ns/a absent", "ns/b retained", "ns/c present"]);
}

#[tokio::test]
async fn a_file_without_its_last_newline_changes_nothing_yet() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "name: b, mode: protected"]);
    world.settle().await;
    let before = world.claims().await;
    world.unfinished = Duration::from_secs(3600);
    for half in ["", "postgresqlDatabases:\n  - name: a\n    connectionLimit: 2", "postgresqlDatabases:\n  - name: o"] {
        world.put("ns/orders/values.yaml", half);
        world.application("ns/stock", &["a"]);
        for _ in 0..3 {
            assert!(world.look().await.look_again.is_some());
        }
        assert_eq!((world.claims().await, world.problems().await), (before.clone(), String::new()), "{half}");
    }
    world.unfinished = Duration::ZERO;
    world.look().await;
    assert!(world.wishes().await.contains(&"ns/o present".to_owned()));
}

#[tokio::test]
async fn a_definition_that_may_have_moved_into_a_broken_file_stays() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a", "d"]);
    world.application("ns/stock", &["c"]);
    world.settle().await;
    // `a` is seen in the broken file, `d` is seen nowhere.
    world.application("ns/orders", &[]);
    world.application("ns/stock", &["c", "name: a, mode: wrong"]);
    world.look().await;
    world.look().await;
    assert_eq!(world.wishes().await, ["ns/a present", "ns/c present", "ns/d absent"]);
    assert!(
        world.problems().await.starts_with(
            "ns/orders/values.yaml: database ns/a is not defined any more and stays, because ns/stock/values.yaml has problems\n"
        ),
        "{}",
        world.problems().await
    );
    // Nobody knows what this one defines.
    world.put("ns/stock/values.yaml", "postgresqlDatabases:\n  - name: 'a");
    world.execute("delete from claims where name = 'd'").await;
    world.look().await;
    world.look().await;
    assert_eq!(world.wishes().await, ["ns/a present", "ns/c present"]);
    world.application("ns/stock", &["c", "a"]);
    world.settle().await;
    assert_eq!(
        world.claims().await,
        ["ns/a present standard ns/stock/values.yaml", "ns/c present standard ns/stock/values.yaml"]
    );
}

#[tokio::test]
async fn a_file_does_not_take_over_from_a_broken_one() {
    let mut world = World::new().await;
    world.application("ns/orders", &["name: a, mode: protected"]);
    world.settle().await;
    let before = world.claims().await;
    world.put("ns/orders/values.yaml", "[");
    world.application("ns/stock", &["name: a, connectionLimit: 3"]);
    world.look().await;
    world.look().await;
    assert_eq!(world.claims().await, before);
}

#[tokio::test]
async fn more_removals_than_the_guard_allows_are_held() {
    let mut world = World::new().await;
    world.application("ns/orders", &NAMES);
    world.application("other/stock", &["c"]);
    world.settle().await;
    world.application("ns/orders", &["b3"]);
    let synced = world.look().await;
    assert_eq!((synced.withdrawn, synced.look_again), (0, None));
    world.application("ns/more", &["d"]);
    let synced = world.look().await;
    assert_eq!((synced.written, synced.withdrawn), (1, 0), "what is new is made all the same");
    assert_eq!(
        world.problems().await,
        "11 databases have lost their definition (ns/a1, ns/a2, ns/a3, …), and nothing is removed: more than 10 at once are \
         taken for a mistake. Put the definitions back, or switch on allow_mass_removal if they shall go\n"
    );
    world.application("ns/orders", &["b3", "b2"]);
    world.settle().await;
    let absent: i64 = world.one("select count(*) from claims where wish = 'absent'").await;
    assert_eq!(absent, 10);
}

#[tokio::test]
async fn a_folder_that_is_empty_at_once_removes_nothing() {
    let mut world = World::new().await;
    world.application("ns/orders", &["a"]);
    world.settle().await;
    world.remove("ns");
    world.look().await;
    world.look().await;
    let stays = "1 database has lost its definition (ns/a), and nothing is removed: the apps folder has no application of ours left.";
    assert!(world.problems().await.starts_with(stays), "{}", world.problems().await);
    world.remove("");
    world.look().await;
    world.look().await;
    assert!(world.problems().await.starts_with("the apps folder "), "{}", world.problems().await);
    assert_eq!(world.wishes().await, ["ns/a present"]);
}

#[tokio::test]
async fn a_setting_allows_everything_to_go_but_not_by_an_outage() {
    let mut world = World::guarded(Guard { allow_mass_removal: true, ..Guard::default() }).await;
    world.application("ns/orders", &NAMES);
    world.settle().await;
    let aside = world.dir.path().join("aside");
    fs::rename(&world.root, &aside).unwrap();
    for _ in 0..3 {
        assert_eq!(world.look().await.withdrawn, 0);
    }
    fs::rename(&aside, &world.root).unwrap();
    world.remove("ns");
    let synced = world.look().await;
    assert_eq!((synced.withdrawn, synced.look_again), (0, Some(REST)));
    assert_eq!(world.look().await.withdrawn, 12);
}
