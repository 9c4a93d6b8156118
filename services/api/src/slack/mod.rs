//! Slack: a door for people. It asks for restores, shows how far they are, and tells what becomes of claims.
//!
//! A request is proven to come from Slack, its person and channel are looked up in the settings, and what they may do is asked for
//! as REST does it: with proofs of [`crate::caller`]. What is to be told is written into the ledger; [`sender`] brings it to
//! Slack. Without Slack in the settings there is no such door.

mod act;
mod answers;
mod blocks;
mod client;
mod commands;
mod find;
mod follow;
mod interactions;
mod modal;
mod news;
mod overview;
mod payload;
mod replies;
mod request;
mod restore_report;
mod restore_view;
mod sender;
mod settings;
mod signature;
mod standing;
mod text;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

pub(crate) use commands::{__path_commands, commands};
pub(crate) use interactions::{__path_interactions, interactions};
pub use settings::{SLACK_API_URL, SlackChannel, SlackPace, SlackSettings, SlackUnlisted, SlackUser};

use crate::ApiState;
use client::Client;

/// Answers that are still being worked on when the request is answered: each is a call or two of Slack's. Beyond, people are
/// asked to try again.
const TASKS: usize = 32;
/// Requests that are read before it is proven that they are Slack's.
const RECEIVING: usize = 32;

/// The door, where the settings have one.
#[derive(Debug)]
pub(crate) struct Slack {
    settings: SlackSettings,
    client: Client,
    /// There is something to send.
    wake: Notify,
    tasks: Arc<Semaphore>,
    receiving: Semaphore,
}

impl Slack {
    pub(crate) fn new(settings: SlackSettings) -> Self {
        let client = Client::new(&settings.api_url, settings.bot_token.clone());
        Self {
            settings,
            client,
            wake: Notify::new(),
            tasks: Arc::new(Semaphore::new(TASKS)),
            receiving: Semaphore::new(RECEIVING),
        }
    }
}

/// Tells in Slack what is to be told there, until `ApiParts::shutdown`; a message that is on its way by then arrives, if that can be
/// within the grace. Where Slack is not set, it does nothing.
pub async fn run_slack(state: ApiState) {
    let Some(slack) = state.slack.clone() else { return };
    let shutdown = &state.parts.shutdown;
    let work = async {
        tokio::join!(shutdown.run_until_cancelled(follow::follow(&state, &slack)), sender::send(&state, &slack))
    };
    let grace = async {
        shutdown.cancelled().await;
        tokio::time::sleep(state.settings().shutdown_grace).await;
    };
    tokio::select! {
        _ = work => {}
        () = grace => {}
    }
}
