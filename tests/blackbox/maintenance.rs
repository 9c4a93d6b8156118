//! Nothing is changed on a cluster that somebody works on, and what was asked for goes on by itself afterwards.

use std::time::Duration;

use pgtenant_tests::{Cli, Credential, SiteOptions, can, eventually, rows, unique, works_for_an_application};
use serde_json::{Value, json};

use crate::shared::Plane;

const PATIENCE: Duration = Duration::from_secs(60);

fn condition<'a>(claim: &'a Value, kind: &str) -> &'a Value {
    let found = claim["conditions"].as_array().unwrap().iter().find(|one| one["type"] == kind);
    found.unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_waits_and_says_why_and_goes_on() {
    let plane = Plane::start(SiteOptions { backups: true, ..SiteOptions::shared().await }).await;
    let (api, namespace) = (plane.api(), unique("maintained"));
    let path = |name: &str| format!("/v1/namespaces/{namespace}/databases/{name}");
    for name in ["changed", "removed", "idle"] {
        api.ready(&namespace, name).await;
    }
    let cli = Cli::of(&plane.serve.url, &plane.site.token);
    cli.run(&["cluster", "maintenance", "default", "--reason", "upgrade to 17"]).await.expect(0);
    let cluster = api.get("/v1/clusters/default").await.expect(200).json;
    assert_eq!(
        (&cluster["maintenance"]["reason"], &cluster["maintenance"]["requestedBy"]),
        (&"upgrade to 17".into(), &"token:tests".into())
    );
    assert!(cli.run(&["cluster", "list"]).await.expect(0).stdout.contains("in maintenance: upgrade to 17"));

    // A new claim, a change, a removal, a dump and new passwords: taken, and not done.
    api.create(&namespace, "new").await;
    api.patch(&path("changed"), json!({"connectionLimit": 7})).await.expect(200);
    api.delete(&path("removed")).await.expect(202);
    let backup = api.ask(&format!("{}/snapshots", path("idle"))).await.expect(202).json;
    let waits = |name: &'static str, kind: &'static str| {
        let (api, path) = (&api, path(name));
        async move {
            eventually(&format!("{name} says why it waits"), PATIENCE, || async {
                let claim = api.get(&path).await.expect(200).json;
                let why = condition(&claim, kind);
                let told = why["message"].as_str().is_some_and(|text| text.contains("upgrade to 17"));
                if why["reason"] == "Maintenance" && told { Ok(()) } else { Err(claim.to_string()) }
            })
            .await;
        }
    };
    waits("new", "Ready").await;
    waits("changed", "Database").await;
    waits("removed", "Database").await;
    let superuser = &plane.site.superuser;
    let there = |sql: String| async move { rows(superuser, None, &sql).await[0].clone() };
    let changed = api.get(&path("changed")).await.expect(200).json;
    assert_eq!(changed["state"], "Ready", "its database is used as ever: {changed}");
    let idle = api.get(&path("idle")).await.expect(200).json;
    assert_eq!((&idle["state"], &condition(&idle, "Ready")["status"]), (&"Ready".into(), &"True".into()), "{idle}");
    works_for_an_application(&plane.site.secrets, &namespace, "idle").await;
    let limit = format!("select rolconnlimit::text from pg_roles where rolname = '{namespace}-changed-write'");
    let databases =
        format!("select count(*)::text from pg_database where datname in ('{namespace}-new', '{namespace}-removed')");
    assert_eq!((there(limit.clone()).await.as_str(), there(databases.clone()).await.as_str()), ("-1", "1"));
    // What drifts meanwhile is left to whoever works there.
    can(
        &Credential::read(&plane.site.secrets, &namespace, "idle", "admin"),
        "revoke usage on schema public from public",
    )
    .await;

    cli.run(&["cluster", "maintenance", "default", "--end"]).await.expect(0);
    api.is_ready(&namespace, "new").await;
    eventually("the rest is done", PATIENCE, || async {
        let done = (there(limit.clone()).await, there(databases.clone()).await);
        if done == ("7".to_owned(), "1".to_owned()) && api.get(&path("removed")).await.status == 404 {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    })
    .await;
    assert_eq!(api.finished(backup["id"].as_str().unwrap()).await["state"], "Succeeded");
    works_for_an_application(&plane.site.secrets, &namespace, "new").await;
    let claim = api.is_ready(&namespace, "changed").await;
    assert_eq!(condition(&claim, "Database")["status"], "True", "{claim}");
    assert!(api.get("/v1/clusters/default").await.expect(200).json["maintenance"].is_null());
}

#[tokio::test]
async fn only_the_platform_team_begins_one_and_it_says_why() {
    let plane = Plane::start(SiteOptions::shared().await).await;
    let secret = unique("pgt-tenant");
    plane.site.add_token("tenant", "tenant", &["shop"], &secret).await;
    let refused =
        Cli::of(&plane.serve.url, &secret).run(&["cluster", "maintenance", "default", "--end"]).await.expect(1);
    assert!(refused.stderr.contains("platform"), "{}", refused.stderr);
    let cli = Cli::of(&plane.serve.url, &plane.site.token);
    for reason in ["", " ", "two\nlines", &"x".repeat(501)] {
        let refused = cli.run(&["cluster", "maintenance", "default", "--reason", reason]).await.expect(1);
        assert!(refused.stderr.contains("say why"), "{}", refused.stderr);
    }
    cli.run(&["cluster", "maintenance", "default"]).await.expect(2);
    cli.run(&["cluster", "maintenance", "nowhere", "--reason", "x"]).await.expect(1);
}
