//! Slack, with the running binary, a real engine and dumps, and a Slack that is played.

mod channels;
mod outages;
mod story;

use std::time::{Duration, Instant};

use pgtenant_testkit::{FakeSlack, SlackRequest, SlackText};
use pgtenant_tests::{Api, Credential, Serve, Site, SiteOptions, can, connect, eventually, unique};
use serde_json::{Value, json};

/// For what copies a small database.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Slack waits for an answer for so long.
pub(crate) const SLACKS_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) const PLATFORM: &str = "C0PLATFORM";
pub(crate) const SHOP: &str = "C0SHOP";
/// Linked as `orders`, for claims that name it.
pub(crate) const ORDERS: &str = "C0ORDERS";
/// Of the platform team.
pub(crate) const ALICE: &str = "U0ALICE";
/// Of the platform team, too.
pub(crate) const CAROL: &str = "U0CAROL";
/// Of the shop's team.
pub(crate) const BOB: &str = "U0BOB";

/// A site in production whose tenant has a channel.
pub(crate) struct Workspace {
    pub(crate) site: Site,
    pub(crate) slack: FakeSlack,
    pub(crate) namespace: String,
}

impl Workspace {
    pub(crate) async fn open(options: SiteOptions) -> Self {
        let cluster = format!("environment = \"production\"\n{}", options.cluster);
        let site = Site::new(SiteOptions { backups: true, cluster, ..options }).await;
        Self { site, slack: FakeSlack::start(&[PLATFORM, SHOP, ORDERS]).await, namespace: unique("shop") }
    }

    pub(crate) async fn serve(&self, name: &str) -> Serve {
        let channels = json!([
            {"id": SHOP, "namespaces": [self.namespace]},
            {"id": ORDERS, "name": "orders", "namespaces": [self.namespace], "notify": false},
        ])
        .to_string();
        let users = json!([
            {"id": ALICE, "role": "platform"},
            {"id": CAROL, "role": "platform"},
            {"id": BOB, "role": "tenant", "namespaces": [self.namespace]},
        ]);
        let api_url = self.slack.api_url();
        let env = [
            ("PGTENANT_SLACK_SIGNING_SECRET", self.slack.signing_secret()),
            ("PGTENANT_SLACK_BOT_TOKEN", self.slack.token()),
            ("PGTENANT_SLACK_API_URL", &api_url),
            ("PGTENANT_SLACK_PLATFORM_CHANNEL", PLATFORM),
            ("PGTENANT_SLACK_CHANNELS", &channels),
            ("PGTENANT_SLACK_USERS", &users.to_string()),
        ];
        let serve = self.site.serve_with(name, &env).await;
        serve.is_ready().await;
        serve
    }

    pub(crate) fn credential(&self, tier: &str) -> Credential {
        Credential::read(&self.site.secrets, &self.namespace, "data", tier)
    }

    /// A database `data` with five hundred orders, and a dump of it.
    pub(crate) async fn stock(&self, api: &Api) {
        api.ready(&self.namespace, "data").await;
        let sql = "create table orders as select n, 'item ' || n as item from generate_series(1, 500) n";
        can(&self.credential("admin"), sql).await;
        let path = format!("/v1/namespaces/{}/databases/data/snapshots", self.namespace);
        let begun = api.ask(&path).await.expect(202).json;
        let done = api.finished(begun["id"].as_str().unwrap()).await;
        assert_eq!(done["state"], "Succeeded", "{done}");
    }

    /// How many orders there are; none where there is no such table.
    pub(crate) async fn orders(&self) -> Option<i64> {
        let mut db = connect(&self.credential("read")).await.unwrap();
        sqlx::query_scalar("select count(*) from orders").fetch_one(&mut db).await.ok()
    }

    /// Sends what Slack sends, and lets Slack look at the answer: its status, its text, and how long it took.
    pub(crate) async fn try_send(&self, api: &Api, sent: &SlackRequest) -> Result<(u16, String, Duration), String> {
        let api = api.with_token(None);
        let request =
            sent.headers.iter().fold(api.request("POST", sent.path), |one, (name, value)| one.header(*name, value));
        let begun = Instant::now();
        let answer = request.body(sent.body.clone()).send().await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let took = begun.elapsed();
        self.slack.look_at_answer(sent, status, &text);
        Ok((status, text, took))
    }

    /// What somebody is shown, in time.
    pub(crate) async fn send(&self, api: &Api, sent: &SlackRequest) -> String {
        let (status, text, took) = self.try_send(api, sent).await.unwrap();
        assert!(status == 200 && took < SLACKS_PATIENCE, "{status} after {took:?}: {text}");
        text
    }

    /// Opens the window of a restore of `data`, and waits for its snapshots.
    pub(crate) async fn window(&self, api: &Api, user: &str) -> String {
        let before = self.slack.views().len();
        assert_eq!(self.send(api, &self.slack.command(user, SHOP, "restore data")).await, "");
        eventually("a window with the dump", PATIENCE, || async {
            let view = self.slack.views().get(before).cloned().ok_or("no window")?;
            if view.view.to_string().contains("dump") { Ok(view.id) } else { Err(view.view.to_string()) }
        })
        .await
    }

    /// Asks for a restore in Slack; its id.
    pub(crate) async fn ask(&self, api: &Api, user: &str) -> String {
        let view = self.window(api, user).await;
        let sent = self.slack.submit(user, &view, &[("reason", json!("the orders are gone"))]);
        assert_eq!(self.send(api, &sent).await, json!({"response_action": "clear"}).to_string());
        let all = api.list("/v1/restores").await;
        all[0]["id"].as_str().unwrap().to_owned()
    }

    /// The message with this key as soon as it is so.
    pub(crate) async fn sees(&self, channel: &str, key: &str, holds: impl Fn(&SlackText) -> bool) -> SlackText {
        eventually(&format!("{key} in Slack"), PATIENCE, || async {
            let all = self.with_key(channel, key);
            all.iter().find(|one| holds(one)).cloned().ok_or_else(|| format!("{all:#?} {:?}", self.slack.faults()))
        })
        .await
    }

    pub(crate) fn with_key(&self, channel: &str, key: &str) -> Vec<SlackText> {
        self.slack.messages(channel).into_iter().filter(|one| key_of(one) == key).collect()
    }

    /// Somebody presses a button of a restore's message, as soon as it has one.
    pub(crate) async fn press(&self, api: &Api, user: &str, channel: &str, restore: &str, button: &str) {
        let has = |one: &SlackText| one.buttons().contains(&button.to_owned());
        let message = self.sees(channel, &root(restore, channel), has).await;
        assert_eq!(self.send(api, &self.slack.press(user, channel, &message.ts, button)).await, "");
    }

    /// Everything that the ledger wants to be in Slack is there, once.
    pub(crate) async fn settled(&self) {
        let waiting = "select key from slack_messages where wanted > sent and not given_up order by id";
        eventually("nothing waits for Slack", PATIENCE, || async {
            let left = self.site.ledger_rows(waiting).await;
            let mut wanted = self.site.ledger_rows("select key from slack_messages where not given_up").await;
            let told = [SHOP, ORDERS, PLATFORM].iter().flat_map(|channel| self.slack.messages(channel));
            let mut found: Vec<_> = told.map(|one| key_of(&one)).collect();
            wanted.sort_unstable();
            found.sort_unstable();
            // What is wanted may come to be so between two looks.
            if left.is_empty() && found == wanted { Ok(()) } else { Err(format!("{left:?}: {found:?}, {wanted:?}")) }
        })
        .await;
    }

    /// Slack had nothing to complain of, and no log has a secret.
    pub(crate) fn in_order(&self, replicas: &[&Serve]) {
        assert_eq!(self.slack.faults(), Vec::<String>::new());
        for serve in replicas {
            let log = serve.running.stderr();
            for secret in [self.slack.signing_secret(), self.slack.token(), "/respond/", ".trigger"] {
                assert!(!log.contains(secret), "{secret} is in the log");
            }
        }
    }
}

pub(crate) fn key_of(message: &SlackText) -> String {
    message.content["metadata"]["event_payload"]["key"].as_str().unwrap_or_default().to_owned()
}

/// The key of a restore's message.
pub(crate) fn root(restore: &str, channel: &str) -> String {
    format!("restore:{restore}:{channel}")
}

pub(crate) async fn phase(api: &Api, restore: &str) -> Value {
    api.get(&format!("/v1/restores/{restore}")).await.expect(200).json["phase"].clone()
}
