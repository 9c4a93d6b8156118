//! The control plane's own database: claims, who owns which database name on which cluster, operations, audit.
//!
//! Every change of state and the work that it asks for are one transaction. Functions take a `&mut PgConnection`,
//! so that a door can put several of them into one; [`Ledger`] holds the pool.

mod audit;
mod backup;
mod backup_schedule;
mod check;
mod claim;
mod cluster;
mod door;
mod drill;
mod event;
mod hosts;
mod idempotency;
mod listener;
mod move_work;
mod moves;
mod operation;
mod problem;
mod refused;
mod restore;
mod restore_row;
mod restore_work;
mod rotation;
mod slack;
mod slack_outbox;
mod switchover;
mod test_restore;
mod token;
mod wish;
mod work;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Transaction};

pub use sqlx::PgConnection;

pub use audit::{Actor, AuditEntry, audit_page, write_audit};
pub use backup::{
    BackupEnd, BackupWork, end_backup, next_backup, put_back_backup, renew_backup, request_backup, take_backup,
};
pub use backup_schedule::{
    BackupAge, DueBackup, backup_ages, due_backups, forget_removed, note_dump, removed_before, set_backup_at,
};
pub use check::{check, count_of, promised_connections};
pub use claim::{
    Claim, ClaimFilter, CredentialState, NextPassword, Wish, claim, claims, claims_with_credentials,
    count_by_namespace, count_by_state, owner_of,
};
pub use cluster::{
    Cluster, ClusterSource, PutCluster, accept_history, begin_maintenance, cluster, clusters, end_maintenance,
    put_cluster, put_clusters, remove_cluster, restore_in_place, set_cluster_status,
};
pub use door::{DoorClaim, door_claims, forget_release, look_now, move_claim, note_definition, try_door_turn};
pub use drill::{PastDrill, add_drill, drills, last_drills};
pub use event::{NewEvent, append_event, event_before, event_high_water, events_after};
pub use idempotency::{Idempotency, begin_idempotent, finish_idempotent};
pub use listener::{Announcement, Listener};
pub use move_work::{
    MoveStep, MoveWork, claim_has_moved, end_move, move_done, next_move, note_closed, note_move, renew_move,
    retry_move, take_move,
};
pub use moves::{cancel_move, closing_move, confirm_move, last_move, request_move};
pub use operation::{operation, operations_of};
pub use problem::{AppsProblem, apps_problems, replace_apps_problems};
pub use refused::Refused;
pub use restore::{Decision, cancel_restore, decide_restore, request_restore, request_restore_of_object, undo_restore};
pub use restore_row::{
    OpenRestores, RestoreFilter, StoredRestore, open_restores_by_phase, restore, restore_of_object, restores,
};
pub use restore_work::{
    Aside, RestoreWork, StepDone, aside_done, end_restore, hold_claim, let_go, makes_room, next_restore, note_progress,
    open_jobs, renew_restore, restores_over, retry_restore, step_done, take_restore,
};
pub use rotation::{LoginWish, Rotating, ask_for_login, login_wish, rotate, rotate_cluster, rotating};
pub use slack::{
    Named, begin_slack_cursor, claims_named, move_slack_cursor, open_restores, show_restore_alone,
    show_restore_in_slack, slack_channels_of, slack_channels_wanted, slack_cursor, slack_first_sight, slack_savepoint,
    slack_seen, slack_told, tell_slack, undo_to_slack_savepoint,
};
pub use slack_outbox::{
    SLACK_CHANNEL, SlackEnd, SlackMessage, SlackPost, SlackQuiet, end_slack_message, next_slack_message,
    put_slack_message, slack_queue_length, take_slack_message, untold_slack_news,
};
pub use switchover::{
    ask_for_switchover, begin_switchover, end_switchover, last_switchover, renew_switchover, take_switchover,
};
pub use test_restore::{LastTest, ask_test, last_test, tested};
pub use token::{NewToken, Token, TokenRole, create_token, find_token, revoke_token, token_named, tokens};
pub use wish::{Written, adopt, create, purge, release, remove, update, withdraw};
pub use work::{
    Finished, Take, Work, finish, forget, look_soon, next_due, note_credentials, queue_length, renew, retry_now, take,
};

/// The channel on which new work is announced.
pub const WORK_CHANNEL: &str = "pgtenant_work";
/// The channel on which new events are announced.
pub const EVENTS_CHANNEL: &str = "pgtenant_events";
/// The channel on which it is announced that another cluster is described, or one in another way.
pub const CLUSTERS_CHANNEL: &str = "pgtenant_clusters";
/// The channel on which it is announced that something is to be done for a restore, or has become of it: its id.
pub const RESTORES_CHANNEL: &str = "pgtenant_restores";
/// The channel on which it is announced that another primary is wished for, or that a person has said which one is right: the
/// cluster's name.
pub const SWITCHOVERS_CHANNEL: &str = "pgtenant_switchovers";
/// The channel on which it is announced that something became of a claim of Kubernetes: `{namespace}/{name}`.
pub const CLAIMS_CHANNEL: &str = "pgtenant_claims";

/// For a unit of work: above what the server itself allows a statement, so that it runs out only where nothing answers.
const DEADLINE: Duration = Duration::from_secs(25);
/// A connection that was idle for longer is asked for a sign of life before it is used.
const RESTED: Duration = Duration::from_secs(1);
/// For a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What the server ends by itself. A replica that stops in the middle of a transaction holds the lock that orders events, and
/// one whose host is gone would hold it until the server's own keepalive, two hours.
const SESSION: [(&str, &str); 7] = [
    ("statement_timeout", "20s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30s"),
];

/// Idle connections that are kept for what comes next: another one takes 10 ms.
const KEPT_IDLE: usize = 1;

/// What can go wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database did not answer, or answered with an error.
    #[error("the ledger did not answer")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the ledger's schema could not be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row that this version does not understand, as after a downgrade.
    #[error("the ledger holds {what} {value:?}, which this version does not know")]
    Unknown {
        /// The column.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// Nothing came back in time; whether it was done is not known.
    #[error("the ledger did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// Another replica has taken the claim: what this one did is void.
    #[error("another replica has taken {0}")]
    Fenced(String),
}

impl LedgerError {
    /// Whether the ledger is down or overloaded, so that the same request may succeed later; otherwise it is a fault
    /// of this program.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                // Connection, resources, operator intervention, system; locks, deadlocks and serialization.
                let code = error.code().unwrap_or_default();
                ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                    || ["55P03", "40P01", "40001", "25006"].contains(&&*code)
            }
            Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
            )
            | Self::Deadline(_) => true,
            _ => false,
        }
    }
}

/// A transaction of the ledger; dropping it rolls it back.
pub type LedgerTransaction = Transaction<'static, Postgres>;

/// `Result` with [`LedgerError`].
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// A pool of connections to the ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    hosts: Arc<[PgConnectOptions]>,
}

impl Ledger {
    /// Connections are made when they are first needed, so that the control plane starts while its ledger is down.
    /// `max` bounds them; [`Ledger::trim`] closes what a burst has left.
    #[must_use]
    pub fn new(options: PgConnectOptions, max: u32) -> Self {
        Self::on_hosts(options, Vec::new(), max)
    }

    /// The same on several hosts, of which one takes writes; which one is looked for in the background, so that a runtime is needed.
    #[must_use]
    pub fn on_hosts(first: PgConnectOptions, others: Vec<PgConnectOptions>, max: u32) -> Self {
        let hosts: Arc<[_]> = std::iter::once(first).chain(others).map(|host| host.options(SESSION)).collect();
        let several = hosts.len() > 1;
        let pool = PgPoolOptions::new()
            .max_connections(max)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(60))
            .test_before_acquire(false)
            .before_acquire(move |db, last| {
                Box::pin(async move {
                    match last.idle_for < RESTED {
                        // One that was made to a standby is not kept.
                        _ if several => hosts::is_writable(db).await,
                        true => Ok(true),
                        false => answers(db).await,
                    }
                })
            })
            .after_release(|db, _| Box::pin(answers(db)))
            .connect_lazy_with(hosts[0].clone());
        if several {
            tokio::spawn(hosts::follow(pool.clone(), hosts.to_vec()));
        }
        Self { pool, hosts }
    }

    /// Brings the schema up to date. Safe to call from several replicas at once.
    ///
    /// # Errors
    /// The database can not be reached, or is newer than this version.
    pub async fn migrate(&self) -> Result<()> {
        if self.hosts.len() > 1 {
            hosts::find(&self.pool, &self.hosts).await;
        }
        Ok(sqlx::migrate!("../../migrations").run(&self.pool).await?)
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// None came free within 5 s.
    pub async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<Postgres>> {
        Ok(self.pool.acquire().await?)
    }

    /// A transaction; dropping it rolls it back.
    ///
    /// # Errors
    /// No connection came free within 5 s.
    pub async fn begin(&self) -> Result<LedgerTransaction> {
        Ok(self.pool.begin().await?)
    }

    /// A connection of its own that hears `channels`, and connects again by itself.
    ///
    /// # Errors
    /// The database can not be reached now.
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener> {
        Listener::new(&self.pool, channels).await
    }

    /// Whether the ledger answers within a second.
    pub async fn answers(&self) -> bool {
        let ask = async { sqlx::query("select 1").execute(&self.pool).await.is_ok() };
        tokio::time::timeout(Duration::from_secs(1), ask).await.unwrap_or(false)
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.pool.size()
    }

    /// Closes idle connections but one: the pool takes them in turn, so that each is used too often to become old.
    pub async fn trim(&self) {
        for _ in KEPT_IDLE..self.pool.num_idle() {
            let Some(surplus) = self.pool.try_acquire() else { return };
            surplus.close().await.ok();
        }
    }

    /// Deletes what has been kept long enough: idempotency keys of a day, events of a week, finished operations of a
    /// month, messages for Slack of 90 days, audit of 400 days. Returns the number of rows.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn prune(&self) -> Result<u64> {
        const MOST: u64 = 10_000;
        let mut rows = 0;
        for (table, old) in [
            ("idempotency_keys", "created_at < now() - interval '1 day'"),
            ("slack_seen", "at < now() - interval '1 day'"),
            // A restore that goes on, or can be gone back from, is still changed where it is shown.
            (
                "slack_messages",
                "created_at < now() - interval '90 days' and not exists (select from restores r where r.id = restore
                   and (r.finished_at is null or r.before_name is not null))",
            ),
            ("slack_told", "at < now() - interval '90 days'"),
            ("events", "at < now() - interval '7 days'"),
            ("backups", "finished and due_at < now() - interval '30 days'"),
            ("operations", "finished_at < now() - interval '30 days'"),
            ("audit", "at < now() - interval '400 days'"),
        ] {
            // In parts: a backlog that takes longer than a statement may would never shrink.
            let sql = format!(
                "delete from {table} where ctid = any(array(select ctid from {table} where {old} limit {MOST}))"
            );
            loop {
                let part = sqlx::query(AssertSqlSafe(sql.as_str())).execute(&self.pool).await?.rows_affected();
                rows += part;
                if part < MOST {
                    break;
                }
            }
        }
        Ok(rows)
    }

    /// Waits for connections in use and closes all.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection that does not answer is not given back: it would take a place in the pool for as long as nobody notices.
async fn answers(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let timeout = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(SIGN_OF_LIFE, db.ping()).await.map_err(|_| timeout())?.map(|()| true)
}

/// Waits for `work` with the ledger as long as it can be of use. A query that was sent to a host that is gone would be waited
/// for for ever: nothing is left to be sent again.
///
/// # Errors
/// Those of `work`, and [`LedgerError::Deadline`].
pub async fn within_deadline<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(LedgerError::Deadline(DEADLINE)))
}

/// Tells every replica when the transaction commits: its engine, of work; and its Kubernetes door, of what became of `claim`, if
/// that is one of its own.
async fn announce(db: &mut PgConnection, work: bool, claim: Option<&Claim>) -> Result<()> {
    let claim = claim.filter(|claim| claim.source == pgtenant_model::Source::Kubernetes);
    announce_to_all(db, work, claim).await
}

/// As [`announce`], of any door's claim: an object of its name may wait for it, or have lost it.
async fn announce_to_all(db: &mut PgConnection, work: bool, claim: Option<&Claim>) -> Result<()> {
    if !work && claim.is_none() {
        return Ok(());
    }
    sqlx::query(
        "select case when $1 then pg_notify($2, '') end, case when $3::text is not null then pg_notify($4, $3) end",
    )
    .bind(work)
    .bind(WORK_CHANNEL)
    .bind(claim.map(|claim| claim.key.to_string()))
    .bind(CLAIMS_CHANNEL)
    .execute(db)
    .await?;
    Ok(())
}
