//! The Slack door, with a Slack that is played and a real ledger.

mod conversation;
mod many;
mod news;
mod outbox;
mod rights;
mod signatures;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use pgtenant_api::{ApiSettings, SlackChannel, SlackPace, SlackSettings, SlackUnlisted, SlackUser, run_slack};
use pgtenant_ledger::{
    Actor, Ledger, NewToken, RestoreWork, StepDone, StoredRestore, TokenRole, create, create_token, put_clusters,
    restores, step_done, take_restore,
};
use pgtenant_model::{ClaimKey, ClaimSpec, ClusterSpec, RestorePhase, Snapshot, Source};
use pgtenant_testkit::{FakeSlack, SlackRequest, SlackText, SlackView};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::types::Uuid;
use tokio::task::JoinHandle;

use crate::world::{Reply, World, eventually};

pub(crate) const PLATFORM: &str = "C0PLATFORM";
pub(crate) const SHOP: &str = "C0SHOP";
pub(crate) const OTHER: &str = "C0OTHER";
pub(crate) const QUIET: &str = "C0QUIET";
pub(crate) const ALICE: &str = "U0ALICE";
pub(crate) const CAROL: &str = "U0CAROL";
pub(crate) const BOB: &str = "U0BOB";
pub(crate) const VERA: &str = "U0VERA";

/// A door with Slack. `shop` and `other` are tenants; cluster `default` is production, `dev` is not.
pub(crate) struct Door {
    pub(crate) world: World,
    pub(crate) slack: FakeSlack,
    running: JoinHandle<()>,
}

fn settings(slack: &FakeSlack) -> SlackSettings {
    let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let channel = |id: &str, namespaces: &[&str], notify| SlackChannel {
        id: id.to_owned(),
        name: None,
        namespaces: names(namespaces),
        notify,
    };
    let user = |id: &str, role, namespaces: &[&str]| SlackUser {
        id: id.to_owned(),
        role: Some(role),
        namespaces: names(namespaces),
        token: None,
    };
    SlackSettings {
        signing_secret: slack.signing_secret().into(),
        bot_token: slack.token().into(),
        api_url: slack.api_url(),
        platform_channel: Some(PLATFORM.to_owned()),
        channels: vec![
            channel(SHOP, &["shop"], true),
            channel(OTHER, &["other"], true),
            channel(QUIET, &["shop"], false),
        ],
        users: vec![
            user(ALICE, TokenRole::Platform, &[]),
            user(CAROL, TokenRole::Platform, &[]),
            user(VERA, TokenRole::Viewer, &["shop"]),
        ],
        unlisted: SlackUnlisted::Tenant,
        team: None,
        pace: SlackPace {
            rest: Duration::from_millis(20),
            update: Duration::from_millis(50),
            progress: Duration::from_millis(50),
            updates: Duration::from_millis(1),
            gather: Duration::from_millis(700),
            retry: Duration::from_millis(50),
            longest_retry: Duration::from_millis(200),
            longest_quiet: Duration::from_millis(200),
            give_up: Duration::from_secs(3600),
            answer: Duration::from_secs(2),
        },
    }
}

fn cluster(name: &str, environment: &str) -> (String, ClusterSpec) {
    let spec = json!({
        "environment": environment,
        "topology": {"streaming": {"hosts": ["db1:5432"]}},
        "provisioner": {"username": "provisioner", "passwordFile": "/run/secrets/provisioner"},
        "stores": [{"file": {"directory": "/var/lib/pgtenant/secrets"}}],
        "limits": {"databasesPerNamespace": 2000},
    });
    (name.to_owned(), serde_json::from_value(spec).unwrap())
}

impl Door {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SlackSettings)) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let slack = FakeSlack::start(&[PLATFORM, SHOP, OTHER, QUIET]).await;
        let ledger = Ledger::new(pgtenant_testkit::fresh_database("slack").await, 12);
        ledger.migrate().await.unwrap();
        let mut db = ledger.acquire().await.unwrap();
        put_clusters(&mut db, &[cluster("default", "production"), cluster("dev", "dev")]).await.unwrap();
        for (namespace, name, cluster) in [
            ("shop", "orders", "default"),
            ("shop", "carts", "default"),
            ("shop", "play", "dev"),
            ("other", "secret", "default"),
        ] {
            claim(&ledger, namespace, name, cluster).await;
        }
        let new =
            NewToken { name: "platform".into(), role: TokenRole::Platform, namespaces: Vec::new(), expires_at: None };
        let token = create_token(&mut db, new).await.unwrap().1.expose_secret().to_owned();
        drop(db);
        let mut slack_settings = settings(&slack);
        change(&mut slack_settings);
        let api = ApiSettings { failures_burst: 1000, slack: Some(slack_settings), ..ApiSettings::default() };
        let world = World::over(ledger, api, [token, String::new(), String::new(), String::new()]);
        let running = tokio::spawn(run_slack(world.state.clone()));
        let door = Self { world, slack, running };
        door.knows(Some(vec![snapshot(1), snapshot(2)]), Duration::ZERO);
        door.ready().await;
        door
    }

    /// What every database can be restored from, and how long it takes to say so.
    pub(crate) fn knows(&self, snapshots: Option<Vec<Snapshot>>, delay: Duration) {
        *self.world.planner.snapshots.lock().unwrap() = Some((snapshots, delay));
    }

    /// Until events are read from now on.
    async fn ready(&self) {
        eventually("cursors", || async { self.world.count("select count(*) from slack_cursors").await == 2 }).await;
    }

    /// Ends what this replica does beside answering, at whichever point it is.
    pub(crate) fn kill(&self) {
        self.running.abort();
    }

    /// Another replica on the same ledger.
    pub(crate) fn another(&self) -> JoinHandle<()> {
        let other = self.replica(|_| {});
        tokio::spawn(async move {
            run_slack(other.state.clone()).await;
            drop(other);
        })
    }

    /// Another replica, set in another way, and what it does beside answering.
    pub(crate) fn another_with(&self, change: impl FnOnce(&mut SlackSettings)) -> (World, JoinHandle<()>) {
        let other = self.replica(change);
        let running = tokio::spawn(run_slack(other.state.clone()));
        (other, running)
    }

    fn replica(&self, change: impl FnOnce(&mut SlackSettings)) -> World {
        let mut slack = self.world.state_settings().slack;
        change(slack.as_mut().unwrap());
        let api = ApiSettings { slack, ..ApiSettings::default() };
        World::over(self.world.ledger.clone(), api, std::array::from_fn(|_| String::new()))
    }

    /// Sends what Slack sends, and lets Slack look at the answer.
    pub(crate) async fn send(&self, sent: &SlackRequest) -> Reply {
        self.send_to(&self.world, sent).await
    }

    pub(crate) async fn send_to(&self, replica: &World, sent: &SlackRequest) -> Reply {
        let mut request = Request::builder().method("POST").uri(sent.path);
        for (name, value) in &sent.headers {
            request = request.header(*name, value);
        }
        let reply = replica.send(request.body(Body::from(sent.body.clone())).unwrap()).await;
        self.slack.look_at_answer(sent, reply.status.as_u16(), &reply.text);
        reply
    }

    /// `/pgtenant {text}`; what only the person sees.
    pub(crate) async fn types(&self, user: &str, channel: &str, text: &str) -> Reply {
        self.send(&self.slack.command(user, channel, text)).await.expect(200)
    }

    /// Opens the window of a restore and waits until it has its snapshots.
    pub(crate) async fn opens(&self, user: &str, channel: &str, database: &str) -> SlackView {
        let before = self.slack.views().len();
        let reply = self.types(user, channel, &format!("restore {database}")).await;
        assert_eq!(reply.text, "");
        eventually("a window with snapshots", || async {
            self.slack.views().get(before).is_some_and(|view| view.edits > 0)
        })
        .await;
        self.slack.views().pop().unwrap()
    }

    /// Asks for a restore of a database of `shop` as Bob does; waits until it is shown in both channels.
    pub(crate) async fn asks(&self, user: &str, database: &str) -> StoredRestore {
        let view = self.opens(user, SHOP, database).await;
        let reply = self.send(&self.slack.submit(user, &view.id, &[("reason", json!("rows are gone"))])).await;
        assert_eq!(reply.expect(200).json, json!({"response_action": "clear"}));
        let restore = self.newest().await.unwrap();
        self.sees(SHOP, restore.view.id, |_| true).await;
        self.sees(PLATFORM, restore.view.id, |_| true).await;
        restore
    }

    pub(crate) async fn newest(&self) -> Option<StoredRestore> {
        let mut db = self.world.ledger.acquire().await.unwrap();
        restores(&mut db, Default::default(), 1).await.unwrap().pop()
    }

    /// The message of a restore in a channel, as soon as it is so.
    pub(crate) async fn sees(&self, channel: &str, id: Uuid, holds: impl Fn(&SlackText) -> bool) -> SlackText {
        self.sees_part(channel, &format!("restore:{id}:{channel}"), holds).await
    }

    /// The message with this key.
    pub(crate) async fn sees_part(&self, channel: &str, key: &str, holds: impl Fn(&SlackText) -> bool) -> SlackText {
        let find = || self.with_key(channel, key).into_iter().find(&holds);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = find() {
                return found;
            }
            let now = self.with_key(channel, key);
            assert!(tokio::time::Instant::now() < deadline, "{key} never was so: {now:#?} {:?}", self.slack.faults());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn with_key(&self, channel: &str, key: &str) -> Vec<SlackText> {
        let has = |one: &SlackText| one.content["metadata"]["event_payload"]["key"] == *key;
        self.slack.messages(channel).into_iter().filter(has).collect()
    }

    pub(crate) async fn presses(&self, user: &str, channel: &str, id: Uuid, button: &str) {
        let message = self.sees(channel, id, |one| one.buttons().contains(&button.to_owned())).await;
        let reply = self.send(&self.slack.press(user, channel, &message.ts, button)).await.expect(200);
        assert_eq!(reply.text, "");
    }

    /// What somebody is told alone, after their request was answered.
    pub(crate) async fn told(&self, count: usize) -> String {
        eventually("an answer", || async { self.slack.responses().len() >= count }).await;
        let all = self.slack.responses();
        assert_eq!(all.len(), count, "{all:?}");
        assert_eq!(all[count - 1]["response_type"], "ephemeral");
        all[count - 1].to_string()
    }

    /// Begins with a restore, as the engine does.
    pub(crate) async fn takes(&self, cluster: &str) -> RestoreWork {
        let mut tx = self.world.ledger.begin().await.unwrap();
        let work = take_restore(&mut tx, cluster, Uuid::now_v7(), Duration::from_secs(60), 10).await.unwrap();
        tx.commit().await.unwrap();
        work.unwrap()
    }

    pub(crate) async fn steps(&self, work: &RestoreWork, done: StepDone) {
        let mut tx = self.world.ledger.begin().await.unwrap();
        step_done(&mut tx, work, &done).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn phase(&self, id: Uuid) -> RestorePhase {
        let mut db = self.world.ledger.acquire().await.unwrap();
        pgtenant_ledger::restore(&mut db, id).await.unwrap().unwrap().view.phase
    }

    /// Slack had nothing to complain of.
    pub(crate) fn in_order(&self) {
        assert_eq!(self.slack.faults(), Vec::<String>::new());
    }

    /// Until all that is to be told is told.
    pub(crate) async fn settles(&self) {
        eventually("an empty queue", || async {
            let waiting = "select count(*) from slack_messages where wanted > sent and not given_up";
            let unread =
                "select count(*) from slack_cursors where position < (select coalesce(max(id), 0) from events)";
            self.world.count(unread).await == 0 && self.world.count(waiting).await == 0
        })
        .await;
    }
}

pub(crate) async fn claim(ledger: &Ledger, namespace: &str, name: &str, cluster: &str) {
    let key = ClaimKey::new(namespace, name).unwrap();
    let spec = ClaimSpec { cluster: cluster.to_owned(), ..ClaimSpec::default() };
    let mut tx = ledger.begin().await.unwrap();
    create(&mut tx, &key, &spec, (Source::Api, None), &Actor::new("test")).await.unwrap();
    tx.commit().await.unwrap();
}

/// The n-th day of the month.
pub(crate) fn snapshot(day: u32) -> Snapshot {
    let at = format!("2026-11-{:02}T02:14:{:02}Z", 1 + day % 28, day % 60);
    let json: Value = json!({
        "id": format!("dump:202611{day:06}"), "at": at, "size": 1_200_000_000, "contains": true, "verifiedAt": null,
        "location": "s3://bucket",
    });
    serde_json::from_value(json).unwrap()
}
