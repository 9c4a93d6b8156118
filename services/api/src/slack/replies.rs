//! What follows after a request was answered: answers for one person alone, and windows that are filled in.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pgtenant_ledger::Claim;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Slack;
use super::modal::{Databases, Opened, Snapshots, window};
use super::request::ANSWER_LIMIT;
use crate::ApiState;

/// For what is done after an answer, with the list of snapshots in it.
pub(super) const TASK_LIMIT: Duration = Duration::from_secs(60);

/// A window that is open.
#[derive(Debug)]
pub(super) struct OpenWindow {
    /// Slack's name for it.
    pub(super) id: String,
    pub(super) opened: Opened,
    pub(super) databases: Databases,
    /// The database that is chosen in it.
    pub(super) claim: Claim,
}

impl Slack {
    /// Does something after the answer; false where too much is being done, which somebody has to be told.
    #[must_use]
    pub(super) fn after_answer(&self, state: &ApiState, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(place) = Arc::clone(&self.tasks).try_acquire_owned() else { return false };
        let shutdown = state.parts.shutdown.clone();
        tokio::spawn(async move {
            let limited = tokio::time::timeout(TASK_LIMIT, work);
            if let Some(Err(_)) = shutdown.run_until_cancelled(limited).await {
                warn!("somebody in Slack waits for an answer that took too long");
            }
            drop(place);
        });
        true
    }

    /// Tells somebody alone, at the address that came with their request: after the answer to it, or before where too much is done
    /// after others.
    pub(super) async fn tell(self: &Arc<Self>, state: &ApiState, url: String, said: Value) {
        let (door, url_too, said_too) = (Arc::clone(self), url.clone(), said.clone());
        if !self.after_answer(state, async move { door.respond(&url_too, &said_too).await }) {
            tokio::time::timeout(ANSWER_LIMIT, self.respond(&url, &said)).await.ok();
        }
    }

    /// Answers a person. It is not kept: where Slack does not take it, they ask again.
    pub(super) async fn respond(&self, url: &str, answer: &Value) {
        let mut answer = answer.clone();
        answer["replace_original"] = json!(false);
        if let Err(error) = self.client.respond(url, &answer, self.settings.pace.answer).await {
            warn!(%error, "somebody in Slack was not answered");
        }
    }

    /// Looks for the snapshots of the database that is chosen in a window, and shows them there if it is still the same window.
    pub(super) async fn fill_in(&self, state: &ApiState, open: &OpenWindow, hash: &str) {
        let claim = &open.claim;
        let found = state.parts.planner.snapshots(claim.spec.cluster.clone(), claim.key.clone());
        let snapshots = match tokio::time::timeout(TASK_LIMIT / 3, found).await {
            Ok(Ok(found)) => Snapshots::Found(found),
            Ok(Err(error)) => Snapshots::Unknown(error.to_string()),
            Err(_) => Snapshots::Unknown("it took too long".to_owned()),
        };
        self.update(open, Some(hash), &snapshots).await;
    }

    /// Shows this in a window; without a `hash` whatever else is shown there. Returns the hash that it has then.
    pub(super) async fn update(&self, open: &OpenWindow, hash: Option<&str>, snapshots: &Snapshots) -> Option<String> {
        let OpenWindow { id, opened, databases, claim } = open;
        let view = window(&self.settings.signing_secret, opened, databases, Some(&claim.key), snapshots);
        let mut body = json!({"view_id": id, "view": view});
        if let Some(hash) = hash {
            body["hash"] = json!(hash);
        }
        match self.client.write("views.update", &body, self.settings.pace.answer).await {
            Ok(answer) => answer.pointer("/view/hash")?.as_str().map(str::to_owned),
            Err(error) => {
                // Closed meanwhile, or another database was chosen in it.
                info!(%error, "a window in Slack was not filled in");
                None
            }
        }
    }
}
