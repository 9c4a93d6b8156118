//! Patroni: its REST API says who the members are, and each server what it is.
//!
//! A look is one `GET /cluster`, of every URL at once, and at the same time one question to each server. A switchover is one `POST /switchover`.

use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, select_ok};
use pgtenant_model::{HostPort, PatroniTopology, SyncState};
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::aurora::Depth;
use crate::kind::Kind;
use crate::probe::{ProbeOptions, ToolLogin, first_line};
use crate::told::{Members, Told, ToldMember};
use crate::{NotSwitched, Observation, SwitchoverWish};

/// How long Patroni may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// It answers a switchover when the next primary is there, or when it has waited for its `loop_wait`, 10 s as shipped.
const SWITCH_WITHIN: Duration = Duration::from_secs(30);
/// A cluster of a hundred members takes a tenth of it.
const LONGEST_ANSWER: usize = 256 << 10;
/// Of what is quoted to a person.
const LONGEST_QUOTE: usize = 500;

/// A cluster of Patroni, and the members that it has named so far.
#[derive(Debug)]
pub(crate) struct Patroni {
    urls: Vec<String>,
    /// For what changes something.
    username: Option<String>,
    password_file: Option<PathBuf>,
    members: Members,
}

/// What `/cluster` says: <https://patroni.readthedocs.io/en/latest/rest_api.html#cluster-status-endpoints>.
#[derive(Debug, Deserialize)]
struct Cluster {
    members: Vec<Member>,
    /// Maintenance mode: Patroni lets everything be as it is.
    #[serde(default)]
    pause: bool,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
    state: String,
    /// Missing while the member has not said yet where it is.
    host: Option<String>,
    port: Option<u16>,
}

impl Patroni {
    pub(crate) fn new(spec: &PatroniTopology) -> Self {
        let urls = spec.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let PatroniTopology { urls: _, username, password_file, secret_ref: _ } = spec.clone();
        Self { urls, username, password_file, members: Members::default() }
    }

    /// For what changes something, where it wants a login.
    async fn login(&self, options: &ProbeOptions) -> Result<Option<(String, SecretString)>, String> {
        match (&self.password_file, &options.tool) {
            (Some(file), _) => Ok(self.username.clone().zip(Some(first_line(file).await?))),
            (None, Some(ToolLogin { username, password })) => {
                let username = self.username.as_ref().or(username.as_ref());
                let username = username.ok_or("the Secret of topology.patroni.secretRef has no key \"username\"")?;
                Ok(Some((username.clone(), password.clone())))
            }
            (None, None) => Ok(None),
        }
    }

    async fn look(&self, options: &ProbeOptions) -> Observation {
        let told = async { Ok(self.ask(&client(options, ASK_WITHIN)?).await?.1.into()) };
        self.members.observe(told, options).await
    }

    /// What the first says that answers, and which.
    async fn ask(&self, client: &Client) -> Result<(&str, Cluster), String> {
        let asked = self.urls.iter().map(|url| async { Ok((url.as_str(), get(client, url).await?)) }.boxed());
        let answer = select_ok(asked).await;
        answer
            .map(|(answer, _)| answer)
            .map_err(|why: String| format!("no REST API of Patroni answered; the last one: {why}"))
    }

    async fn ask_for_another(&self, options: &ProbeOptions, wish: &SwitchoverWish) -> Result<(), NotSwitched> {
        let (url, cluster) = self.ask(&client(options, ASK_WITHIN)?).await?;
        if cluster.pause {
            return Err("Patroni is paused, which somebody has asked for: `patronictl resume` first".to_owned().into());
        }
        let name = |host: &str| {
            let found =
                cluster.members.iter().find(|one| one.address().is_some_and(|address| address.to_string() == host));
            found.map(|one| one.name.clone()).ok_or_else(|| format!("Patroni knows no member {host}"))
        };
        let mut body = json!({"leader": name(&wish.from)?});
        if let Some(to) = &wish.to {
            body["candidate"] = name(to)?.into();
        }
        let request = client(options, SWITCH_WITHIN)?.post(format!("{url}/switchover"));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        let request = match self.login(options).await? {
            Some((username, password)) => request.basic_auth(username, Some(password.expose_secret())),
            None => request,
        };
        match request.send().await {
            Ok(answer) => heard(answer).await,
            Err(error) if error.is_connect() => Err(format!("{url}: {}", error.without_url()).into()),
            // It may have heard, and looks will tell.
            Err(error) => {
                tracing::warn!("{url} did not answer to a switchover: {}", error.without_url());
                Ok(())
            }
        }
    }
}

/// 200: another one leads. 503: Patroni has begun, and does not know how it ends.
async fn heard(answer: Response) -> Result<(), NotSwitched> {
    let status = answer.status();
    match status {
        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let why = format!(
                "Patroni wants a login for it ({}): set topology.patroni.username and passwordFile, or secretRef",
                status.as_u16()
            );
            Err(why.into())
        }
        _ => {
            let body = limited(answer, LONGEST_QUOTE).await.unwrap_or_default();
            let said = String::from_utf8_lossy(&body).trim().replace(char::is_control, " ");
            Err(format!("Patroni refused: {said} ({})", status.as_u16()).into())
        }
    }
}

impl Kind for Patroni {
    fn hosts(&self) -> Vec<HostPort> {
        self.members.hosts()
    }

    fn remember(&self, members: &[HostPort]) {
        self.members.remember(members);
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, _: Depth) -> BoxFuture<'a, Observation> {
        self.look(options).boxed()
    }

    fn switch_over<'a>(
        &'a self,
        options: &'a ProbeOptions,
        wish: &'a SwitchoverWish,
    ) -> BoxFuture<'a, Result<(), NotSwitched>> {
        self.ask_for_another(options, wish).boxed()
    }
}

fn client(options: &ProbeOptions, within: Duration) -> Result<Client, String> {
    let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(within);
    let builder = match &options.ca {
        Some(pem) => {
            let authorities = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| error.to_string())?;
            builder.tls_certs_only(authorities)
        }
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

async fn get(client: &Client, url: &str) -> Result<Cluster, String> {
    let said = |error: reqwest::Error| format!("{url}: {}", error.without_url());
    let answer = client.get(format!("{url}/cluster")).send().await.map_err(said)?.error_for_status().map_err(said)?;
    let body = limited(answer, LONGEST_ANSWER + 1).await.map_err(said)?;
    if body.len() > LONGEST_ANSWER {
        return Err(format!("{url}: more than {LONGEST_ANSWER} bytes, which is no list of members"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{url} does not answer as Patroni does: {error}"))
}

/// The first bytes of a body.
async fn limited(mut answer: Response, most: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < most
        && let Some(part) = answer.chunk().await?
    {
        body.extend_from_slice(&part);
    }
    body.truncate(most);
    Ok(body)
}

impl Member {
    fn address(&self) -> Option<HostPort> {
        self.host.clone().zip(self.port).map(|(host, port)| HostPort { host, port })
    }
}

impl From<Cluster> for Told {
    fn from(Cluster { members, pause }: Cluster) -> Self {
        let member = |one: Member| ToldMember {
            address: one.address(),
            // `master` until Patroni 3; the leader of a standby cluster takes no writes.
            leads: matches!(one.role.as_str(), "leader" | "master"),
            sync: match one.role.as_str() {
                "sync_standby" => Some(SyncState::Sync),
                "quorum_standby" => Some(SyncState::Quorum),
                _ => None,
            },
            words: format!("{}, {}", one.role, one.state),
        };
        let note = pause.then(|| "that it is paused: nobody is promoted until it is resumed".to_owned());
        Self { who: "Patroni", decides: true, members: members.into_iter().map(member).collect(), note }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Patroni 3.0 and 4.0 have it.
    const CLUSTER: &str = r#"{"members": [
        {"name": "a", "role": "leader", "state": "running", "api_url": "https://db1:8008/patroni", "host": "db1", "port": 5432, "timeline": 1},
        {"name": "b", "role": "sync_standby", "state": "streaming", "host": "db2", "port": 5432, "timeline": 1, "lag": 0},
        {"name": "c", "role": "replica", "state": "creating replica", "lag": "unknown"}], "scope": "lab", "pause": true}"#;

    #[tokio::test]
    async fn the_login_is_that_of_the_description_or_of_the_secret() {
        let options = |username: Option<&str>| ProbeOptions {
            username: "prov".to_owned(),
            password: SecretString::default(),
            database: "postgres".to_owned(),
            sslmode: pgtenant_model::SslMode::VerifyFull,
            ca: None,
            connect_timeout: ProbeOptions::CONNECT_TIMEOUT,
            tool: Some(ToolLogin { username: username.map(str::to_owned), password: "of the Secret".into() }),
        };
        let patroni = |username: Option<&str>| {
            let (urls, username) = (vec!["https://db1:8008".to_owned()], username.map(str::to_owned));
            Patroni::new(&PatroniTopology { urls, username, password_file: None, secret_ref: None })
        };
        let named = patroni(Some("admin")).login(&options(Some("other"))).await.unwrap().unwrap();
        assert_eq!((named.0.as_str(), named.1.expose_secret()), ("admin", "of the Secret"));
        assert_eq!(patroni(None).login(&options(Some("other"))).await.unwrap().unwrap().0, "other");
        assert!(patroni(None).login(&options(None)).await.unwrap_err().contains("no key \"username\""));
        let without = ProbeOptions { tool: None, ..options(None) };
        assert!(patroni(None).login(&without).await.unwrap().is_none());
    }

    #[test]
    fn members_are_read_also_those_that_are_not_there_yet() {
        let told = Told::from(serde_json::from_str::<Cluster>(CLUSTER).unwrap());
        let members: Vec<_> =
            told.members.iter().map(|one| (one.address.is_some(), one.leads, one.words.as_str())).collect();
        let expected = [
            (true, true, "leader, running"),
            (true, false, "sync_standby, streaming"),
            (false, false, "replica, creating replica"),
        ];
        assert_eq!(members, expected);
        assert!(told.note.unwrap().contains("paused"));
    }
}
