//! What the ledger announces, for whom it is.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use pgtenant_ledger::{CLAIMS_CHANNEL, CLUSTERS_CHANNEL, EVENTS_CHANNEL, Ledger};
use pgtenant_model::ClaimKey;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Announcements that nobody has taken yet. When there are more, the ledger's connection keeps the others.
const WAITING: usize = 1024;
const LEDGER_RETRY: Duration = Duration::from_millis(500);

type Boxed<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// What the controller of databases hears.
pub(crate) struct Heard {
    /// Something became of these claims.
    pub(crate) claims: Boxed<ClaimKey>,
    /// These claims have ended: what they held up may go on.
    pub(crate) ended: Boxed<ClaimKey>,
    /// Anything may have become of any claim: another cluster is described, or nothing was heard for a while.
    pub(crate) all: Boxed<()>,
}

/// Both ends of what is announced.
pub(crate) struct Announcer {
    claims: Sender<ClaimKey>,
    all: Sender<()>,
    clusters: Sender<()>,
    events: Sender<()>,
}

/// What follows events hears, and tells.
pub(crate) struct News {
    /// There are events.
    pub(crate) events: Boxed<()>,
    /// For claims that have ended.
    pub(crate) ended: Sender<ClaimKey>,
}

/// The announcer, what databases and clusters hear, and what follows events has.
pub(crate) fn channels() -> (Announcer, Heard, Boxed<()>, News) {
    let (claims, claims_heard) = channel(WAITING);
    let (ended, ended_heard) = channel(WAITING);
    let (all, all_heard) = channel(1);
    let (clusters, clusters_heard) = channel(1);
    let (events, events_heard) = channel(1);
    let heard = Heard { claims: stream(claims_heard), ended: stream(ended_heard), all: stream(all_heard) };
    let news = News { events: stream(events_heard), ended };
    (Announcer { claims, all, clusters, events }, heard, stream(clusters_heard), news)
}

fn stream<T: Send + 'static>(receiver: Receiver<T>) -> Boxed<T> {
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
}

impl Announcer {
    /// Listens for ever, and connects again when the ledger went away.
    pub(crate) async fn run(self, ledger: &Ledger) {
        loop {
            match ledger.listen(&[CLAIMS_CHANNEL, CLUSTERS_CHANNEL, EVENTS_CHANNEL]).await {
                Ok(mut listener) => {
                    // Nobody knows what was announced before the listener was there.
                    self.everything();
                    loop {
                        match listener.recv().await {
                            Ok(heard) => self.pass_on(heard).await,
                            Err(error) => {
                                tracing::warn!(error = ?error, "the ledger's announcements stopped");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(error = ?error, "the ledger's announcements are not heard"),
            }
            tokio::time::sleep(LEDGER_RETRY).await;
        }
    }

    async fn pass_on(&self, heard: Vec<pgtenant_ledger::Announcement>) {
        for one in heard {
            match one.channel.as_str() {
                CLAIMS_CHANNEL => {
                    let key =
                        one.payload.split_once('/').and_then(|(namespace, name)| ClaimKey::new(namespace, name).ok());
                    if let Some(key) = key {
                        self.claims.send(key).await.ok();
                    }
                }
                EVENTS_CHANNEL => _ = self.events.try_send(()),
                _ => self.everything(),
            }
        }
    }

    /// One that waits already says the same.
    fn everything(&self) {
        for sender in [&self.all, &self.clusters, &self.events] {
            sender.try_send(()).ok();
        }
    }
}
