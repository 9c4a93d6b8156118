//! Nothing is dropped because a whole folder is gone; and `plan`, which tells beforehand.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgtenant_tests::{Apps, Cli, Folder, Serve, Site, SiteOptions, never, soon};
use serde_json::Value;

/// A control plane that follows a folder of its own.
struct Followed {
    site: Site,
    folder: Folder,
    apps: Apps,
}

impl Followed {
    async fn new() -> Self {
        let site = Site::new(SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await }).await;
        let folder = Folder::new("apps");
        let root = folder.join("apps");
        fs::create_dir(&root).unwrap();
        Self { site, folder, apps: Apps::new(root) }
    }

    async fn serve(&self, further: &[(&str, &str)]) -> Serve {
        let root = self.apps.root().to_string_lossy().into_owned();
        let env = [&[("PGTENANT_APPS__DIR", &*root), ("PGTENANT_APPS__RESCAN", "1s")], further].concat();
        let serve = self.site.serve_with("serve", &env).await;
        serve.is_ready().await;
        serve
    }

    fn aside(&self) -> PathBuf {
        self.folder.join("aside")
    }
}

/// The problem of the folder as a whole.
async fn held_back(serve: &Serve, word: &str) {
    soon("a problem of the whole folder", || async {
        let found = serve.api().list("/v1/apps/problems").await;
        let said = found.iter().any(|problem| problem["message"].as_str().unwrap().contains(word));
        if said { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn all_stay(serve: &Serve, before: &[Value]) {
    // A removal would have been believed by then.
    never("a database was touched", Duration::from_secs(7), || async {
        let now = serve.api().list("/v1/databases").await;
        let same = now.len() == before.len()
            && now.iter().zip(before).all(|(a, b)| a["createdAt"] == b["createdAt"] && a["state"] == b["state"]);
        if same { Ok(()) } else { Err(format!("{now:#?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_gone_empty_or_shrunk_at_once_drops_nothing_until_that_is_allowed() {
    let followed = Followed::new().await;
    let apps = &followed.apps;
    for number in 0..4 {
        apps.define(
            &format!("guard/app-{number}"),
            &["a", "b", "c"].map(|n| format!("{n}-{number}")).each_ref().map(|n| &**n),
        );
    }
    let mut serve = followed.serve(&[]).await;
    for number in 0..4 {
        serve.api().is_ready("guard", &format!("c-{number}")).await;
    }
    for (number, name) in (0..4).flat_map(|number| ["a", "b"].map(|name| (number, name))) {
        serve.api().is_ready("guard", &format!("{name}-{number}")).await;
    }
    let before = serve.api().list("/v1/databases").await;
    assert_eq!(before.len(), 12);

    // Moved away: it can not be read.
    fs::rename(apps.root(), followed.aside()).unwrap();
    held_back(&serve, "no database is removed").await;
    all_stay(&serve, &before).await;
    // An empty folder in its place, as a mount that failed.
    fs::create_dir(apps.root()).unwrap();
    held_back(&serve, "nothing is removed").await;
    all_stay(&serve, &before).await;
    fs::remove_dir(apps.root()).unwrap();
    fs::rename(followed.aside(), apps.root()).unwrap();
    soon("the folder is fine again", || async {
        let found = serve.api().list("/v1/apps/problems").await;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    all_stay(&serve, &before).await;

    // More than ten at once, with one application left.
    fs::create_dir(followed.aside()).unwrap();
    apps.define("guard/other", &["other"]);
    serve.api().is_ready("guard", "other").await;
    let before = serve.api().list("/v1/databases").await;
    for number in 0..4 {
        fs::rename(apps.root().join(format!("guard/app-{number}")), followed.aside().join(number.to_string())).unwrap();
    }
    held_back(&serve, "allow_mass_removal").await;
    all_stay(&serve, &before).await;

    // Somebody means it.
    serve.stop().await;
    let serve = followed.serve(&[("PGTENANT_APPS__ALLOW_MASS_REMOVAL", "true")]).await;
    for number in 0..4 {
        serve.api().is_gone("guard", &format!("a-{number}")).await;
    }
    serve.api().is_ready("guard", "other").await;
}

#[tokio::test]
async fn plan_tells_what_the_folder_would_change_and_its_exit_status_says_whether() {
    let followed = Followed::new().await;
    let apps = &followed.apps;
    apps.define("plans/app", &["one"]);
    apps.write("plans/kept", "postgresqlDatabases:\n  - name: kept\n    mode: protected\n");
    let serve = followed.serve(&[]).await;
    serve.api().is_ready("plans", "one").await;
    serve.api().is_ready("plans", "kept").await;
    let cli = Cli::of(&serve.url, &followed.site.token);
    let root = apps.root().to_string_lossy().into_owned();

    // A branch of the repository, which the control plane does not follow.
    let branch = Apps::new(followed.folder.join("branch"));
    let branch_root = branch.root().to_string_lossy().into_owned();
    let copy = || {
        fs::remove_dir_all(branch.root()).ok();
        branch.define("plans/app", &["one"]);
        branch.write("plans/kept", "postgresqlDatabases:\n  - name: kept\n    mode: protected\n");
    };

    let nothing = cli.run(&["plan", "-f", &root, "--exit-code"]).await.expect(0);
    assert!(nothing.stdout.contains("2 unchanged"), "{}", nothing.stdout);

    copy();
    branch.define("plans/app", &["one", "two"]);
    cli.run(&["plan", "-f", &branch_root]).await.expect(0);
    let changes = cli.run(&["plan", "-f", &branch_root, "--exit-code"]).await.expect(3);
    assert!(changes.stdout.contains("plans/two") && !changes.stdout.contains("SCRAM-SHA-256$"), "{}", changes.stdout);
    let report = cli.run(&["plan", "-f", &branch_root, "--output", "json"]).await.expect(0).json();
    let actions: Vec<_> = report["claims"].as_array().unwrap().iter().map(|c| (&c["name"], &c["action"])).collect();
    assert_eq!(serde_json::json!(actions), serde_json::json!([["one", "none"], ["two", "create"], ["kept", "none"]]));
    let sql = cli.run(&["plan", "-f", &branch_root, "--sql"]).await.expect(0).stdout;
    assert!(sql.contains("CREATE DATABASE \"plans-two\"") && sql.contains("CREATE ROLE \"plans-two-admin\""), "{sql}");
    assert!(!sql.contains("SCRAM-SHA-256$"), "verifiers are left out: {sql}");

    // Taken out: what is standard would be dropped, what is protected kept.
    branch.define("plans/app", &[]);
    branch.define("plans/kept", &[]);
    let removal = cli.run(&["plan", "-f", &branch_root, "--exit-code", "--output", "json"]).await.expect(3).json();
    let action = |name: &str| {
        let claims = removal["claims"].as_array().unwrap();
        claims.iter().find(|claim| claim["name"] == name).map(|claim| claim["action"].as_str().unwrap().to_owned())
    };
    assert_eq!(action("one").as_deref(), Some("drop"), "{removal}");
    assert_eq!(action("kept").as_deref(), Some("retain"), "{removal}");

    copy();
    branch.write("plans/app", "postgresqlDatabases:\n  - name: one\n    mood: standard\n");
    let problem = cli.run(&["plan", "-f", &branch_root, "--exit-code"]).await.expect(1);
    let place = "plans/app/values.yaml:3";
    assert!(problem.stderr.contains(place) && problem.stderr.contains("mood"), "{}", problem.stderr);
    assert!(!problem.stdout.contains("drop"), "a broken file is not a removal: {}", problem.stdout);

    cli.run(&["plan", "-f", &followed.folder.join("no-such-folder").to_string_lossy()]).await.expect(1);
    cli.run(&["plan"]).await.expect(2);
    // Nothing of all this was done.
    assert_eq!(serve.api().list("/v1/databases").await.len(), 2);
}
