//! A cluster that pgBackRest backs up: the real program, and real archives.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{TimeDelta, Utc};
use pgtenant_tests::{
    Api, Credential, Folder, Own, Serve, Site, SiteOptions, can, eventually, rows, soon, superuser_sql,
};
use serde_json::Value;

use crate::shop::{PATIENCE, over};

/// A cluster whose log is archived, and a control plane that may read the repository.
pub(crate) struct Kept {
    pub(crate) own: Own,
    pub(crate) site: Site,
    pub(crate) serve: Serve,
    pub(crate) folder: Folder,
    pub(crate) owner: (u32, u32),
}

/// Runs pgBackRest as the servers' user.
pub(crate) fn pgbackrest(folder: &Path, owner: (u32, u32), arguments: &[&str]) {
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
    /// One whose backups are tested only when somebody asks.
    pub(crate) async fn new() -> Self {
        Self::tried("0s").await
    }

    /// One whose backups are tested as often.
    pub(crate) async fn tried(every: &str) -> Self {
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
            "restores.storageBytes = 1099511627776\nbackups.schedule = {:?}\nbackups.pgbackrest = {{ stanza = \"main\", configFile = {:?}, scratch = {:?}, tryEvery = {every:?} }}",
            open_window(),
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
    pub(crate) async fn back_up(&self) {
        self.api().ready("vault", "db").await;
        let sql = "create table orders (id bigint generated always as identity primary key, item text);
                   insert into orders (item) select 'item ' || n from generate_series(1, 300) n;
               create unlogged table cache as select 1 as n";
        can(&self.admin(), sql).await;
        pgbackrest(self.folder.path(), self.owner, &["--type=full", "backup"]);
    }

    /// The id of the only backup.
    pub(crate) async fn backup(&self) -> String {
        let listed = self.api().list("/v1/namespaces/vault/databases/db/snapshots").await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        listed[0]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn api(&self) -> Api {
        self.serve.api()
    }

    pub(crate) fn admin(&self) -> Credential {
        Credential::read(&self.site.secrets, "vault", "db", "admin")
    }

    pub(crate) async fn restored(&self, spec: Value) -> Value {
        let restore = self.request(spec).await;
        over(&self.api(), restore["id"].as_str().unwrap()).await
    }

    pub(crate) async fn request(&self, spec: Value) -> Value {
        let restore = self.api().post("/v1/namespaces/vault/databases/db/restores", spec).await.expect(202).json;
        // The answer may be cut off.
        let path = format!("/v1/restores/{}/approve", restore["id"].as_str().unwrap());
        self.api().try_send("POST", &path, &[], None).await.ok();
        restore
    }

    pub(crate) async fn orders(&self) -> Vec<String> {
        rows(&self.site.superuser, Some("vault-db"), "select count(*)::text from orders").await
    }

    /// What is left of servers: folders and processes.
    pub(crate) async fn nothing_is_left(&self) {
        let scratch = self.folder.join("scratch");
        soon("no server is left", || async {
            let left: Vec<PathBuf> = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
            let running = processes_of(&scratch);
            if left.is_empty() && running.is_empty() { Ok(()) } else { Err(format!("{left:?} {running:?}")) }
        })
        .await;
    }
}

/// A window of the schedule that is open now, and whose moment for the cluster `default` has been.
pub(crate) fn open_window() -> String {
    let at = |minutes| (Utc::now() + TimeDelta::minutes(minutes)).format("%H:%M").to_string();
    format!("{}-{}", at(-600), at(30))
}

pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    all.map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.contains(&folder))
        .collect()
}

/// What the server has written by now is in the repository.
pub(crate) async fn archived(kept: &Kept) {
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
