//! HAProxy in front of servers: each server says what it is, and the health service beside it what HAProxy believes.
//!
//! HAProxy sends writes to every server whose `GET /primary` answers 200. That is shown beside what the servers say, and decides nothing
//! here: the control plane goes to the servers themselves.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join, join_all};
use pgtenant_model::{HaproxyTopology, HostPort};
use reqwest::{Client, redirect};

use crate::Observation;
use crate::aurora::Depth;
use crate::kind::Kind;
use crate::probe::ProbeOptions;
use crate::streaming::ask_servers;
use crate::told::{Told, ToldMember, compare};

/// HAProxy itself waits for 2 s.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// Servers behind HAProxy.
#[derive(Debug)]
pub(crate) struct Haproxy {
    spec: HaproxyTopology,
}

impl Haproxy {
    pub(crate) fn new(spec: &HaproxyTopology) -> Self {
        Self { spec: spec.clone() }
    }

    async fn look(&self, options: &ProbeOptions, depth: Depth) -> Observation {
        let servers = ask_servers(&self.spec.hosts, options);
        match self.spec.health_port.filter(|_| depth == Depth::Look) {
            None => servers.await,
            Some(port) => {
                let (seen, told) = join(servers, self.health_services(port)).await;
                compare(seen, &told)
            }
        }
    }

    async fn health_services(&self, port: u16) -> Told {
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(ASK_WITHIN).build();
        let client = client.map_err(|error| error.to_string());
        let members = self.spec.hosts.iter().map(async |address| {
            let (leads, words) = match &client {
                Ok(client) => health(client, &HostPort { host: address.host.clone(), port }).await,
                Err(why) => (false, why.clone()),
            };
            ToldMember { address: Some(address.clone()), words, leads, sync: None }
        });
        Told { who: "the health service", decides: false, members: join_all(members).await, note: None }
    }
}

/// Whether writes are sent there, and why. Of the answer nothing but its status is read, as HAProxy does.
async fn health(client: &Client, service: &HostPort) -> (bool, String) {
    match client.get(format!("http://{service}/primary")).send().await {
        Ok(answer) if answer.status().is_success() => (true, "primary".to_owned()),
        Ok(answer) => (false, format!("no primary ({})", answer.status().as_u16())),
        Err(error) if error.is_timeout() => (false, format!("no answer within {ASK_WITHIN:?}")),
        Err(_) => (false, format!("nobody answers on {service}")),
    }
}

impl Kind for Haproxy {
    fn hosts(&self) -> Vec<HostPort> {
        vec![self.spec.write.clone()]
    }

    fn endpoint(&self) -> Option<HostPort> {
        Some(self.spec.write.clone())
    }

    fn read_host(&self) -> Option<HostPort> {
        self.spec.read.clone()
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, depth: Depth) -> BoxFuture<'a, Observation> {
        self.look(options, depth).boxed()
    }
}
