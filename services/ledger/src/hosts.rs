//! A ledger on several hosts, of which one takes writes: connections are made to that one, as libpq does with
//! `target_session_attrs=read-write`.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

/// How often the host in use is asked whether it still takes writes.
const LOOK: Duration = Duration::from_secs(1);
/// How soon the hosts are asked again while none does.
const SEARCH: Duration = Duration::from_millis(250);
/// For one host: TCP, TLS, authentication and the question.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps new connections of `pool` on the host that takes writes, until the pool is closed.
pub(crate) async fn follow(pool: PgPool, hosts: Vec<PgConnectOptions>) {
    while !pool.is_closed() {
        let used = async { is_writable(&mut *pool.acquire().await?).await };
        let writable = matches!(timeout(PATIENCE, used).await, Ok(Ok(true)));
        let found = writable || find(&pool, &hosts).await;
        tokio::time::sleep(if found { LOOK } else { SEARCH }).await;
    }
}

/// Asks every host until one takes writes, and has connections made to that one. Says whether one does.
pub(crate) async fn find(pool: &PgPool, hosts: &[PgConnectOptions]) -> bool {
    for host in hosts {
        let asked = async {
            let mut db = host.connect().await?;
            let writable = is_writable(&mut db).await;
            db.close().await.ok();
            writable
        };
        if !matches!(timeout(PATIENCE, asked).await, Ok(Ok(true))) {
            continue;
        }
        let used = pool.connect_options();
        if (used.get_host(), used.get_port()) != (host.get_host(), host.get_port()) {
            tracing::info!(host = host.get_host(), port = host.get_port(), "the ledger's primary");
            pool.set_connect_options(host.clone());
        }
        return true;
    }
    false
}

/// Whether the server of a connection takes writes.
pub(crate) async fn is_writable(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let asked = timeout(PATIENCE, sqlx::query_scalar("select not pg_is_in_recovery()").fetch_one(db));
    asked.await.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?
}
