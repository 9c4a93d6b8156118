//! Tells a server that takes nothing any more from a stream that gives nothing for a while: only the first is an error.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, sleep};

/// Of one body that is being sent.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When something last happened.
    since: Instant,
    /// Whether the stream is to give something now, and not the server to take it.
    source: bool,
    bytes: u64,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { since: Instant::now(), source: false, bytes: 0 })))
    }

    /// The stream, with what is asked of it and what it gives noted down.
    pub(super) fn watch(
        self: &Arc<Self>,
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (pulse, mut stream) = (Arc::clone(self), stream.boxed());
        stream::poll_fn(move |context| {
            let item = stream.poll_next_unpin(context);
            pulse.note(&item);
            item
        })
    }

    /// Bytes that the server has taken.
    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Returns when the server has taken nothing, and answered nothing, for so long.
    pub(super) async fn silence(&self, longest: Duration) {
        loop {
            let (source, quiet) = {
                let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                (state.source, state.since.elapsed())
            };
            match longest.saturating_sub(quiet) {
                _ if source => sleep(longest).await,
                Duration::ZERO => return,
                left => sleep(left).await,
            }
        }
    }

    fn note(&self, item: &Poll<Option<io::Result<Bytes>>>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since = Instant::now();
        state.source = item.is_pending();
        if let Poll::Ready(Some(Ok(piece))) = item {
            state.bytes += piece.len() as u64;
        }
    }
}
