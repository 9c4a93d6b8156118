//! A whole cluster is lost: from backups to every tenant working, as docs/disaster.md has it.

use std::fs;

use pgtenant_tests::{
    Cli, Credential, Finished, Own, SiteOptions, eventually, rows, superuser_sql, try_sql, works_for_an_application,
};

use serde_json::json;

use crate::shop::{PATIENCE, Shop};

const NAMES: [&str; 3] = ["orders", "carts", "stock"];

/// A control plane whose cluster's databases are dumped, and are lost with the cluster; and a time before that.
struct Lost {
    shop: Shop,
    passwords: Vec<[Credential; 3]>,
    before: String,
}

impl Lost {
    async fn new() -> Self {
        let own = Own::start(false, &[]).await;
        let mut shop = Shop::open_with(SiteOptions { backups: true, ..SiteOptions::on(own.place()).await }).await;
        for name in NAMES {
            shop.stock(name).await;
            shop.dump(name).await;
        }
        let before =
            rows(&own.place().superuser, None, "select to_char(now(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')").await;
        shop.plane.serve.stop().await;
        let passwords = NAMES.map(|name| Credential::of(&shop.plane.site.secrets, &shop.namespace, name)).to_vec();
        Self { shop, passwords, before: before[0].clone() }
    }

    /// Another cluster, empty, in the place of the one that is lost.
    async fn on_another_cluster(&mut self) -> Own {
        let (own, site) = (Own::start(false, &[]).await, &self.shop.plane.site);
        let (name, password) = (&site.provisioner, &site.provisioner_password);
        let role = format!("create role \"{name}\" login createdb createrole password '{password}'");
        superuser_sql(&own.place().superuser, None, &role).await;
        let text = fs::read_to_string(&site.config).unwrap();
        let (head, cluster) = text.split_once("[clusters.default]").unwrap();
        let changed: Vec<String> = cluster
            .lines()
            .map(|line| match line.split(" = ").next() {
                Some("topology") => format!("topology = {{ streaming = {{ hosts = {:?} }} }}", own.place().hosts),
                Some("tls") => format!("tls = {{ caFile = {:?} }}", own.place().ca),
                _ => line.to_owned(),
            })
            .collect();
        fs::write(&site.config, format!("{head}[clusters.default]{}\n", changed.join("\n"))).unwrap();
        self.shop.plane.serve = site.serve("after").await;
        self.shop.plane.serve.is_ready().await;
        own
    }

    /// The one command.
    async fn restore_all(&self) -> Finished {
        let (serve, site) = (&self.shop.plane.serve, &self.shop.plane.site);
        let cli = Cli::of(&serve.url, &site.token);
        cli.run(&["restore", "all", "--cluster", "default", "--time", &self.before, "--yes"]).await
    }

    async fn every_tenant_works(&self) {
        let site = &self.shop.plane.site;
        for (name, before) in NAMES.iter().zip(&self.passwords) {
            assert_eq!(
                (self.shop.count(name, "orders").await, self.shop.count(name, "lines").await),
                (Ok(500), Ok(500))
            );
            for (now, before) in Credential::of(&site.secrets, &self.shop.namespace, name).iter().zip(before) {
                assert_eq!(now.password, before.password, "{name}: no new password");
            }
            works_for_an_application(&site.secrets, &self.shop.namespace, name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_comes_back_from_dumps_with_one_command() {
    let mut lost = Lost::new().await;
    let _own = lost.on_another_cluster().await;
    // Nothing is written to servers that the ledger does not know, until a person has said that they are the right ones.
    let cli = Cli::of(&lost.shop.plane.serve.url, &lost.shop.plane.site.token);
    eventually("the new servers are accepted", PATIENCE, || async {
        let accepted = cli.run(&["cluster", "accept", "default", "--yes"]).await;
        if accepted.status == 0 { Ok(()) } else { Err(accepted.stderr) }
    })
    .await;
    for name in NAMES {
        lost.shop.api().is_ready(&lost.shop.namespace, name).await;
        lost.shop.count(name, "orders").await.expect_err("it is there again, and empty");
    }
    let (api, namespace) = (lost.shop.api(), lost.shop.namespace.clone());
    api.ready_with(&namespace, json!({"name": "kept", "mode": "protected"})).await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/kept/release")).await.expect(202);
    // What was asked for by the command, which was killed then, and what somebody else has asked for.
    let reason = "all databases of a cluster that was lost";
    lost.shop.request("carts", json!({"from": {"time": lost.before}, "reason": reason})).await;
    let others = lost.shop.request("stock", json!({"from": {"time": lost.before}})).await;
    let said = lost.restore_all().await.expect(1).stderr;
    assert!(said.contains("kept: left out: it is Retained") && said.contains("waits to be approved"), "{said}");
    assert!(said.contains("1 of 3 are not restored"), "{said}");
    lost.shop.approve(&others).await;
    assert!(lost.restore_all().await.expect(0).stdout.contains("1 databases of cluster default are restored"));
    lost.every_tenant_works().await;

    // What somebody has written since is not put aside by the same command again.
    try_sql(&lost.shop.credential("orders", "write"), "delete from lines where order_id = 1").await.unwrap();
    assert!(lost.restore_all().await.expect(0).stdout.contains("0 databases of cluster default are restored"));
    assert_eq!(lost.shop.count("orders", "lines").await, Ok(499));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_ledger_either_definitions_stores_and_dumps_are_enough() {
    let mut lost = Lost::new().await;
    let site = &lost.shop.plane.site;
    superuser_sql(&site.ledger, None, "drop schema public cascade").await;
    let owner = "select datdba::regrole::text from pg_database where datname = current_database()";
    let owner = &rows(&site.ledger, None, owner).await[0];
    superuser_sql(&site.ledger, None, &format!("create schema public authorization {owner}")).await;
    site.cli().run(&["migrate", "--config", &site.config.to_string_lossy()]).await.expect(0);
    site.add_token("tests", "platform", &[], &site.token).await;
    let _own = lost.on_another_cluster().await;
    for name in NAMES {
        lost.shop.api().ready(&lost.shop.namespace, name).await;
    }
    assert!(lost.restore_all().await.expect(0).stdout.contains("3 databases of cluster default are restored"));
    lost.every_tenant_works().await;
}
