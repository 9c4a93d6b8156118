//! kill -9 at each named step, while a database is made, removed, given new passwords, and put right.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use pgtenant_tests::{
    Api, Credential, Own, Place, Site, SiteOptions, eventually, files_below, measured, repository, rows, superuser_sql,
    unique, works_for_an_application,
};
use serde_json::json;

/// What is asked for while the fault point is armed.
const WORKS: [&str; 4] = ["drift", "rotate", "delete", "create"];

/// Every `reach("…")` of the engine's sources, and before and after each step of a plan.
fn points() -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let folder = repository().join("services/engine/src");
    // No work on a claim comes to those of restores, which have tests of their own.
    let of_claims = |file: &String| file.ends_with(".rs") && !file.starts_with("restore/");
    for file in files_below(&folder).into_iter().filter(of_claims) {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        points.extend(quoted(&text, "reach(").map(str::to_owned));
    }
    let plan = std::fs::read_to_string(repository().join("services/postgres/src/plan/mod.rs")).unwrap();
    let steps = plan.split_once("pub mod step {").expect("the names of the steps").1.split_once("\n}").unwrap().0;
    points.extend(quoted(steps, "&str = ").flat_map(|step| [format!("before:{step}"), format!("after:{step}")]));
    points
}

/// The texts in quotes that follow `sign` at once.
fn quoted<'a>(text: &'a str, sign: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(sign).skip(1).filter_map(|rest| rest.strip_prefix('"')?.split_once('"').map(|(text, _)| text))
}

/// One fault point on a control plane of its own.
struct Trial {
    site: Site,
    namespace: String,
    point: String,
    /// Works in which the process came to the point.
    killed: Vec<&'static str>,
}

impl Trial {
    async fn new(place: Place, point: String) -> Self {
        let options = SiteOptions { ledger: place.clone(), ..SiteOptions::on(place).await };
        let site = Site::new(SiteOptions { look: "10m".to_owned(), lease: "3s".to_owned(), ..options }).await;
        Self { site, namespace: unique("step"), point, killed: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        format!("/v1/namespaces/{}/databases/{name}", self.namespace)
    }

    /// Databases for the works that need one; that of the drift is due for a look at once.
    async fn prepare(&self) {
        let mut serve = self.site.serve("prepare").await;
        serve.is_ready().await;
        for name in ["rotate", "delete"] {
            serve.api().ready(&self.namespace, name).await;
        }
        serve.stop().await;
        let mut serve = self.site.serve_with("prepare", &[("PGTENANT_LOOK__INTERVAL", "1s")]).await;
        serve.api().ready(&self.namespace, "drift").await;
        serve.stop().await;
        let database = format!("{}-drift", self.namespace);
        let by_hand = format!(
            "revoke connect on database \"{database}\" from \"{database}-read\"; alter role \"{database}-write\" password 'x';
             grant \"{database}-admin\" to \"{database}-write\"; grant connect on database \"{database}\" to public"
        );
        superuser_sql(&self.site.superuser, None, &by_hand).await;
        let inside = format!(
            "alter default privileges for role \"{database}-admin\" in schema public revoke all on tables from \"{database}-read\";
             revoke usage on schema public from \"{database}-read\"; set role \"{database}-admin\"; create table early (n int)"
        );
        superuser_sql(&self.site.superuser, Some(&database), &inside).await;
    }

    /// Asks for the work; an answer may not come.
    async fn ask(&self, api: &Api, work: &str) {
        let list = format!("/v1/namespaces/{}/databases", self.namespace);
        let key = [("idempotency-key", "the-only-one")];
        let body = json!({"name": "create", "schemas": ["more"], "extensions": ["pgcrypto"]});
        let what = format!("{work} is answered");
        eventually(&what, Duration::from_secs(30), || async {
            let answer = match work {
                "create" => api.try_send("POST", &list, &[], Some(&body)).await,
                "rotate" => {
                    api.try_send("POST", &format!("{}/credentials/rotate", self.path("rotate")), &key, None).await
                }
                "delete" => api.try_send("DELETE", &self.path("delete"), &[], None).await,
                _ => return Ok(()),
            };
            match answer {
                // On a busy machine the ledger may be too slow; that is asked again.
                Ok(answer) if answer.status == 503 => Err(answer.text),
                Ok(answer) => {
                    assert!(answer.status < 400 || (work, answer.status) == ("delete", 404), "{work}: {}", answer.text);
                    Ok(())
                }
                Err(_) => Ok(()),
            }
        })
        .await;
    }

    /// Whether the work is done; `Err` says how far it is.
    async fn is_done(&self, api: &Api, work: &str) -> Result<(), String> {
        let answer = api.try_send("GET", &self.path(work), &[], None).await.map_err(|error| error.to_string())?;
        let db = &answer.json;
        let ready = db["state"] == "Ready" && db["generation"] == db["observedGeneration"];
        let done = match work {
            "create" => ready,
            "delete" => answer.status == 404,
            "rotate" => ready && db["generation"] == 2,
            _ => ready && self.is_put_right().await,
        };
        if done { Ok(()) } else { Err(answer.text) }
    }

    async fn is_put_right(&self) -> bool {
        let database = format!("{}-drift", self.namespace);
        let sql = format!(
            "select (has_database_privilege('{database}-read', '{database}', 'connect')
                     and not has_database_privilege('public', '{database}', 'connect')
                     and not pg_has_role('{database}-write', '{database}-admin', 'member'))::text"
        );
        let inside = format!(
            "select (has_schema_privilege('{database}-read', 'public', 'usage')
                     and has_table_privilege('{database}-read', 'early', 'select'))::text"
        );
        rows(&self.site.superuser, None, &sql).await == ["true"]
            && rows(&self.site.superuser, Some(&database), &inside).await == ["true"]
    }

    /// Does the work with the point armed, until it is done or the process has killed itself.
    async fn work(&mut self, work: &'static str) {
        let fault = format!("kill@{}", self.point);
        let mut serve = self.site.serve_with(work, &[("PGTENANT_FAULT", &fault)]).await;
        let api = serve.api();
        self.ask(&api, work).await;
        let what = format!("{work} is done, or killed at {}", self.point);
        let died = eventually(&what, Duration::from_secs(40), || async {
            let done = self.is_done(&api, work).await;
            if serve.running.is_running() { done.map(|()| false) } else { Ok(true) }
        })
        .await;
        if died {
            self.killed.push(work);
        } else {
            serve.stop().await;
        }
    }

    /// A life without a fault ends with everything that was asked for, and nothing else.
    async fn check(&self, passwords: &[Credential; 3]) {
        let serve = self.site.serve("after").await;
        let api = serve.api();
        for work in WORKS {
            // What was not answered is asked for again, as clients do.
            self.ask(&api, work).await;
        }
        for work in WORKS {
            let what = format!("{work}, after kill@{}", self.point);
            eventually(&what, Duration::from_secs(60), || self.is_done(&api, work)).await;
        }
        for name in ["create", "drift", "rotate"] {
            works_for_an_application(&self.site.secrets, &self.namespace, name).await;
        }
        let now = Credential::of(&self.site.secrets, &self.namespace, "rotate");
        let all_new = now.iter().zip(passwords).all(|(new, old)| new.password != old.password);
        assert!(all_new, "kill@{}: the rotation has left an old password", self.point);
        let names = ["create", "drift", "rotate"].map(|name| format!("{}-{name}", self.namespace));
        let like = format!("like '{}-%' order by 1", self.namespace);
        let sql = format!("select datname::text from pg_database where datname {like}");
        assert_eq!(rows(&self.site.superuser, None, &sql).await, names, "kill@{}: databases", self.point);
        let sql = format!("select rolname::text from pg_roles where rolname {like}");
        let roles = rows(&self.site.superuser, None, &sql).await;
        let second = roles.iter().filter(|role| role.ends_with("-b")).count();
        assert_eq!(
            (roles.len(), second),
            (12, 3),
            "kill@{}: three of each, and the rotated ones' second logins: {roles:?}",
            self.point
        );
        assert_eq!(
            files_below(&self.site.secrets).len(),
            9,
            "kill@{}: {:?}",
            self.point,
            files_below(&self.site.secrets)
        );
    }
}

async fn run(place: Place, point: String) -> (String, Vec<&'static str>) {
    let mut trial = Trial::new(place, point).await;
    trial.prepare().await;
    let passwords = Credential::of(&trial.site.secrets, &trial.namespace, "rotate");
    for work in WORKS {
        trial.work(work).await;
    }
    trial.check(&passwords).await;
    (trial.point, trial.killed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_named_step_of_any_work_loses_nothing() {
    let points = points();
    assert!(points.len() >= 16, "the engine has few fault points: {points:?}");
    // Each waits for leases to run out, so many at once take hardly longer than one.
    let own = Own::start(false, &[("max_connections", "300")]).await;
    let trials = stream::iter(points).map(|point| run(own.place(), point));
    let results: Vec<_> = trials.buffer_unordered(8).collect().await;
    for (point, killed) in &results {
        assert!(!killed.is_empty(), "no work came to the point {point}");
    }
    let kills: usize = results.iter().map(|(_, killed)| killed.len()).sum();
    measured(&format!("steps: {kills} kills at {} named steps: {results:?}", results.len()));
}

#[tokio::test]
async fn credentials_of_a_try_that_was_cut_off_go_with_the_claim() {
    let options = SiteOptions::shared().await;
    let site = Site::new(SiteOptions { look: "10m".to_owned(), lease: "3s".to_owned(), ..options }).await;
    let namespace = unique("cut-off");
    let mut serve = site.serve_with("cut-off", &[("PGTENANT_FAULT", "kill@after:store")]).await;
    // Before that, a slow ledger may not know the cluster yet, and the claim would be refused.
    serve.is_ready().await;
    let list = format!("/v1/namespaces/{namespace}/databases");
    serve.api().try_send("POST", &list, &[], Some(&json!({"name": "db"}))).await.ok();
    serve.running.end(Duration::from_secs(20)).await;
    assert_eq!(files_below(&site.secrets).len(), 3, "stored before the server has them");

    // The dead process's lease is still held, so the next thing that is done is the removal.
    let serve = site.serve("after").await;
    serve.api().delete(&format!("{list}/db")).await.expect(202);
    serve.api().is_gone(&namespace, "db").await;
    assert_eq!(files_below(&site.secrets), [""; 0], "credentials of a claim that is gone");
}
