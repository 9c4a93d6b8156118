//! Hears of changes below a folder. A hint only: whoever waits for it looks again after a while all the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::sync::watch::Sender;
use tokio::time::Instant;

/// Which folder a path leads to now: another one after a symbolic link on the way was changed, or the folder was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) real: PathBuf,
    node: (u64, u64),
}

/// The folder at `path`; none where there is no folder. Blocks.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let real = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&real).ok().filter(fs::Metadata::is_dir)?;
    Some(Identity { real, node: (metadata.dev(), metadata.ino()) })
}

/// What the watcher's thread tells.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    changed: Notify,
    last: Sender<Option<Instant>>,
    lost: AtomicBool,
    deaf: AtomicBool,
}

impl Signal {
    /// Waits for a change; returns at once if there was one since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// When the last change was heard of.
    pub(crate) fn last(&self) -> Option<Instant> {
        *self.last.borrow()
    }

    /// There is a change.
    pub(crate) fn touch(&self) {
        self.last.send_replace(Some(Instant::now()));
    }

    /// Whether changes may have been missed since the last call.
    pub(crate) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }

    /// Whether the watch has failed since the last call, so that it hears of some folders no more.
    pub(crate) fn take_deaf(&self) -> bool {
        self.deaf.swap(false, Ordering::Relaxed)
    }

    fn tell(&self, root: &Path, event: &notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => {
                self.lost.store(true, Ordering::Relaxed);
                self.touch();
                self.changed.notify_one();
            }
            Ok(event) if matters(root, event) => {
                self.touch();
                self.changed.notify_one();
            }
            Ok(_) => {}
            Err(error) => {
                if !self.deaf.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "changes in the apps folder can not be heard of; looking every second");
                }
                self.changed.notify_one();
            }
        }
    }
}

/// Reading is no change, and git's own files are not ours. Other hidden names may be what links lead to.
fn matters(root: &Path, event: &Event) -> bool {
    let change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    let of_git = |path: &PathBuf| {
        let inner = path.strip_prefix(root).unwrap_or(path);
        inner.components().any(|part| part.as_os_str() == ".git")
    };
    change && (event.paths.is_empty() || !event.paths.iter().all(of_git))
}

/// Watches all of a folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

/// Begins to watch. Blocks while the folders are walked.
pub(crate) fn watch(root: &Path, signal: &Arc<Signal>) -> notify::Result<Watch> {
    let signal = Arc::clone(signal);
    let within = root.to_path_buf();
    // Links may lead anywhere; those that lead elsewhere within the folder are seen there.
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(move |event| signal.tell(&within, &event), config)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(Watch { _watcher: watcher })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::Error;
    use notify::event::{CreateKind, Flag, RemoveKind};

    fn heard(event: notify::Result<Event>) -> (bool, bool, bool) {
        let signal = Signal::default();
        signal.tell(Path::new("/.git/apps"), &event);
        let mut changed = Box::pin(signal.changed());
        let ready = changed.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        assert_eq!(signal.last().is_some(), ready && event.is_ok());
        (ready, signal.take_lost(), signal.take_deaf())
    }

    #[test]
    fn reading_and_git_are_no_changes() {
        let event = |kind, path: &str| Ok(Event::new(kind).add_path(Path::new("/.git/apps").join(path)));
        let (made, gone) = (EventKind::Create(CreateKind::File), EventKind::Remove(RemoveKind::Any));
        let (opened, written) =
            (AccessKind::Open(AccessMode::Any), EventKind::Access(AccessKind::Close(AccessMode::Write)));
        assert_eq!(heard(event(made, "ns/a/values.yaml")), (true, false, false));
        assert_eq!(heard(event(written, "ns/a/values.yaml")), (true, false, false));
        assert_eq!(heard(event(gone, "")), (true, false, false));
        assert_eq!(heard(event(EventKind::Access(opened), "ns/a/values.yaml")), (false, false, false));
        assert_eq!(heard(event(made, ".git/index.lock")), (false, false, false));
    }

    #[test]
    fn what_was_missed_is_told() {
        assert_eq!(heard(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan))), (true, true, false));
        assert_eq!(heard(Err(Error::new(notify::ErrorKind::MaxFilesWatch))), (true, false, true));
    }
}
