//! One listener for all streams of events: it reads what is new and hands it to every stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use pgtenant_ledger::{EVENTS_CHANNEL, LedgerError, event_high_water, events_after};
use pgtenant_model::Event;
use tokio::sync::{broadcast, watch};
use tracing::warn;

use crate::ApiState;

/// Events that a stream may be behind before it reads them from the ledger again: 1,024 of about 1 kB, shared by all.
const BUFFER: usize = 1024;
/// Events that are read at once.
pub(crate) const PAGE: i64 = 500;
/// A look without a notification, in case one was lost by a proxy in between.
const SLOW_LOOK: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where streams get what is new.
pub(crate) struct EventHub {
    sender: broadcast::Sender<Arc<Event>>,
    /// Whether the listener knows from where on it hands out events.
    begun: watch::Sender<bool>,
}

impl EventHub {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(BUFFER).0, begun: watch::channel(false).0 }
    }

    /// Every event that becomes visible in the ledger from now on; earlier ones may be among them.
    pub(crate) async fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        // The sender lives as long as `self`, so that this ends only when the listener has begun.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
        self.sender.subscribe()
    }
}

/// Reads events as they are announced, until `ApiParts::shutdown`. Goes on by id after the ledger was down, so that
/// none is lost.
pub async fn follow_events(state: ApiState) {
    let shutdown = state.parts.shutdown.clone();
    shutdown.run_until_cancelled(follow(&state)).await;
}

async fn follow(state: &ApiState) {
    let mut last = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(error) = listen(state, &mut last, &mut pause).await;
        warn!(error = %crate::observe::chain(&error), "events are late, trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Hands out events until the connection is lost or can not be made.
async fn listen(state: &ApiState, last: &mut Option<i64>, pause: &mut Duration) -> Result<Infallible, LedgerError> {
    let ledger = state.ledger();
    // Listening comes first: what is written after it is announced, what was written before it is read below.
    let mut listener = ledger.listen(&[EVENTS_CHANNEL]).await?;
    loop {
        let from = match *last {
            Some(id) => id,
            None => event_high_water(&mut *ledger.acquire().await?).await?,
        };
        *last = Some(hand_out(state, from).await?);
        state.events.begun.send_replace(true);
        *pause = FIRST_PAUSE;
        if let Ok(heard) = tokio::time::timeout(SLOW_LOOK, listener.recv()).await {
            heard?;
        }
    }
}

/// Hands out everything after `last`; returns the new last id.
async fn hand_out(state: &ApiState, mut last: i64) -> Result<i64, LedgerError> {
    loop {
        let page = events_after(&mut *state.ledger().acquire().await?, last, None, PAGE).await?;
        let more = i64::try_from(page.len()) == Ok(PAGE);
        for event in page {
            last = event.id;
            // An error says that nobody listens, which is fine.
            let _ = state.events.sender.send(Arc::new(event));
        }
        if !more {
            return Ok(last);
        }
    }
}
