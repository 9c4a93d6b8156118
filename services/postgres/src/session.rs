//! One connection, and how statements are sent on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Connection, Row, SimpleQueryMessage, Statement};

use crate::error::{PostgresError, chain};
use crate::server::{Counted, Inner, Timeouts};

/// A connection. What is sent on it has a deadline; after one that passed it is closed.
#[derive(Debug)]
pub struct Session {
    live: Option<Live>,
    home: Option<(Weak<Inner>, OwnedSemaphorePermit)>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Live {
    client: Client,
    task: AbortHandle,
    timeouts: Timeouts,
    prepared: HashMap<&'static str, Statement>,
    /// Something was sent and its answer not read, or the session's settings are not the usual ones.
    spoilt: AtomicBool,
}

impl Live {
    pub(crate) fn new<S, T>(client: Client, connection: Connection<S, T>, counted: Counted, timeouts: Timeouts) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "connection ended");
            }
            drop(counted);
        });
        Self { client, task: task.abort_handle(), timeouts, prepared: HashMap::new(), spoilt: AtomicBool::new(false) }
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(live), home) = (self.live.take(), self.home.take()) else { return };
        if live.spoilt.load(Ordering::Relaxed) {
            // The server is not asked to finish what nobody waits for.
            live.task.abort();
        } else if let Some(inner) = home.as_ref().and_then(|(inner, _)| inner.upgrade())
            && live.is_usable()
        {
            inner.park(live);
        }
    }
}

/// A value and its type, so that the server need not be asked for it.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How far a batch came that failed.
pub(crate) struct Failure {
    /// Statements that were done before the one that failed; all of them are undone.
    pub(crate) done: usize,
    pub(crate) cause: Cause,
}

pub(crate) enum Cause {
    Error(tokio_postgres::Error),
    Deadline(Duration),
}

impl Session {
    pub(crate) fn pooled(live: Live, permit: OwnedSemaphorePermit, inner: &Arc<Inner>) -> Self {
        Self { live: Some(live), home: Some((Arc::downgrade(inner), permit)) }
    }

    pub(crate) fn single(live: Live) -> Self {
        Self { live: Some(live), home: None }
    }

    /// Whether the connection still stands, as far as is known without sending anything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.live.as_ref().is_some_and(Live::is_usable)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.live.as_ref().map(|live| live.timeouts.clone()).unwrap_or_default()
    }

    /// Lets nobody use the session after its present holder.
    pub(crate) fn spoil(&self) {
        if let Some(live) = &self.live {
            live.spoilt.store(true, Ordering::Relaxed);
        }
    }

    /// Sends statements in one message: one round trip, and one transaction unless they make their own.
    pub(crate) async fn batch(&mut self, sql: &str, deadline: Duration) -> Result<(), Failure> {
        let mut done = 0;
        let result = self
            .within(deadline, async |client| {
                let mut messages = std::pin::pin!(client.simple_query_raw(sql).await?);
                while let Some(message) = messages.try_next().await? {
                    done += usize::from(matches!(message, SimpleQueryMessage::CommandComplete(_)));
                }
                Ok(())
            })
            .await;
        result.map_err(|cause| Failure { done, cause })
    }

    /// Runs a query of one text column. One round trip; on a session that is used again the server keeps the plan, which
    /// takes it longer to make than to run.
    pub(crate) async fn texts(
        &mut self,
        what: &str,
        query: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Option<String>>, PostgresError> {
        let rows = self.rows(query, parameters).await.map_err(|cause| cause.into_error(what))?;
        let text = |row: &tokio_postgres::Row| row.try_get(0).map_err(|error| PostgresError::new(what, &error));
        rows.iter().map(text).collect()
    }

    async fn rows(&mut self, query: &'static str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Cause> {
        let deadline = self.timeouts().statement;
        if self.home.is_none() {
            return self.within(deadline, async |client| client.query_typed(query, parameters).await).await;
        }
        let kept = self.live.as_ref().and_then(|live| live.prepared.get(query).cloned());
        let statement = match kept {
            Some(statement) => statement,
            None => {
                let types: Vec<_> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
                let prepare = async |client: &Client| client.prepare_typed(query, &types).await;
                let statement = self.within(deadline, prepare).await?;
                if let Some(live) = &mut self.live {
                    live.prepared.insert(query, statement.clone());
                }
                statement
            }
        };
        let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
        self.within(deadline, async |client| client.query(&statement, &values).await).await
    }

    /// Waits for an answer until `deadline`. A caller that goes away meanwhile, and one that waited in vain, leave the
    /// session spoilt: what comes next on it is not what the next caller asked for.
    async fn within<R>(
        &mut self,
        deadline: Duration,
        send: impl AsyncFnOnce(&Client) -> Result<R, tokio_postgres::Error>,
    ) -> Result<R, Cause> {
        let Some(live) = &self.live else { return Err(Cause::Deadline(Duration::ZERO)) };
        let spoilt = live.spoilt.swap(true, Ordering::Relaxed);
        match tokio::time::timeout(deadline, send(&live.client)).await {
            Ok(result) => {
                let ended = result.as_ref().is_err_and(ends_the_connection);
                live.spoilt.store(spoilt || ended, Ordering::Relaxed);
                result.map_err(Cause::Error)
            }
            Err(_) => {
                live.task.abort();
                Err(Cause::Deadline(deadline))
            }
        }
    }
}

/// After a FATAL or PANIC the server closes the connection, which is not seen at once.
fn ends_the_connection(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().map(DbError::parsed_severity);
    error.is_closed() || matches!(severity, Some(Some(Severity::Fatal | Severity::Panic)))
}

impl Cause {
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Error(error) => error.code().map(SqlState::code),
            Self::Deadline(_) => None,
        }
    }

    pub(crate) fn into_error(self, what: &str) -> PostgresError {
        match self {
            Self::Error(error) => PostgresError::new(what, &error),
            Self::Deadline(after) => PostgresError::Deadline { what: what.to_owned(), after },
        }
    }
}
