//! How far a copy is, and how fast it may go.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use super::part::{Part, PartKind, Relation};

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of tables that are copied, as the source's server counts them.
    pub bytes: u64,
    /// Of so many.
    pub bytes_total: u64,
    /// Tables that are copied.
    pub tables: u32,
    /// Of so many.
    pub tables_total: u32,
}

/// What flows from a source to where it is written: it is counted, and held back where it may not go as fast as it can. A part counts no
/// more than the bytes that it has on the server, and just these when it is done.
#[derive(Debug)]
pub struct Flow {
    begun: Instant,
    bucket: Option<Bucket>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    /// Of parts that are being copied.
    seen: HashMap<String, u64>,
    /// Parts of a table that are not copied yet.
    left: HashMap<Relation, u32>,
}

impl Flow {
    /// These parts, which take `bytes_per_second` together at most.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a Part>, bytes_per_second: Option<u64>) -> Self {
        let (mut left, mut bytes_total) = (HashMap::<Relation, u32>::new(), 0);
        for part in parts {
            bytes_total += part.bytes;
            if let Some(table) = table_of(part) {
                *left.entry(table.clone()).or_default() += 1;
            }
        }
        let tables_total = u32::try_from(left.len()).unwrap_or(u32::MAX);
        let progress = Progress { bytes_total, tables_total, ..Progress::default() };
        let state = Mutex::new(State { progress, seen: HashMap::new(), left });
        Self { begun: Instant::now(), bucket: bytes_per_second.map(Bucket::new), state }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.state().progress
    }

    /// How long it has been going.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A part's data, counted, and as fast as they may go.
    pub fn through<'a>(
        &'a self,
        part: &'a Part,
        data: impl Stream<Item = io::Result<Bytes>> + Send + 'a,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'a {
        data.then(move |bytes| async move {
            let bytes = bytes?;
            if let Some(bucket) = &self.bucket {
                bucket.take(bytes.len()).await;
            }
            self.add(part, bytes.len() as u64);
            Ok(bytes)
        })
    }

    /// A part is written.
    pub fn done(&self, part: &Part) {
        self.add(part, part.bytes);
        let mut state = self.state();
        state.seen.remove(part.name.as_str());
        if let Some(left) = table_of(part).and_then(|table| state.left.get_mut(table)) {
            *left -= 1;
            let done = u32::from(*left == 0);
            state.progress.tables += done;
        }
    }

    /// A part is begun anew.
    pub(super) fn forget(&self, part: &Part) {
        let mut state = self.state();
        let seen = state.seen.remove(part.name.as_str()).unwrap_or(0);
        state.progress.bytes -= seen;
    }

    fn add(&self, part: &Part, bytes: u64) {
        let mut state = self.state();
        let seen = state.seen.entry(part.name.clone()).or_default();
        let counted = bytes.min(part.bytes.saturating_sub(*seen));
        *seen += counted;
        state.progress.bytes += counted;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn table_of(part: &Part) -> Option<&Relation> {
    match &part.kind {
        PartKind::Rows(rows) => Some(&rows.table),
        PartKind::Sequences | PartKind::LargeObjects(_) => None,
    }
}

/// A token bucket that holds a tenth of a second.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// When all that was taken so far is paid for.
    paid: Mutex<Instant>,
}

const BURST: Duration = Duration::from_millis(100);

impl Bucket {
    fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1) as f64, paid: Mutex::new(Instant::now()) }
    }

    async fn take(&self, bytes: usize) {
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let price = Duration::from_secs_f64(bytes as f64 / self.per_second);
            *paid = (*paid).max(Instant::now()) + price;
            *paid
        };
        if let Some(until) = until.checked_sub(BURST) {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_ends_at_the_total_whatever_was_streamed() {
        let part = |name: &str, bytes| Part { name: name.into(), bytes, kind: PartKind::Sequences };
        let parts = [part("a", 10), part("b", 5), part("c", 0)];
        let flow = Flow::new(&parts, None);
        flow.add(&parts[0], 100);
        assert_eq!(flow.progress().bytes, 10);
        flow.add(&parts[1], 3);
        flow.forget(&parts[1]);
        assert_eq!(flow.progress().bytes, 10);
        flow.add(&parts[2], 7);
        parts.iter().for_each(|part| flow.done(part));
        assert_eq!(flow.progress(), Progress { bytes: 15, bytes_total: 15, ..Progress::default() });
    }

    #[tokio::test]
    async fn a_throttle_is_kept_by_all_together() {
        let (bucket, begun) = (Bucket::new(1_000_000), Instant::now());
        let takes = (0..30).map(|_| bucket.take(10_000));
        futures::future::join_all(takes).await;
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    }
}
