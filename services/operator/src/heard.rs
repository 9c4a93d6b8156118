//! What the ledger announces, for whom it is.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use pgtenant_ledger::{CLAIMS_CHANNEL, CLUSTERS_CHANNEL, EVENTS_CHANNEL, Ledger, RESTORES_CHANNEL};
use pgtenant_model::ClaimKey;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use uuid::Uuid;

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

/// What the controller of restores hears.
pub(crate) struct RestoresHeard {
    /// Something became of these restores.
    pub(crate) restores: Boxed<Uuid>,
    /// What held up those that could not be asked for yet may be over.
    pub(crate) freed: Boxed<Freed>,
    /// Anything may have become of any restore.
    pub(crate) all: Boxed<()>,
}

/// What a restore that could not be asked for yet may have waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Freed {
    /// Something became of its claim.
    Claim(ClaimKey),
    /// One restore less is under way.
    Turn,
}

/// What announces.
pub(crate) struct Announcer {
    claims: Sender<ClaimKey>,
    restores: Sender<Uuid>,
    /// For those who look at everything.
    all: [Sender<()>; 3],
    events: Sender<()>,
}

/// What follows events hears, and tells.
pub(crate) struct News {
    /// There are events.
    pub(crate) events: Boxed<()>,
    pub(crate) told: Told,
}

/// Who is told by whoever follows events.
pub(crate) struct Told {
    /// Of claims that have ended.
    pub(crate) ended: Sender<ClaimKey>,
    /// Of what restores waited for that could not be asked for yet.
    pub(crate) freed: Sender<Freed>,
}

/// The announcer, and what each of the others hears.
pub(crate) struct Channels {
    pub(crate) announcer: Announcer,
    pub(crate) databases: Heard,
    pub(crate) restores: RestoresHeard,
    pub(crate) clusters: Boxed<()>,
    pub(crate) news: News,
}

impl Channels {
    pub(crate) fn new() -> Self {
        let (claims, claims_heard) = channel(WAITING);
        let (ended, ended_heard) = channel(WAITING);
        let (restores, restores_heard) = channel(WAITING);
        let (freed, freed_heard) = channel(WAITING);
        let (all_databases, all_databases_heard) = channel(1);
        let (all_restores, all_restores_heard) = channel(1);
        let (clusters, clusters_heard) = channel(1);
        let (events, events_heard) = channel(1);
        Self {
            announcer: Announcer { claims, restores, all: [all_databases, all_restores, clusters], events },
            databases: Heard {
                claims: stream(claims_heard),
                ended: stream(ended_heard),
                all: stream(all_databases_heard),
            },
            restores: RestoresHeard {
                restores: stream(restores_heard),
                freed: stream(freed_heard),
                all: stream(all_restores_heard),
            },
            clusters: stream(clusters_heard),
            news: News { events: stream(events_heard), told: Told { ended, freed } },
        }
    }
}

fn stream<T: Send + 'static>(receiver: Receiver<T>) -> Boxed<T> {
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
}

impl Announcer {
    /// Listens for ever, and connects again when the ledger went away.
    pub(crate) async fn run(self, ledger: &Ledger) {
        loop {
            match ledger.listen(&[CLAIMS_CHANNEL, CLUSTERS_CHANNEL, EVENTS_CHANNEL, RESTORES_CHANNEL]).await {
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
                // Dumps are announced there as well, without a name.
                RESTORES_CHANNEL => {
                    if let Ok(id) = one.payload.parse() {
                        self.restores.send(id).await.ok();
                    }
                }
                EVENTS_CHANNEL => _ = self.events.try_send(()),
                _ => self.everything(),
            }
        }
    }

    /// One that waits already says the same.
    fn everything(&self) {
        for sender in self.all.iter().chain([&self.events]) {
            sender.try_send(()).ok();
        }
    }
}
