//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM; the second one ends the process at once.
pub(crate) fn on_stop() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return stop;
    };
    tokio::spawn(async move {
        for exit in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if exit {
                std::process::exit(130);
            }
            token.cancel();
        }
    });
    stop
}
