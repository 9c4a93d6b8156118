//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Asks `probe` until it has what is waited for. `Err` of the probe says what was seen instead.
pub async fn eventually<T, F, Fut>(what: &str, patience: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + patience;
    let mut pause = POLL;
    loop {
        let seen = match probe().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}\nlast seen: {seen}");
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(Duration::from_millis(200));
    }
}

/// [`eventually`] within 30 seconds: for what takes a second on a quiet machine.
pub async fn soon<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    eventually(what, Duration::from_secs(30), probe).await
}

/// Asks `probe` for the whole of `time`; its first `Err` says what must not have happened.
pub async fn never<F, Fut>(what: &str, time: Duration, mut probe: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Err(seen) = probe().await {
            panic!("{what}: {seen}");
        }
        tokio::time::sleep(POLL).await;
    }
}
