//! Back from a pgBackRest repository: the real program, real archives, and servers that are made of them and go.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgtenant_tests::{
    Api, Credential, Folder, Own, Serve, Site, SiteOptions, can, eventually, files_below, rows, soon, superuser_sql,
    try_sql,
};
use serde_json::{Value, json};

use crate::shop::{PATIENCE, next_second, over};

/// A cluster whose log is archived, and a control plane that may read the repository.
struct Kept {
    own: Own,
    site: Site,
    serve: Serve,
    folder: Folder,
    owner: (u32, u32),
}

/// Runs pgBackRest as the servers' user.
fn pgbackrest(folder: &Path, owner: (u32, u32), arguments: &[&str]) {
    let mut command = Command::new("pgbackrest");
    command.arg(format!("--config={}", folder.join("pgbackrest.conf").display())).arg("--stanza=main").args(arguments);
    // pgtenant's tests run as root, or as the servers' user.
    if rustix::process::geteuid().is_root() {
        command.uid(owner.0).gid(owner.1);
    }
    let output = command.current_dir("/").output().expect("pgbackrest; install the package");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
}

impl Kept {
    async fn new() -> Self {
        let folder = Folder::new("backrest");
        let path = |name: &str| folder.join(name).display().to_string();
        let archive = format!("pgbackrest --config={} --stanza=main archive-push %p", path("pgbackrest.conf"));
        let (hba, socket) = (path("pg_hba.conf"), path("socket"));
        let lines =
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n";
        fs::write(&hba, lines).unwrap();
        for name in ["socket", "repository", "scratch", "lock", "log"] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let conf = [
            ("archive_mode", "on"),
            ("archive_command", &archive),
            ("archive_timeout", "1s"),
            ("hba_file", &hba),
            ("unix_socket_directories", &socket),
        ];
        let mut own = Own::start(false, &conf).await;
        let place = own.place();
        let primary = own.cluster.primary();
        let found = fs::metadata(primary.data()).unwrap();
        let owner = (found.uid(), found.gid());
        let (data, port) = (primary.data().display().to_string(), primary.port());
        for name in ["repository", "scratch", "lock", "log"] {
            chown(folder.join(name), Some(owner.0), Some(owner.1)).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let settings = format!(
            "[global]\nrepo1-path={}\nlock-path={}\nlog-path={}\nstart-fast=y\nlog-level-console=warn\narchive-timeout=60\n\n\
             [main]\npg1-path={data}\npg1-port={port}\npg1-socket-path={socket}\npg1-user=postgres\n",
            path("repository"),
            path("lock"),
            path("log"),
        );
        fs::write(folder.join("pgbackrest.conf"), settings).unwrap();
        pgbackrest(folder.path(), owner, &["stanza-create"]);
        let cluster = format!(
            "backups.pgbackrest = {{ stanza = \"main\", configFile = {:?}, scratch = {:?} }}",
            path("pgbackrest.conf"),
            path("scratch"),
        );
        let options = SiteOptions { cluster, backups: true, lease: "3s".to_owned(), ..SiteOptions::on(place).await };
        let site = Site::new(options).await;
        let serve = site.serve("first").await;
        serve.is_ready().await;
        Self { own, site, serve, folder, owner }
    }

    /// A claim with 300 orders, and a backup of the cluster.
    async fn back_up(&self) {
        self.api().ready("vault", "db").await;
        let sql = "create table orders (id bigint generated always as identity primary key, item text);
                   insert into orders (item) select 'item ' || n from generate_series(1, 300) n;
               create unlogged table cache as select 1 as n";
        can(&self.admin(), sql).await;
        pgbackrest(self.folder.path(), self.owner, &["--type=full", "backup"]);
    }

    /// The id of the only backup.
    async fn backup(&self) -> String {
        let listed = self.api().list("/v1/namespaces/vault/databases/db/snapshots").await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed[0]["id"].as_str().unwrap().to_owned()
    }

    fn api(&self) -> Api {
        self.serve.api()
    }

    fn admin(&self) -> Credential {
        Credential::read(&self.site.secrets, "vault", "db", "admin")
    }

    async fn restored(&self, spec: Value) -> Value {
        let restore = self.request(spec).await;
        over(&self.api(), restore["id"].as_str().unwrap()).await
    }

    async fn request(&self, spec: Value) -> Value {
        let restore = self.api().post("/v1/namespaces/vault/databases/db/restores", spec).await.expect(202).json;
        // The answer may be cut off.
        let path = format!("/v1/restores/{}/approve", restore["id"].as_str().unwrap());
        self.api().try_send("POST", &path, &[], None).await.ok();
        restore
    }

    async fn orders(&self) -> Vec<String> {
        rows(&self.site.superuser, Some("vault-db"), "select count(*)::text from orders").await
    }

    /// What is left of servers: folders and processes.
    async fn nothing_is_left(&self) {
        let scratch = self.folder.join("scratch");
        soon("no server is left", || async {
            let left: Vec<PathBuf> = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
            let running = processes_of(&scratch);
            if left.is_empty() && running.is_empty() { Ok(()) } else { Err(format!("{left:?} {running:?}")) }
        })
        .await;
    }
}

fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    all.map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.contains(&folder))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_database_comes_back_from_a_backup_and_from_a_time_after_it() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let listed = kept.api().list("/v1/namespaces/vault/databases/db/snapshots").await;
    let label = listed[0]["id"].as_str().unwrap().to_owned();
    assert!(label.starts_with("pgbackrest:") && listed[0]["size"].as_u64().unwrap() > 0, "{listed:?}");
    assert_eq!(kept.api().list("/v1/clusters/default/snapshots").await.len(), 1);
    let tried = kept.api().ask("/v1/clusters/default/preflight").await.expect(200).json;
    let line = tried["checks"].as_array().unwrap().iter().find(|line| line["check"] == "pgbackrest");
    assert!(line.is_some_and(|line| line["message"].as_str().unwrap().contains("1 backups")), "{tried}");

    // More, a time, and a mistake, which is in the archive.
    can(&kept.admin(), "insert into orders (item) select 'later' from generate_series(1, 200)").await;
    let time = next_second().await;
    can(&kept.admin(), "drop table orders").await;
    archived(&kept).await;

    let done = kept.restored(json!({"from": {"time": time}})).await;
    let id = json!(format!("pgbackrest:at:{time}"));
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &id), "{done}");
    assert_eq!(kept.orders().await, ["500"]);
    kept.nothing_is_left().await;
    let done = kept.restored(json!({"from": {"snapshot": label}})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["300"]);
    let left_out = done["report"]["leftOut"].to_string();
    assert!(left_out.contains("cache") && left_out.contains("unlogged"), "{left_out}");
    kept.nothing_is_left().await;

    // The archive is not there yet.
    can(&kept.admin(), "truncate orders").await;
    let time = next_second().await;
    let restore = kept.request(json!({"from": {"time": time}})).await;
    can(&kept.admin(), "insert into orders (item) values ('after it')").await;
    archived(&kept).await;
    let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["0"]);

    // Killed on the way, what runs is used again or ended, and goes.
    for point in [
        "before:restore-scratch",
        "after:restore-scratch",
        "after:start-scratch",
        "before:restore-to-Verifying",
        "before:remove-scratch",
        "after:remove-scratch",
    ] {
        kept.serve.stop().await;
        kept.serve = kept.site.serve_with("killed", &[("PGTENANT_FAULT", &format!("kill@{point}"))]).await;
        kept.serve.is_ready().await;
        let restore = kept.request(json!({"from": {"snapshot": label}})).await;
        kept.serve.running.end(PATIENCE).await;
        kept.serve = kept.site.serve("after").await;
        kept.serve.is_ready().await;
        let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        assert_eq!(kept.orders().await, ["300"], "{point}");
        kept.nothing_is_left().await;
    }
    assert!(kept.serve.metric("pgtenant_cluster_backup_age_seconds").await > 0.0);

    // A server that nobody has removed of a restore that is over goes with the next look.
    let over = kept.site.ledger_rows("select id::text from restores limit 1").await.remove(0);
    kept.serve.stop().await;
    let left = kept.folder.join("scratch").join(over.replace('-', ""));
    fs::create_dir(&left).unwrap();
    kept.serve = kept.site.serve("again").await;
    eventually("it is removed", PATIENCE, || async {
        if left.exists() { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;

    // One that is not there any more.
    kept.serve.is_ready().await;
    let done = kept.restored(json!({"from": {"snapshot": "pgbackrest:20200101-000000F"}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("is not there"), "{done}");
    kept.own.cluster.stop().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_loaded_in_place_and_into_a_database_of_its_own() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let (backup, secrets) = (kept.backup().await, kept.site.secrets.clone());
    let before = Credential::of(&secrets, "vault", "db");
    can(&kept.admin(), "drop table orders; create table after_it as select 1 as n").await;
    let done = kept.restored(json!({"from": {"snapshot": backup}, "strategy": "copy", "copyName": "old"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(backup)), "{done}");
    kept.nothing_is_left().await;
    kept.api().is_ready("vault", "old").await;
    let old = Credential::of(&secrets, "vault", "old");
    try_sql(&old[0], "select 1 / (count(*) = 300)::int from orders").await.unwrap();
    try_sql(&old[1], "insert into orders (item) values ('new')").await.unwrap();
    assert!(old.iter().zip(&before).all(|(old, own)| old.password != own.password), "it has passwords of its own");
    try_sql(&before[1], "insert into after_it values (2)").await.unwrap();
    assert_eq!(try_sql(&before[1], "select from orders").await, Err("42P01".to_owned()), "the database is as it was");

    let done = kept.restored(json!({"from": {"snapshot": backup}, "strategy": "replace"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(backup)), "{done}");
    kept.nothing_is_left().await;
    assert_eq!(kept.orders().await, ["300"]);
    try_sql(&before[1], "insert into orders (item) values ('new')").await.unwrap();
    assert_eq!(try_sql(&before[1], "select from after_it").await, Err("42P01".to_owned()), "it came after the backup");
    assert_eq!(Credential::of(&secrets, "vault", "db"), before, "no new password");
    kept.api().is_ready("vault", "db").await;
    kept.own.cluster.stop().await.ok();
}

/// pgBackRest waits for the rest of a file of the repository until this is dropped.
struct Stuck {
    file: PathBuf,
    aside: PathBuf,
}

impl Stuck {
    /// In the largest file of the only backup.
    fn new(kept: &Kept, backup: &str) -> Self {
        let label = backup.strip_prefix("pgbackrest:").unwrap();
        let data = kept.folder.join("repository/backup/main").join(label).join("pg_data");
        let files = files_below(&data).into_iter().map(|file| data.join(file));
        let file = files.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
        let stuck = Self { aside: kept.folder.join("aside"), file };
        fs::rename(&stuck.file, &stuck.aside).unwrap();
        assert!(Command::new("mkfifo").arg(&stuck.file).status().unwrap().success());
        chown(&stuck.file, Some(kept.owner.0), Some(kept.owner.1)).unwrap();
        stuck
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        fs::rename(&self.aside, &self.file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_the_server_is_made_nothing_of_it_is_left() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let (backup, scratch) = (kept.backup().await, kept.folder.join("scratch"));
    can(&kept.admin(), "delete from orders where id > 10").await;
    let spec = json!({"from": {"snapshot": backup}});
    let cancelled = async |kept: &Kept, restore: &Value| {
        let id = restore["id"].as_str().unwrap();
        kept.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
        let done = over(&kept.api(), id).await;
        assert_eq!(done["phase"], "Cancelled", "{done}");
        kept.nothing_is_left().await;
        assert_eq!(kept.orders().await, ["10"], "it is as it was");
        let databases =
            rows(&kept.site.superuser, None, "select datname::text from pg_database where datname ~ '^vault-'").await;
        assert_eq!(databases, ["vault-db"]);
        kept.api().is_ready("vault", "db").await;
    };
    // pgBackRest is at it.
    let stuck = Stuck::new(&kept, &backup);
    let restore = kept.request(spec.clone()).await;
    eventually("pgBackRest copies files", PATIENCE, || async {
        let running = processes_of(&scratch);
        if running.iter().any(|one| one.contains("restore:local")) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    cancelled(&kept, &restore).await;
    drop(stuck);
    // The server has just come up.
    kept.serve.stop().await;
    kept.serve = kept.site.serve_with("stalled", &[("PGTENANT_FAULT", "stall=60s@after:start-scratch")]).await;
    kept.serve.is_ready().await;
    let restore = kept.request(spec.clone()).await;
    kept.serve.is_at_fault_point().await;
    assert!(!processes_of(&scratch).is_empty(), "a server runs");
    cancelled(&kept, &restore).await;
    // Nothing is in the way of the next one.
    let done = kept.restored(spec).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["300"]);
    kept.nothing_is_left().await;
    kept.own.cluster.stop().await.ok();
}

/// What the server has written by now is in the repository.
async fn archived(kept: &Kept) {
    let superuser = &kept.site.superuser;
    let segment = rows(superuser, None, "select pg_walfile_name(pg_switch_wal())").await.remove(0);
    superuser_sql(superuser, None, "checkpoint").await;
    eventually("the log is archived", PATIENCE, || async {
        let last =
            rows(superuser, None, "select coalesce(last_archived_wal, '') from pg_stat_archiver").await.remove(0);
        if last >= segment { Ok(()) } else { Err(last) }
    })
    .await;
}
