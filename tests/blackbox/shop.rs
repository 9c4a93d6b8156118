//! A control plane with a place for dumps, and a tenant's database with something in it.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use pgtenant_tests::{Api, Credential, SiteOptions, can, connect, eventually, rows, unique};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::shared::Plane;

/// For what copies a small database.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A control plane with a place for dumps, and what a tenant does with it.
pub(crate) struct Shop {
    pub(crate) plane: Plane,
    pub(crate) namespace: String,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::open_with(SiteOptions { backups: true, ..SiteOptions::shared().await }).await
    }

    pub(crate) async fn open_with(options: SiteOptions) -> Self {
        Self::of(Plane::start(options).await)
    }

    pub(crate) fn of(plane: Plane) -> Self {
        Self { plane, namespace: unique("shop") }
    }

    /// Starts the control plane anew, to be killed or to stall at a point.
    pub(crate) async fn again(&mut self, name: &str, fault: Option<&str>) {
        self.plane.serve.stop().await;
        let variables: Vec<_> = fault.iter().map(|fault| ("PGTENANT_FAULT", *fault)).collect();
        self.plane.serve = self.plane.site.serve_with(name, &variables).await;
        self.plane.serve.is_ready().await;
    }

    pub(crate) fn api(&self) -> Api {
        self.plane.api()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("/v1/namespaces/{}/databases/{name}", self.namespace)
    }

    /// The database of a claim.
    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    pub(crate) fn credential(&self, name: &str, tier: &str) -> Credential {
        Credential::read(&self.plane.site.secrets, &self.namespace, name, tier)
    }

    /// A database with something in it.
    pub(crate) async fn stock(&self, name: &str) {
        self.api().ready(&self.namespace, name).await;
        can(
            &self.credential(name, "admin"),
            "create table orders (id bigint generated always as identity primary key, item text not null);
             create table lines (order_id bigint references orders, n int check (n > 0));
             create index on lines (order_id);
             insert into orders (item) select 'item ' || n from generate_series(1, 500) n;
             insert into lines select id, 1 + id % 7 from orders;
             create view totals as select order_id, sum(n) from lines group by 1;
             create materialized view many as select * from totals where sum > 3",
        )
        .await;
    }

    pub(crate) async fn count(&self, name: &str, table: &str) -> Result<i64, String> {
        let mut db = connect(&self.credential(name, "read")).await.map_err(|error| error.to_string())?;
        let sql = format!("select count(*) from {table}");
        let row =
            sqlx::query(AssertSqlSafe(sql.as_str())).fetch_one(&mut db).await.map_err(|error| error.to_string())?;
        Ok(row.get(0))
    }

    pub(crate) async fn dump(&self, name: &str) -> String {
        let begun = self.api().ask(&format!("{}/snapshots", self.path(name))).await.expect(202).json;
        let done = self.api().finished(begun["id"].as_str().unwrap()).await;
        assert_eq!(done["state"], "Succeeded", "{done}");
        done["message"].as_str().unwrap().split(": ").next().unwrap().to_owned()
    }

    /// Waits until the first dump of a database was restored for a try, which takes room meanwhile.
    pub(crate) async fn is_tried(&self, name: &str) {
        eventually("the dump is tried", PATIENCE, || async {
            let listed = self.api().list(&format!("{}/snapshots", self.path(name))).await;
            if listed.iter().any(|one| one["verifiedAt"].is_string()) { Ok(()) } else { Err(format!("{listed:?}")) }
        })
        .await;
        self.nothing_beside().await;
    }

    pub(crate) async fn request(&self, name: &str, spec: Value) -> Value {
        self.api().post(&format!("{}/restores", self.path(name)), spec).await.expect(202).json
    }

    pub(crate) async fn approve(&self, restore: &Value) {
        let id = restore["id"].as_str().unwrap();
        self.api().ask(&format!("/v1/restores/{id}/approve")).await.expect(200);
    }

    /// Waits until a restore is in this phase.
    pub(crate) async fn reaches(&self, restore: &Value, phase: &str, further: impl Fn(&Value) -> bool) {
        let path = format!("/v1/restores/{}", restore["id"].as_str().unwrap());
        eventually(&format!("it is {phase}"), PATIENCE, || async {
            let now = self.api().try_send("GET", &path, &[], None).await.map_err(|error| error.to_string())?;
            if now.json["phase"] == phase && further(&now.json) { Ok(()) } else { Err(now.text) }
        })
        .await;
    }

    /// Fills a table with this many MiB.
    pub(crate) async fn fill(&self, name: &str, mib: usize) {
        let sql = "create table big as select n, repeat(md5(n::text), 31) as pad from generate_series(1, 1024 * ";
        can(&self.credential(name, "admin"), &format!("{sql} {mib}) n; alter table big add primary key (n)")).await;
    }

    pub(crate) async fn over(&self, restore: &Value) -> Value {
        over(&self.api(), restore["id"].as_str().unwrap()).await
    }

    /// Asks, says yes, and waits for the end.
    pub(crate) async fn restored(&self, name: &str, spec: Value) -> Value {
        let restore = self.request(name, spec).await;
        self.approve(&restore).await;
        self.over(&restore).await
    }

    /// Databases and logins that stand beside the namespace's claims.
    pub(crate) async fn beside(&self) -> Vec<String> {
        let sql = format!(
            "select datname::text from pg_database where datname ~ '^{0}-.*-(restore|before|after)-[0-9a-f]{{8}}$'
             union all select m.rolname::text from pg_auth_members a join pg_roles m on m.oid = a.member
             join pg_roles r on r.oid = a.roleid where m.rolname like 'pgtenant_job%' and starts_with(r.rolname, '{0}-')
             order by 1",
            self.namespace
        );
        let mut found = rows(&self.plane.site.superuser, None, &sql).await;
        found.dedup();
        found
    }
}

impl Shop {
    pub(crate) async fn nothing_beside(&self) {
        self.only_beside(&[]).await;
    }

    /// Waits until nothing else stands beside: a dump that has waited for a restore may just be tried.
    pub(crate) async fn only_beside(&self, wanted: &[&str]) {
        eventually(&format!("only {wanted:?} is left beside"), PATIENCE, || async {
            let left = self.beside().await;
            if left == wanted { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

/// Times are told to the second: the one that is returned comes after all that was before, and before all that comes.
pub(crate) async fn next_second() -> String {
    let second = async |after: i64| {
        eventually("the next second", PATIENCE, || async {
            let now = Utc::now();
            if now.timestamp() > after { Ok(now) } else { Err("not yet".to_owned()) }
        })
        .await
    };
    let time = second(Utc::now().timestamp()).await;
    second(time.timestamp()).await;
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(crate) async fn over(api: &Api, id: &str) -> Value {
    eventually("the restore is over", PATIENCE, || async {
        let answer = api.try_send("GET", &format!("/v1/restores/{id}"), &[], None).await.map_err(|e| e.to_string())?;
        let phase = answer.json["phase"].as_str().unwrap_or_default().to_owned();
        let over = ["Succeeded", "Failed", "Cancelled", "Rejected"].contains(&phase.as_str());
        if over { Ok(answer.json) } else { Err(answer.text) }
    })
    .await
}
