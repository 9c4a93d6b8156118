//! `pgtenant health`: what HAProxy and its like ask each node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use clap::Args;
use pgtenant_topology::{Health, HealthProbe};
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use super::error::{CliError, Outcome, Result};
use super::output::note;

/// Arguments of `pgtenant health`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "GET and OPTIONS: /primary is 200 where the server takes writes, /standby where it is a standby (and not older than
--max-lag), /health where it answers; else 503. The body says what it is. A server that hangs is 503 after --deadline.
The login needs no privilege beyond CONNECT.

Examples:
  pgtenant health --listen :8008 --dsn 'postgresql://health@localhost:5432/postgres?sslmode=verify-full' \\
      --password-file /run/secrets/health
  pgtenant health --listen 127.0.0.1:8008 --dsn postgresql://health@db1/postgres --max-lag 10s   # password: ~/.pgpass"
)]
pub(super) struct HealthArgs {
    /// Where to answer; without an address on all of them
    #[arg(long, value_name = "[ADDRESS]:PORT", value_parser = listen_address)]
    listen: SocketAddr,
    /// The server, as a URI without a password
    #[arg(long, value_name = "URI", value_parser = dsn)]
    dsn: PgConnectOptions,
    /// File whose first line is the password [default: as libpq has it, PGPASSFILE or ~/.pgpass]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A standby that is further behind is none
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_lag: Option<Duration>,
    /// How long the server may take to answer
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s")]
    deadline: Duration,
}

#[derive(Debug)]
struct Server {
    probe: HealthProbe,
    max_lag: Option<Duration>,
}

pub(super) async fn run(args: &HealthArgs) -> Result<Outcome> {
    let HealthArgs { listen, dsn, password_file, max_lag, deadline } = args.clone();
    let options = match password_file {
        Some(file) => {
            let password = crate::config::read_secret(&file).map_err(|error| CliError::failed(error.to_string()))?;
            dsn.password(password.expose_secret())
        }
        None => dsn,
    };
    let server = Arc::new(Server { probe: HealthProbe::new(options, deadline), max_lag });
    let stop = crate::signals::on_stop();
    let fault = |error: std::io::Error| {
        CliError::failed(format!("can not listen on {listen}: {error}")).hint("choose another address with --listen")
    };
    let listener = TcpListener::bind(listen).await.map_err(fault)?;
    note(&format!("ready http://{}", listener.local_addr()?));
    axum::serve(listener, router(server)).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(Outcome::Done)
}

fn router(server: Arc<Server>) -> Router {
    let asked = MethodFilter::GET.or(MethodFilter::OPTIONS);
    Router::new()
        .route("/primary", on(asked, primary))
        .route("/standby", on(asked, standby))
        .route("/health", on(asked, any))
        .with_state(server)
}

async fn primary(State(server): State<Arc<Server>>) -> (StatusCode, Json<Health>) {
    answer(&server, Health::is_primary).await
}

async fn standby(State(server): State<Arc<Server>>) -> (StatusCode, Json<Health>) {
    let max_lag = server.max_lag;
    answer(&server, |health| health.is_standby(max_lag)).await
}

async fn any(State(server): State<Arc<Server>>) -> (StatusCode, Json<Health>) {
    answer(&server, Health::answers).await
}

async fn answer(server: &Server, is_it: impl Fn(&Health) -> bool) -> (StatusCode, Json<Health>) {
    let health = server.probe.look().await;
    let status = if is_it(&health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

/// `:8008` is that port on every address.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "is no address and port; write :8008 or 127.0.0.1:8008".to_owned())
}

/// An argument is seen by every process of the machine.
fn dsn(text: &str) -> Result<PgConnectOptions, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is no URI: {error}"))?;
    if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
        return Err("has a password in it, which every process would see; use --password-file".to_owned());
    }
    PgConnectOptions::from_str(text).map_err(|error| format!("can not be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_servers_as_they_are_typed() {
        assert_eq!(listen_address(":8008").unwrap().to_string(), "0.0.0.0:8008");
        assert_eq!(listen_address("[::1]:8008").unwrap().port(), 8008);
        assert!(listen_address("8008").is_err());
        assert_eq!(dsn("postgresql://health@db1:5433/postgres?sslmode=verify-full").unwrap().get_port(), 5433);
        for secret in ["postgresql://a:b@db1/postgres", "postgresql://a@db1/postgres?password=b"] {
            assert!(dsn(secret).unwrap_err().contains("--password-file"), "{secret}");
        }
    }
}
