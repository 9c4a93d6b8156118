//! Follows a folder: looks at it when it changes and every now and then, and brings the ledger to what it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgtenant_ledger::Ledger;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::difference::Guard;
use crate::scan::{Limits, Scan, Scanner};
use crate::sync::Syncer;
use crate::watch::{Identity, Signal, Watch, identity, watch};

/// How often is looked at what the path leads to: a link that changes somewhere on the way is seen by nothing else.
const IDENTITY: Duration = Duration::from_millis(250);
/// Looks while changes can not be heard of.
const DEAF: Duration = Duration::from_secs(1);
/// Tries to hear of changes again.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);
/// A folder that does not come to rest is looked at after so many times the debounce.
const RESTLESS: u32 = 3;
/// Waits after the ledger did not answer.
const OUTAGE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How a folder is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Looks at all of it without a change, and compares with the ledger.
    pub rescan: Duration,
    /// How long a change must rest before it is read.
    pub debounce: Duration,
    /// How long a file that does not end with a newline is taken for one that is being written.
    pub unfinished: Duration,
    /// How long nothing may have changed in the folder before a definition that is gone is taken for removed. Longer than a
    /// `git pull` pauses between removing a file and writing it elsewhere.
    pub rest: Duration,
    /// What keeps a mistake from taking databases with it.
    pub guard: Guard,
    /// How much of the folder is read.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rescan: Duration::from_secs(30),
            debounce: Duration::from_millis(200),
            unfinished: Duration::from_secs(2),
            rest: Duration::from_secs(5),
            guard: Guard::default(),
            limits: Limits::default(),
        }
    }
}

/// Keeps the ledger at what the folder `root` says, until `cancel`. The folder may come later, go, or be replaced; the
/// ledger may be away for a while.
pub async fn follow(root: PathBuf, ledger: Ledger, settings: Settings, cancel: CancellationToken) {
    tracing::info!(root = %root.display(), "following the apps folder");
    let mut follower = Follower::new(root, settings);
    cancel.run_until_cancelled(follower.run(&ledger)).await;
}

struct Follower {
    root: PathBuf,
    settings: Settings,
    signal: Arc<Signal>,
    scanner: Option<Scanner>,
    syncer: Syncer,
    watched: Option<Identity>,
    watch: Option<Watch>,
    listen_again: Instant,
    /// The scan that the ledger is known to hold.
    synced: Option<Scan>,
    outage: Duration,
}

impl Follower {
    fn new(root: PathBuf, settings: Settings) -> Self {
        Self {
            root,
            signal: Arc::default(),
            scanner: None,
            syncer: Syncer::new(settings.guard, settings.rest),
            settings,
            watched: None,
            watch: None,
            listen_again: Instant::now(),
            synced: None,
            outage: OUTAGE.0,
        }
    }

    async fn run(&mut self, ledger: &Ledger) {
        let mut rescan = Instant::now();
        let mut look = None;
        loop {
            self.listen().await;
            let began = Instant::now();
            let due = began >= rescan || look.is_some_and(|look| began >= look);
            let Some(scan) = self.scan().await else {
                sleep_until(began + DEAF).await;
                continue;
            };
            if began >= rescan {
                rescan = began + self.settings.rescan;
            }
            if due || self.synced.as_ref() != Some(&scan) {
                look = self.sync(ledger, scan).await.map(|wait| Instant::now() + wait);
            }
            if self.signal.take_deaf() {
                self.watch = None;
                self.listen_again = Instant::now() + LISTEN_AGAIN;
            }
            let deaf = self.signal.take_lost() || self.watch.is_none();
            let next = [Some(rescan), look, deaf.then_some(began + DEAF)].into_iter().flatten().min();
            self.wait(next.unwrap_or(rescan)).await;
        }
    }

    /// Brings the ledger to `scan`. Returns after which time to do so again, if not at the next change.
    async fn sync(&mut self, ledger: &Ledger, scan: Scan) -> Option<Duration> {
        match self.syncer.sync(ledger, &scan, Instant::now(), self.signal.last()).await {
            Ok(synced) => {
                if self.outage != OUTAGE.0 {
                    tracing::info!("the ledger answers again");
                    self.outage = OUTAGE.0;
                }
                if synced.written + synced.withdrawn > 0 {
                    tracing::info!(
                        written = synced.written,
                        withdrawn = synced.withdrawn,
                        "the apps folder has changed"
                    );
                }
                self.synced = Some(scan);
                synced.look_again
            }
            Err(error) => {
                let wait = self.outage;
                if wait == OUTAGE.0 {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the apps folder can not be written to the ledger; trying again");
                }
                self.outage = (wait * 2).min(OUTAGE.1);
                self.synced = None;
                Some(wait)
            }
        }
    }

    /// None if the scan came to no end, which is a fault of this program.
    async fn scan(&mut self) -> Option<Scan> {
        let Settings { limits, unfinished, .. } = self.settings.clone();
        let mut scanner = self.scanner.take().unwrap_or_else(|| Scanner::new(limits, unfinished));
        let root = self.root.clone();
        let scanned = tokio::task::spawn_blocking(move || {
            let scan = scanner.scan(&root);
            (scanner, scan)
        });
        match scanned.await {
            Ok((scanner, scan)) => {
                self.scanner = Some(scanner);
                Some(scan)
            }
            Err(error) => {
                tracing::error!(%error, "the apps folder could not be scanned");
                None
            }
        }
    }

    /// Watches the folder that the path leads to now.
    async fn listen(&mut self) {
        let now = at(&self.root).await;
        let again = self.watch.is_none() && Instant::now() >= self.listen_again;
        if now == self.watched && !again {
            return;
        }
        if now != self.watched {
            self.signal.touch();
        }
        self.watch = None;
        self.watched = now;
        self.listen_again = Instant::now() + LISTEN_AGAIN;
        let Some(Identity { real, .. }) = self.watched.clone() else { return };
        let signal = Arc::clone(&self.signal);
        match tokio::task::spawn_blocking(move || watch(&real, &signal)).await {
            Ok(Ok(watch)) => self.watch = Some(watch),
            Ok(Err(error)) => {
                tracing::warn!(%error, "changes in the apps folder can not be heard of; looking every second");
            }
            Err(error) => tracing::error!(%error, "the apps folder could not be watched"),
        }
    }

    /// Until `next`, a change that has come to rest, or another folder at the path.
    async fn wait(&self, next: Instant) {
        loop {
            let poll = next.min(Instant::now() + IDENTITY);
            if timeout(poll.duration_since(Instant::now()), self.signal.changed()).await.is_ok() {
                return self.rest().await;
            }
            if Instant::now() >= next || at(&self.root).await != self.watched {
                return;
            }
        }
    }

    async fn rest(&self) {
        let debounce = self.settings.debounce;
        let latest = Instant::now() + debounce * RESTLESS;
        while Instant::now() < latest && timeout(debounce, self.signal.changed()).await.is_ok() {}
    }
}

async fn at(root: &Path) -> Option<Identity> {
    let root = root.to_path_buf();
    tokio::task::spawn_blocking(move || identity(&root)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_folder_is_followed_without_being_heard() {
        let root = tempfile::TempDir::new().unwrap();
        let ledger = Ledger::new(pgtenant_testkit::fresh_database("apps").await, 4);
        ledger.migrate().await.unwrap();
        let settings = Settings { rescan: Duration::from_secs(3600), ..Settings::default() };
        let mut follower = Follower::new(root.path().to_owned(), settings);
        // As after a watch that failed.
        follower.watched = at(root.path()).await;
        follower.listen_again += LISTEN_AGAIN;
        let (cancel, own) = (CancellationToken::new(), ledger.clone());
        let ends = cancel.clone().drop_guard();
        let task = tokio::spawn(async move { cancel.run_until_cancelled(follower.run(&own)).await.is_some() });
        for file in ["application.yaml", "later/application.yaml"] {
            let folder = root.path().join("ns").join(file);
            fs::create_dir_all(folder.parent().unwrap()).unwrap();
            fs::write(folder, "[").unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let told = async || {
                let problems = pgtenant_ledger::apps_problems(&mut ledger.acquire().await.unwrap()).await.unwrap();
                problems.iter().any(|p| p.file.ends_with(file) && p.line == 1)
            };
            while !told().await {
                assert!(Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        drop(ends);
        assert!(!task.await.unwrap());
    }
}
