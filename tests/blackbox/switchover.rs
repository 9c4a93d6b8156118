//! A switchover that somebody asks for, on clusters whose tool can be asked, and the answer of those whose can not.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pgtenant_lab::LabKind;
use pgtenant_tests::{Cli, Credential, Finished, Serve, Site, can, eventually, measured, run, unique};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::shared;
use crate::topologies::{Cluster, PATIENCE, seen};

/// A control plane beside a lab, a database on it, and its login that writes.
struct Attached {
    cluster: Cluster,
    site: Site,
    serve: Serve,
    write: Credential,
}

impl Attached {
    async fn to(kind: LabKind) -> Self {
        let cluster = Cluster::up(kind).await;
        let site = cluster.site().await;
        let serve = site.serve("serve").await;
        serve.is_ready().await;
        let (api, namespace) = (serve.api(), unique("switchover"));
        api.ready(&namespace, "orders").await;
        let admin = Credential::read(&site.secrets, &namespace, "orders", "admin");
        can(&admin, "create table orders (id int generated always as identity)").await;
        let write = Credential::read(&site.secrets, &namespace, "orders", "write");
        Self { cluster, site, serve, write }
    }

    async fn switch_over(&self, args: &[&str]) -> Finished {
        let command = ["cluster", "switchover", "default", "--yes"];
        Cli::of(&self.serve.url, &self.site.token).run(&[&command, args].concat()).await
    }

    /// The standbys, when this is the primary and all others follow.
    async fn standbys_of(&self, primary: &str) -> Vec<String> {
        let whole = |told: &Value, members: &[Value]| {
            let follows = |member: &&Value| member["role"] == "standby" && !text(member).contains("not streaming");
            told["primary"] == primary && members.iter().filter(follows).count() == self.cluster.lab.nodes().len() - 1
        };
        let told = seen(&self.serve.api(), "a primary and its standbys", whole).await;
        let members = told["members"].as_array().unwrap().iter();
        members.filter(|member| member["role"] == "standby").map(|member| host(&member["host"])).collect()
    }

    /// An application that writes all the time: how many of its writes were acknowledged, and the longest time between two.
    async fn write_while<T>(&self, work: impl Future<Output = T>) -> (T, u32, Duration) {
        let (mut acknowledged, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
        let writes = async {
            loop {
                if self.cluster.psql(&self.write, "insert into orders default values").await.is_ok() {
                    acknowledged += 1;
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
            }
        };
        let done = tokio::select! {
            done = work => done,
            () = writes => unreachable!("it goes on for ever"),
        };
        (done, acknowledged, longest.max(last.elapsed()))
    }
}

fn host(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn text(member: &Value) -> &str {
    member["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_is_asked_for_another_primary() {
    let attached = Attached::to(LabKind::Patroni).await;
    // Only a synchronous standby may become the leader, and Patroni names one some seconds after the cluster is up.
    let synchronous = |_: &Value, members: &[Value]| members.iter().any(|member| member["sync"] == "sync");
    seen(&attached.serve.api(), "a synchronous standby", synchronous).await;

    // Not without Patroni's login; it is read each time.
    let file = attached.site.path().join("tool.password");
    fs::write(&file, "wrong").unwrap();
    let refused = attached.switch_over(&[]).await.expect(1).stderr;
    assert!(refused.contains("set topology.patroni.username and passwordFile"), "{refused}");
    fs::write(&file, attached.cluster.lab.password().expose_secret()).unwrap();
    switches_there_and_back(&attached).await;

    // Maintenance mode is somebody's wish.
    pause(&attached, true).await;
    let refused = attached.switch_over(&[]).await.expect(1).stderr;
    assert!(refused.contains("Patroni is paused") && refused.contains("patronictl resume"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitor_is_asked_for_another_primary() {
    let attached = Attached::to(LabKind::PgAutoFailover).await;
    switches_there_and_back(&attached).await;
}

async fn switches_there_and_back(attached: &Attached) {
    let api = attached.serve.api();
    let first = attached.cluster.host(&attached.cluster.lab.primary().await.expect("a primary"));
    let standbys = attached.standbys_of(&first).await;
    let (done, acknowledged, gap) = attached.write_while(attached.switch_over(&[])).await;
    let said = done.expect(0).stdout;
    assert!(said.contains(&format!("before it was {first}")), "{said}");
    let second = standbys.iter().find(|host| said.contains(&format!("{host} is the primary after ")));
    let second = second.unwrap_or_else(|| panic!("none of {standbys:?}: {said}"));
    attached.standbys_of(second).await;
    measured(&format!(
        "{:?}: {} an application was kept from writing for {:.1} s at most",
        attached.cluster.lab.kind(),
        said.trim(),
        gap.as_secs_f64()
    ));
    let complete = format!("select 1 / (count(*) >= {acknowledged})::int from orders");
    eventually("no acknowledged write is lost", PATIENCE, || attached.cluster.psql(&attached.write, &complete)).await;

    // And to one that is named, which has to follow first. With synchronous replication Patroni takes those alone that have everything.
    let may = |member: &Value| match attached.cluster.lab.kind() {
        LabKind::Patroni => member["sync"] == "sync",
        _ => member["role"] == "standby",
    };
    let wished = eventually("it is the primary", PATIENCE, || async {
        let told = seen(&api, "a standby that may take over", |_, members| members.iter().any(may)).await;
        let wished = host(&told["members"].as_array().unwrap().iter().find(|member| may(member)).unwrap()["host"]);
        let asked = api.post("/v1/clusters/default/switchover", json!({"to": wished})).await;
        if asked.status != 202 {
            // It has just become another one.
            return Err(asked.text);
        }
        let asked = asked.json;
        let ended = eventually("it ends", PATIENCE * 2, || async {
            let now = api.get("/v1/clusters/default/switchover").await.expect(200).json;
            if now["finishedAt"].is_string() { Ok(now) } else { Err(now.to_string()) }
        })
        .await;
        assert_eq!((&ended["id"], &ended["to"]), (&asked["id"], &json!(wished)), "{ended}");
        if ended["state"] == "Succeeded" { Ok(wished) } else { Err(ended.to_string()) }
    })
    .await;
    attached.standbys_of(&wished).await;

    // Who is none of the standbys can not be asked for.
    for to in [wished.as_str(), "nobody:5432"] {
        let refused = attached.switch_over(&["--to", to]).await.expect(1).stderr;
        assert!(refused.contains("is none of the standbys"), "{refused}");
    }
    let audit = api.get("/v1/audit").await.expect(200).text;
    assert!(audit.contains("cluster.switchover") && audit.contains("cluster.switchoverEnded"), "{audit}");
}

async fn pause(attached: &Attached, pause: bool) {
    let url = &attached.cluster.lab.patroni_urls()[0];
    let netrc = attached.site.path().join("netrc");
    let password = attached.cluster.lab.password().expose_secret();
    fs::write(&netrc, format!("machine localhost login postgres password {password}\n")).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "-X", "PATCH", "--netrc-file"]).arg(&netrc).arg("--cacert").arg(attached.cluster.lab.ca_file());
    curl.args(["-d", &json!({"pause": pause}).to_string(), &format!("{url}/config")]);
    run(curl).await.expect(0);
    // Members follow at their next turn.
    seen(&attached.serve.api(), "a primary", |told, _| told["primary"].is_string()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_be_asked_a_person_is_told_what_to_do() {
    let plane = shared::calm().await;
    let refused = Cli::of(&plane.serve.url, &plane.site.token)
        .run(&["cluster", "switchover", "default", "--yes"])
        .await
        .expect(1)
        .stderr;
    assert!(refused.contains("pg_ctl promote"), "{refused}");
    plane.api().post("/v1/clusters/default/switchover", json!({})).await.problem(409, "switched-by-hand");
    plane.api().get("/v1/clusters/default/switchover").await.expect(404);
    let tenant = plane.api_of("tenant", &["team"]).await;
    tenant.post("/v1/clusters/default/switchover", json!({})).await.expect(403);
}
