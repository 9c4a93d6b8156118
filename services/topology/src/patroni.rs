//! Patroni: its REST API says who the members are, and each server what it is.
//!
//! A look is one `GET /cluster`, of every URL at once, and one question to each server.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_ok;
use pgtenant_model::{HostPort, PatroniTopology};
use reqwest::{Certificate, Client, redirect};
use serde::Deserialize;

use crate::Observation;
use crate::probe::ProbeOptions;
use crate::told::{Members, Told, ToldMember};

/// How long Patroni may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// A cluster of a hundred members takes a tenth of it.
const LONGEST_ANSWER: usize = 256 << 10;

/// A cluster of Patroni, and the members that it has named so far. Clones are the same.
#[derive(Debug, Clone)]
pub struct Patroni {
    urls: Vec<String>,
    members: Arc<Members>,
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
    role: String,
    state: String,
    /// Missing while the member has not said yet where it is.
    host: Option<String>,
    port: Option<u16>,
}

impl Patroni {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(spec: &PatroniTopology) -> Self {
        let urls = spec.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self { urls, members: Arc::default() }
    }

    /// Every member that Patroni has named since this was made.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPort> {
        self.members.hosts()
    }

    pub(crate) async fn observe(&self, options: &ProbeOptions) -> Observation {
        self.members.observe(self.ask(options).await, options).await
    }

    /// What the first says that answers.
    async fn ask(&self, options: &ProbeOptions) -> Result<Told, String> {
        let client = client(options)?;
        let asked = self.urls.iter().map(|url| get(&client, url).boxed());
        let answer = select_ok(asked).await;
        answer.map(|(told, _)| told).map_err(|why| format!("no REST API of Patroni answered; the last one: {why}"))
    }
}

fn client(options: &ProbeOptions) -> Result<Client, String> {
    let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(ASK_WITHIN);
    let builder = match &options.ca {
        Some(pem) => {
            let authorities = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| error.to_string())?;
            builder.tls_certs_only(authorities)
        }
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

async fn get(client: &Client, url: &str) -> Result<Told, String> {
    let said = |error: reqwest::Error| format!("{url}: {}", error.without_url());
    let mut answer =
        client.get(format!("{url}/cluster")).send().await.map_err(said)?.error_for_status().map_err(said)?;
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(said)? {
        body.extend_from_slice(&part);
        if body.len() > LONGEST_ANSWER {
            return Err(format!("{url}: more than {LONGEST_ANSWER} bytes, which is no list of members"));
        }
    }
    let cluster: Cluster =
        serde_json::from_slice(&body).map_err(|error| format!("{url} does not answer as Patroni does: {error}"))?;
    Ok(cluster.into())
}

impl From<Cluster> for Told {
    fn from(Cluster { members, pause }: Cluster) -> Self {
        let member = |Member { role, state, host, port }: Member| ToldMember {
            address: host.zip(port).map(|(host, port)| HostPort { host, port }),
            // `master` until Patroni 3; the leader of a standby cluster takes no writes.
            leads: matches!(role.as_str(), "leader" | "master"),
            words: format!("{role}, {state}"),
        };
        let note = pause.then(|| "that it is paused: nobody is promoted until it is resumed".to_owned());
        Self { who: "Patroni", members: members.into_iter().map(member).collect(), note }
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
