//! Connections: how many, how long a client may take to say what it wants, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::ApiState;
use crate::patient::Patient;

/// Headers of a request; with more it is answered 431.
const MAX_HEADERS: usize = 64;
/// Bytes that all of them may have together; with more it is answered 431.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// After a failed accept, as when no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves [`crate::router`] until `ApiParts::shutdown`; then open requests are finished for `shutdown_grace`.
pub async fn serve(listener: TcpListener, state: ApiState) {
    let settings = state.settings().clone();
    let shutdown = state.parts.shutdown.clone();
    let app = crate::router(state);
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    loop {
        // Connections beyond the limit wait in the kernel's queue.
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let Some((accepted, place)) = shutdown.run_until_cancelled(accept).await else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let connection = graceful.watch(http.serve_connection(io(stream, settings.write_timeout), service(&app, peer)));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%peer, %error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(settings.shutdown_grace, graceful.shutdown()).await.is_err() {
        warn!("requests were still open when the time to finish them was over");
    }
}

fn io(stream: TcpStream, patience: Duration) -> TokioIo<Patient> {
    // Small answers must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    TokioIo::new(Patient::new(stream, patience))
}

/// The door for one connection; limits by address want to know whose it is.
fn service(
    app: &Router,
    peer: SocketAddr,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = Response,
    Error = std::convert::Infallible,
    Future: Send,
> + use<> {
    let tell = move |request: hyper::Request<Incoming>| -> Request {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    TowerToHyperService::new(app.clone().map_request(tell))
}
