//! Changes as editors, git and people make them, heard of through inotify: the slow rescan is an hour away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use pgtenant_apps_repo::{Settings, follow};
use pgtenant_ledger::Ledger;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{OURS, World, values};

struct Following {
    task: JoinHandle<()>,
    cancel: CancellationToken,
    _ends: DropGuard,
}

impl World {
    fn follow(&self, root: impl Into<PathBuf>) -> Following {
        self.follow_as(root, settings())
    }

    fn follow_as(&self, root: impl Into<PathBuf>, settings: Settings) -> Following {
        let cancel = CancellationToken::new();
        let ledger = Ledger::new(self.options.clone(), 4);
        let task = tokio::spawn(follow(root.into(), ledger, settings, cancel.clone()));
        Following { task, _ends: cancel.clone().drop_guard(), cancel }
    }

    async fn until(&self, wishes: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.wishes().await;
            if now == wishes {
                return;
            }
            assert!(Instant::now() < deadline, "{now:?} is not {wishes:?}; {}", self.problems().await);
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_problem(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.problems().await;
            if if text.is_empty() { now.is_empty() } else { now.contains(text) } {
                return;
            }
            assert!(Instant::now() < deadline, "{now:?} has no {text:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn write_atomically(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        let draft = path.with_extension("tmp");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, path).unwrap();
    }
}

/// Changes must be heard of, and removals do not wait for long.
fn settings() -> Settings {
    Settings { rescan: Duration::from_secs(3600), rest: Duration::from_millis(500), ..Settings::default() }
}

#[tokio::test]
async fn every_way_to_write_is_heard() {
    let world = World::new().await;
    let following = world.follow(&world.root);
    world.application("ns/orders", &["a"]);
    world.until(&["ns/a present"]).await;
    // In place, by renaming over it, in a new folder below new folders, and by renaming a folder into place.
    world.put("ns/orders/values.yaml", &values(&["a", "b"]));
    world.until(&["ns/a present", "ns/b present"]).await;
    world.write_atomically("ns/orders/values.yaml", &values(&["a", "b", "c"]));
    world.until(&["ns/a present", "ns/b present", "ns/c present"]).await;
    world.application("other/team/x/y/stock", &["s"]);
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s present"]).await;
    world.put("other/team/x/y/stock/values.yaml", &values(&["s", "t"]));
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s present", "other/t present"]).await;
    let aside = world.dir.path().join("aside");
    fs::rename(world.root.join("other"), &aside).unwrap();
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s absent", "other/t absent"]).await;
    world.execute("delete from claims where wish = 'absent'").await;
    fs::rename(&aside, world.root.join("other")).unwrap();
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s present", "other/t present"]).await;
    world.put("other/team/x/y/stock/values.yaml", &values(&["s"]));
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s present", "other/t absent"]).await;
    world.remove("other");
    world.until(&["ns/a present", "ns/b present", "ns/c present", "other/s absent", "other/t absent"]).await;
    following.cancel.cancel();
    following.task.await.unwrap();
}

#[tokio::test]
async fn a_removal_waits_for_rest_and_holds_up_nothing_else() {
    let world = World::new().await;
    world.application("ns/orders", &["a", "b"]);
    let mut settings = settings();
    settings.rest = Duration::from_secs(2);
    let _following = world.follow_as(&world.root, settings);
    world.until(&["ns/a present", "ns/b present"]).await;
    world.application("ns/orders", &["a"]);
    let mut written = Instant::now();
    let end = written + Duration::from_secs(5);
    // As a checkout that is under way; what it writes is none of ours, or new.
    world.application("ns/stock", &["c"]);
    while written < end {
        world.put("README.md", "x");
        sleep(Duration::from_millis(100)).await;
        let wishes = world.wishes().await;
        // This machine may have stood still for longer than the folder must rest.
        if written.elapsed() < Duration::from_secs(1) {
            assert!(wishes.contains(&"ns/b present".to_owned()), "{wishes:?}");
        }
        written = Instant::now();
    }
    world.until(&["ns/a present", "ns/b absent", "ns/c present"]).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_drops_nothing() {
    let world = World::new().await;
    world.application("ns/orders", &["a", "b"]);
    world.application("ns/stock", &["c"]);
    // As if each half had lain there for long.
    let _following = world.follow_as(&world.root, Settings { unfinished: Duration::ZERO, ..settings() });
    world.until(&["ns/a present", "ns/b present", "ns/c present"]).await;
    let whole = values(&["a", "b"]);
    for _ in 0..3 {
        // Emptied, then written bit by bit, each of which is looked at.
        for (end, told) in
            [(0, "has no `postgresqlDatabases`"), (10, "must be a mapping"), (whole.len() - 3, "is not valid YAML")]
        {
            world.put("ns/orders/values.yaml", &whole[..end]);
            world.until_problem(told).await;
        }
        world.put("ns/orders/values.yaml", &whole);
        world.until_problem("").await;
    }
    assert_eq!(world.wishes().await, ["ns/a present", "ns/b present", "ns/c present"]);
    assert_eq!(world.one::<i64>("select count(*) from operations").await, 3);
}

#[tokio::test]
async fn a_link_to_a_checkout_is_followed_to_the_next_one() {
    let world = World::new().await;
    let place = world.dir.path();
    let checkout = |revision: &str, names: &[&str]| {
        let folder = place.join(revision).join("apps/ns/orders");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("application.yaml"), OURS).unwrap();
        fs::write(folder.join("values.yaml"), values(names)).unwrap();
        symlink(revision, place.join("next")).unwrap();
        fs::rename(place.join("next"), place.join("current")).unwrap();
    };
    checkout("rev-1", &["a", "b"]);
    let _following = world.follow(place.join("current/apps"));
    world.until(&["ns/a present", "ns/b present"]).await;
    checkout("rev-2", &["a", "c"]);
    fs::remove_dir_all(place.join("rev-1")).unwrap();
    world.until(&["ns/a present", "ns/b absent", "ns/c present"]).await;
    // Changes within the new one are heard of as well.
    world.execute("delete from claims where wish = 'absent'").await;
    fs::write(place.join("rev-2/apps/ns/orders/values.yaml"), values(&["a", "c", "d"])).unwrap();
    world.until(&["ns/a present", "ns/c present", "ns/d present"]).await;
    // The checkout goes before the link does.
    fs::remove_dir_all(place.join("rev-2")).unwrap();
    world.until_problem("can not be read").await;
    checkout("rev-3", &["a", "c"]);
    world.until(&["ns/a present", "ns/c present", "ns/d absent"]).await;
    world.until_problem("").await;
}

#[tokio::test]
async fn a_folder_may_come_later_and_go() {
    let world = World::new().await;
    world.remove("");
    let _following = world.follow(&world.root);
    world.until_problem("can not be read").await;
    world.application("ns/orders", &["a"]);
    world.until(&["ns/a present"]).await;
    world.until_problem("").await;
    world.remove("");
    world.until_problem("can not be read").await;
    fs::write(&world.root, "a file").unwrap();
    world.until_problem("not a directory").await;
    fs::remove_file(&world.root).unwrap();
    world.application("ns/orders", &["a", "b"]);
    world.until(&["ns/a present", "ns/b present"]).await;
    world.put("ns/orders/values.yaml", "postgresqlDatabases: [{name: a}]");
    world.until(&["ns/a present", "ns/b absent"]).await;
}

#[tokio::test]
async fn deleting_a_large_folder_step_by_step_is_held() {
    let world = World::new().await;
    let names: Vec<String> = (10..40).map(|i| format!("d{i}")).collect();
    for name in &names {
        world.application(&format!("ns/{name}"), &[name]);
    }
    world.application("other/stay", &["s"]);
    let _following = world.follow(&world.root);
    let mut all: Vec<String> = names.iter().map(|n| format!("ns/{n} present")).collect();
    all.push("other/s present".to_owned());
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    world.until(&all).await;
    for name in &names {
        world.remove(&format!("ns/{name}"));
        sleep(Duration::from_millis(60)).await;
    }
    world.until_problem("30 databases have lost their definition").await;
    assert_eq!(world.wishes().await, all);
}

#[tokio::test]
async fn a_ledger_that_is_away_is_waited_for() {
    let world = World::new().await;
    world.application("ns/orders", &["a"]);
    let _following = world.follow(&world.root);
    world.until(&["ns/a present"]).await;
    let (server, database) = (pgtenant_testkit::cluster().await, world.options.get_database().unwrap().to_owned());
    server.execute(&format!("alter database \"{database}\" allow_connections false")).await;
    server
        .execute(&format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"))
        .await;
    world.put("ns/orders/values.yaml", &values(&["a", "b"]));
    // Not to wait for something: the outage lasts longer than the first tries, which nobody can see from here.
    sleep(Duration::from_millis(1500)).await;
    server.execute(&format!("alter database \"{database}\" allow_connections true")).await;
    world.until(&["ns/a present", "ns/b present"]).await;
}

#[tokio::test]
async fn replicas_share_a_folder() {
    let world = World::new().await;
    let followers: Vec<Following> = (0..3).map(|_| world.follow(&world.root)).collect();
    let names: Vec<String> = (10..30).map(|i| format!("d{i}")).collect();
    world.application("ns/orders", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let present: Vec<String> = names.iter().map(|n| format!("ns/{n} present")).collect();
    world.until(&present.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.application("ns/orders", &names[1..].iter().map(String::as_str).collect::<Vec<_>>());
    let mut gone = present.clone();
    gone[0] = "ns/d10 absent".to_owned();
    world.until(&gone.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for follower in followers {
        follower.cancel.cancel();
        follower.task.await.unwrap();
    }
    assert_eq!(world.one::<i64>("select count(*) from operations").await, 21, "each wish was written once");
    assert_eq!(world.problems().await, "");
}
