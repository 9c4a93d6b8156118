//! `pgtenant serve`: one replica of a control plane.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::{Api, Running};

/// A replica that listens.
#[derive(Debug)]
pub struct Serve {
    /// The process. Its standard error is the log.
    pub running: Running,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    token: String,
}

impl Serve {
    /// Starts a replica with logs in JSON, and waits until it listens.
    pub async fn start(command: &Command, logs: &Path, name: &str, token: &str) -> Self {
        // Each life has a log of its own: the address is in it.
        let name = format!("{name}-{:08x}", rand::random::<u32>());
        let running = Running::spawn(command, logs, &name);
        let url = running.find("it serves", Duration::from_secs(30), |_, err| address(err)).await;
        Self { running, url, token: token.to_owned() }
    }

    /// A client with the platform token.
    pub fn api(&self) -> Api {
        Api::new(&self.url, Some(&self.token))
    }

    /// The lines of the log.
    pub fn log(&self) -> Vec<Value> {
        lines(&self.running.stderr()).collect()
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.running.signal(Signal::TERM);
        self.running.end(Duration::from_secs(40)).await
    }

    /// Waits until `/readyz` says so.
    pub async fn is_ready(&self) {
        let api = self.api();
        crate::soon("/readyz answers 200", || async {
            match api.try_send("GET", "/readyz", &[], None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits until it has come to the fault point that it was started with.
    pub async fn is_at_fault_point(&self) {
        crate::eventually("it is at the point", Duration::from_secs(90), || async {
            let there = self.log().iter().any(|line| line["message"] == "fault point");
            if there { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    }

    /// The value of a metric, all labels summed; 0 where there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.api().get("/metrics").await.expect(200).text;
        let of_it = |line: &&str| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "));
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
        text.lines().filter(of_it).filter_map(value).sum()
    }
}

/// The lines of a log that are JSON; a line that is being written is not.
pub(crate) fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// The URL in the log's line `serving`.
pub(crate) fn address(log: &str) -> Option<String> {
    lines(log).find(|line| line["message"] == "serving").map(|line| {
        let address = line["address"].as_str().expect("an address");
        format!("http://{address}")
    })
}
