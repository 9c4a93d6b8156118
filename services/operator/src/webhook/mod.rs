//! What the API server asks: to convert databases between versions, and whether a wish would be refused.
//!
//! Both are answered by every replica. Nothing depends on the second: what it refuses is refused again when the wish is written
//! down, and the object's condition says so. Its failure policy is therefore `Ignore`.

mod admit;
mod certificate;
mod keep;
mod places;
mod review;
mod target;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use pgtenant_ledger::Ledger;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::{OperatorError, Result};

use places::Places;

pub(crate) use keep::{answer, keep_certificate};
pub use target::{Target, install};

/// Two thousand objects in one review; kubectl and controllers ask for 500 at a time.
const LARGEST_REVIEW: usize = 4 * 1024 * 1024;
/// Reviews that are answered at once. Whoever reaches the port may ask, so this and their size bound the memory: JSON of small
/// values takes 16 times its size.
const AT_ONCE: usize = 4;
/// Reviews that are read, or wait for their turn.
const READ: usize = 32;
/// Connections at once: each API server has one.
const CONNECTIONS: usize = 256;
/// Requests at once on one of them.
const STREAMS: u32 = 32;
/// For one review, with the wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// For requests under way when the process is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How the webhooks are served, and how the API server finds them.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// The address of the socket.
    pub listen: SocketAddr,
    /// What the API server is told.
    pub target: Target,
    /// A folder with `tls.crt` and `tls.key` that somebody else keeps fresh, as cert-manager does; none: pgtenant makes its
    /// own, in a Secret, and tells the API server.
    pub tls_dir: Option<PathBuf>,
}

/// Where the certificate lies.
const SECRET: &str = "pgtenant-webhook-tls";

/// Serves until `stop`.
///
/// # Errors
/// The socket is taken.
async fn serve(listen: SocketAddr, tls: RustlsConfig, ledger: Ledger, stop: CancellationToken) -> Result<()> {
    let fault = |source| OperatorError::Listen { address: listen, source };
    let socket = TcpListener::bind(listen).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    let handle = Handle::new();
    let closing = handle.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        closing.graceful_shutdown(Some(GRACE));
    });
    let router = Router::new()
        .route("/convert", post(review::convert))
        .route("/validate", post(admit::validate))
        // `in_turn` has read the body by then, and no more of it than is allowed.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(
            Arc::new(Turns { read: Semaphore::new(READ), answer: Semaphore::new(AT_ONCE) }),
            in_turn,
        ))
        .with_state(Arc::new(Asked { ledger }));
    let server = axum_server::from_tcp_rustls(socket, tls).map_err(fault)?;
    let mut server = server.map(|tls| Places::new(tls, CONNECTIONS));
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server
        .http_builder()
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .max_concurrent_streams(STREAMS);
    server.handle(handle).serve(router.into_make_service()).await.map_err(fault)
}

/// Bounds what strangers can take.
struct Turns {
    read: Semaphore,
    answer: Semaphore,
}

/// A few that send their bodies slowly hold nobody up.
async fn in_turn(State(turns): State<Arc<Turns>>, request: Request, next: Next) -> Response {
    let answer = async {
        let _read = turns.read.acquire().await;
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, LARGEST_REVIEW).await else {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        };
        let _turn = turns.answer.acquire().await;
        next.run(Request::from_parts(parts, Body::from(body))).await
    };
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    answered.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

/// What answers are made from.
pub(crate) struct Asked {
    pub(crate) ledger: Ledger,
}
