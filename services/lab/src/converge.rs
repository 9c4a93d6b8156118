//! From whatever state a cluster was left in to one primary and one standby that follows it.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;
use crate::control::History;
use crate::error::{Error, Result};
use crate::node::Node;
use crate::postmaster::POLL;

/// Sentences for the user.
pub(crate) type Progress<'a> = &'a mut (dyn FnMut(&str) + Send);

/// How long a standby that has its data may take until it streams, before it is copied anew.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(15);
/// For a fresh copy, after which nothing is left to try.
const FRESH_DEADLINE: Duration = Duration::from_secs(60);
const SQL_DEADLINE: Duration = Duration::from_secs(30);

/// What is in a node's folder.
#[derive(Debug, Clone, Copy)]
struct Found {
    standby: bool,
    history: History,
}

#[derive(Debug, PartialEq, Eq)]
struct Roles {
    primary: usize,
    /// The other has data that is not the primary's past.
    rebuild: bool,
}

/// A node without `standby.signal` is a primary. Where both or none are, the one with the newer history is, and of equals the first.
fn roles(found: [Option<Found>; 2]) -> Roles {
    let rebuild_other = |primary: usize| found[1 - primary].is_some_and(|other| !other.standby);
    let primary = match found {
        [None, None] | [Some(_), None] => 0,
        [None, Some(_)] => 1,
        [Some(first), Some(second)] => match (first.standby, second.standby) {
            (false, true) => 0,
            (true, false) => 1,
            _ => usize::from(second.history > first.history),
        },
    };
    Roles { primary, rebuild: rebuild_other(primary) }
}

impl Cluster {
    pub(crate) async fn converge(&mut self, progress: Progress<'_>) -> Result<()> {
        let Roles { primary, rebuild } = roles(self.survey().await?);
        self.primary = primary;
        let version = self.version().to_owned();
        let [first, second] = &mut self.nodes;
        let (primary, other) = if primary == 0 { (first, second) } else { (second, first) };
        if rebuild {
            // Two writable servers must not run, not even while the copy is made.
            other.stop().await?;
        }
        if !primary.exists() {
            progress(&format!("creating PostgreSQL {version} ({})", primary.name()));
            primary.init().await?;
        }
        if !primary.is_running() {
            progress(&format!("starting {} on port {}", primary.name(), primary.port()));
            primary.start().await?;
        }
        if primary.is_standby() {
            progress(&format!("promoting {}: there is no primary", primary.name()));
            primary.promote().await?;
        }
        if self.standby {
            attach(primary, other, rebuild, progress).await?;
        }
        Ok(())
    }

    /// Histories are read only where they decide something: servers without pg_controldata have no second node, and a damaged
    /// standby is no reason not to start.
    async fn survey(&mut self) -> Result<[Option<Found>; 2]> {
        for node in &mut self.nodes {
            node.settle_earlier().await?;
        }
        let [first, second] = &self.nodes;
        let compare = first.exists() && second.exists() && first.is_standby() == second.is_standby();
        let mut found = [None, None];
        for (node, found) in self.nodes.iter().zip(&mut found) {
            if node.exists() {
                let history = if compare { node.history().await? } else { History::default() };
                *found = Some(Found { standby: node.is_standby(), history });
            }
        }
        Ok(found)
    }
}

/// Makes `other` stream from `primary`, with as little copying as that takes.
async fn attach(primary: &Node, other: &mut Node, rebuild: bool, progress: Progress<'_>) -> Result<()> {
    let mut connection = connect(primary).await?;
    let slot = "SELECT pg_create_physical_replication_slot($1::text::name, true) \
                WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
    bounded(primary, sqlx::query(slot).bind(other.slot()).execute(&mut connection)).await?;
    let result = follow(primary, other, rebuild, &mut connection, progress).await;
    // The session is of no more use, whether its end is polite or not.
    let _ = connection.close().await;
    result
}

async fn follow(
    primary: &Node,
    other: &mut Node,
    rebuild: bool,
    connection: &mut PgConnection,
    progress: Progress<'_>,
) -> Result<()> {
    if other.exists() && !rebuild {
        if !other.is_running() {
            progress(&format!("starting {} on port {}", other.name(), other.port()));
        }
        other.follow(primary);
        match other.start().await {
            Ok(()) if streams(primary, other, connection, FOLLOW_DEADLINE).await? => return Ok(()),
            Ok(()) => {}
            Err(Error::Start { log, .. }) => {
                tracing::warn!(node = other.name(), %log, "the standby does not start")
            }
            Err(error) => return Err(error),
        }
    }
    progress(&format!("copying {} to {}", primary.name(), other.name()));
    other.init_standby_of(primary).await?;
    other.start().await?;
    if streams(primary, other, connection, FRESH_DEADLINE).await? {
        return Ok(());
    }
    let (node, seconds) = (other.name().to_owned(), FRESH_DEADLINE.as_secs());
    Err(Error::NotStreaming { node, seconds, log: other.log_end() })
}

async fn streams(primary: &Node, other: &mut Node, connection: &mut PgConnection, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    let sql = "SELECT EXISTS (SELECT FROM pg_stat_replication \
               WHERE application_name = $1 AND state IN ('streaming', 'catchup'))";
    loop {
        let query = sqlx::query_scalar::<_, bool>(sql).bind(other.name()).fetch_one(&mut *connection);
        if bounded(primary, query).await? {
            return Ok(true);
        }
        if Instant::now() > deadline || !other.is_running() {
            return Ok(false);
        }
        sleep(POLL).await;
    }
}

async fn connect(node: &Node) -> Result<PgConnection> {
    bounded(node, node.superuser().application_name("pgtenant lab").connect()).await
}

async fn bounded<T>(node: &Node, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let timed_out = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let result = timeout(SQL_DEADLINE, work).await.map_err(timed_out).and_then(|result| result);
    result.map_err(|source| Error::Sql { node: node.name().to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(standby: bool, timeline: u32) -> Option<Found> {
        Some(Found { standby, history: History { timeline, position: 0 } })
    }

    #[test]
    fn the_node_without_a_standby_signal_is_the_primary() {
        assert_eq!(roles([found(false, 1), found(true, 1)]), Roles { primary: 0, rebuild: false });
        assert_eq!(roles([found(true, 2), found(false, 2)]), Roles { primary: 1, rebuild: false });
        assert_eq!(roles([None, None]), Roles { primary: 0, rebuild: false });
        assert_eq!(roles([None, found(false, 2)]), Roles { primary: 1, rebuild: false });
    }

    #[test]
    fn of_two_primaries_the_newer_stays_and_the_other_is_rebuilt() {
        assert_eq!(roles([found(false, 1), found(false, 2)]), Roles { primary: 1, rebuild: true });
        assert_eq!(roles([found(false, 3), found(false, 2)]), Roles { primary: 0, rebuild: true });
    }

    #[test]
    fn of_two_standbys_the_newer_is_promoted_and_the_other_follows() {
        assert_eq!(roles([found(true, 1), found(true, 2)]), Roles { primary: 1, rebuild: false });
    }
}
