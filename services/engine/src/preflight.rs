//! Every capability that claims will need of a cluster, tried now and without a trace.

mod pooler;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use pgtenant_model::{BackupSpec, CheckResult, InvalidField, Member, MemberRole, PreflightCheck, Provisioner, SslMode};
use pgtenant_postgres::transfer::Tools;
use pgtenant_postgres::{
    PostgresError, Server, ServerBasics, Session, Trial, preflight, server_basics, server_version, try_database,
    try_extensions, try_logins, try_roles,
};
use pgtenant_snapshots::{DumpId, Opening, SnapshotError};
use tokio::time::timeout;

use crate::Engine;
use crate::cluster::Cluster;
use crate::failure::{Cause, Failure};
use crate::roster::Late;

/// A clock that is further off shows wrong times, and makes leases and TLS fail when it gets worse.
const CLOCK_MAY_DIFFER: TimeDelta = TimeDelta::seconds(2);

/// Why a cluster was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// This replica does not work on a cluster of that name.
    #[error("this replica does not work on it; see its problem")]
    Unknown,
    /// It was described a moment ago, and was not taken up in time.
    #[error("this replica is still taking it up")]
    Late,
    /// Another trial of it is under way here, and has not ended in time.
    #[error("another preflight of it is under way")]
    Busy,
}

/// What was tried so far, in the order in which it was begun.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

#[derive(Debug, Clone)]
struct Line {
    check: String,
    /// None: under way.
    outcome: Option<Trial>,
}

impl Engine {
    /// Tries what claims need of a cluster, one trial at a time, and answers within `limit`: what has not come to its end by then
    /// is told of as such.
    ///
    /// # Errors
    /// It was not tried.
    pub async fn preflight(&self, cluster: &str, limit: Duration) -> Result<Vec<PreflightCheck>, TrialError> {
        let began = Instant::now();
        // A trial that begins late would have no time left.
        let wait = || (limit / 2).saturating_sub(began.elapsed());
        let cluster = self.inner.roster.find(cluster, wait()).await.map_err(|Late| TrialError::Late)?;
        let cluster = cluster.ok_or(TrialError::Unknown)?;
        let turn = Arc::clone(&cluster.trial).lock_owned();
        let turn = timeout(wait(), turn).await.map_err(|_| TrialError::Busy)?;
        let [server, pooler, stores, dumps]: [Lines; 4] = Default::default();
        let (tools, ledger) = (self.inner.tools.clone(), self.inner.ledger.clone());
        // A task of its own goes on to its end, and removes what it has made, also when nobody waits any more.
        let task = tokio::spawn({
            let (server, pooler, stores, dumps) = (server.clone(), pooler.clone(), stores.clone(), dumps.clone());
            async move {
                let _turn = turn;
                tokio::join!(
                    cluster.try_server(&server),
                    cluster.try_pooler(&ledger, &pooler),
                    cluster.try_stores(&stores),
                    cluster.try_dumps(&tools, &dumps)
                );
            }
        });
        let left = limit.saturating_sub(began.elapsed());
        if let Ok(Err(error)) = timeout(left, task).await {
            tracing::error!(error = ?error, "a preflight panicked");
        }
        Ok([server, pooler, stores, dumps].iter().flat_map(|lines| lines.told(limit)).collect())
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, check: &str, (result, message): (CheckResult, impl Into<String>)) {
        self.lock().push(Line { check: check.to_owned(), outcome: Some((result, message.into())) });
    }

    /// Tries it; none: it has failed.
    async fn tried<T>(&self, check: &str, trial: impl Future<Output = Result<(Trial, T), Trial>>) -> Option<T> {
        let index = {
            let mut lines = self.lock();
            lines.push(Line { check: check.to_owned(), outcome: None });
            lines.len() - 1
        };
        let (outcome, found) = match trial.await {
            Ok((outcome, found)) => (outcome, Some(found)),
            Err(outcome) => (outcome, None),
        };
        self.lock()[index].outcome = Some(outcome);
        found
    }

    async fn only(&self, check: &str, trial: impl Future<Output = Result<Trial, PostgresError>>) {
        self.tried(check, async { Ok((trial.await.map_err(failed)?, ())) }).await;
    }

    fn warn(&self, InvalidField { field, message }: InvalidField) {
        self.push(&field, warned(message));
    }

    /// What is found without trying, a line for each.
    async fn findings(&self, check: &str, asked: impl Future<Output = Result<Vec<InvalidField>, PostgresError>>) {
        let trial = async {
            let found = asked.await.map_err(failed)?;
            let told =
                if found.is_empty() { "nothing was found that would bite later" } else { "what was found follows" };
            Ok((passed(told), found))
        };
        self.tried(check, trial).await.into_iter().flatten().for_each(|one| self.warn(one));
    }

    /// What of it has ended; the rest has failed.
    fn told(&self, limit: Duration) -> Vec<PreflightCheck> {
        let late = || {
            let limit = limit.as_secs_f32();
            let message =
                format!("no answer within {limit:.0} s; what it has made is removed when it ends. Try again later");
            (CheckResult::Failed, message)
        };
        let told = |Line { check, outcome }: Line| {
            let (result, message) = outcome.unwrap_or_else(late);
            PreflightCheck { check, result, message }
        };
        self.lock().iter().cloned().map(told).collect()
    }
}

fn failed(cause: impl Into<Cause>) -> Trial {
    (CheckResult::Failed, Failure::at("inspect")(cause).message())
}

fn passed(what: impl Into<String>) -> Trial {
    (CheckResult::Passed, what.into())
}

fn warned(of: impl Into<String>) -> Trial {
    (CheckResult::Warning, of.into())
}

impl Cluster {
    /// What needs something that has failed is not in the list.
    async fn try_server(&self, lines: &Lines) {
        lines.tried("login", self.try_login()).await;
        if let Some((server, basics, session)) = lines.tried("primary", self.try_primary()).await {
            lines.push("tls", self.tls(&server));
            lines.push("clock", clock(&basics));
            self.try_inside(&server, &basics, session, lines).await;
        }
        let astray = lines.tried("standbys", self.try_standbys()).await;
        astray.into_iter().flatten().for_each(|told| lines.push("standbys", warned(told)));
        self.try_rds(lines).await;
        self.try_repository(lines).await;
    }

    async fn try_stores(&self, lines: &Lines) {
        let trials = self.stores.trials().map(async |(kind, trial)| {
            let trial = async {
                match trial.await {
                    Ok(works) => Ok((passed(works), ())),
                    Err(error) => Err((CheckResult::Failed, error.explain())),
                }
            };
            lines.tried(&format!("store {kind}"), trial).await
        });
        join_all(trials).await;
        if let Some(former) = &self.former {
            let reached = async { former.stores.reach().await.map_err(failed) };
            let trial = async { Ok((passed("they answer, so that they can be emptied"), reached.await?)) };
            lines.tried("former stores", trial).await;
        }
    }

    /// What dumps and restores need beside the server: a place, a key, programs.
    async fn try_dumps(&self, tools: &Tools, lines: &Lines) {
        let (Some(dumps), Some(spec)) = (&self.dumps, &self.spec.backups) else { return };
        let told = |error: SnapshotError| (CheckResult::Failed, error.explain());
        let place = async {
            let id = DumpId::new(Utc::now(), &mut rand::rng());
            let place = dumps.try_out(&self.name, id).await.map_err(told)?;
            Ok((passed(format!("something was written to {place}, read, listed and removed")), ()))
        };
        lines.tried("dumps", place).await;
        let key = async { Ok((opening(dumps.can_open().await.map_err(told)?, spec), ())) };
        lines.tried("backups.dumps.identityFile", key).await;
        let programs = async {
            let server = self.server().await.map_err(failed)?;
            let version = async { server_version(&mut server.maintenance().await?).await }.await.map_err(failed)?;
            let found = tools.for_server(version.number()).map_err(|error| (CheckResult::Failed, error.to_string()))?;
            let (major, dump) = (found.major, found.pg_dump.display());
            Ok((passed(format!("{dump} and pg_restore of PostgreSQL {major} suit a server of {version}")), ()))
        };
        lines.tried("pg_dump", programs).await;
    }

    async fn try_login(&self) -> Result<(Trial, ()), Trial> {
        self.refresh().await.map_err(failed)?;
        let Provisioner { password_file, secret_ref, aws_secret, .. } = &self.spec.provisioner;
        let place = match (password_file, secret_ref, aws_secret) {
            (Some(path), ..) => path.display().to_string(),
            (None, Some(secret), _) => secret.to_string(),
            (None, None, secret) => secret.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        Ok((passed(format!("the provisioner's password was read from {place}")), ()))
    }

    async fn try_primary(&self) -> Result<(Trial, (Server, ServerBasics, Session)), Trial> {
        let server = self.server().await.map_err(failed)?;
        let reached = async {
            let mut session = server.maintenance().await?;
            Ok::<_, PostgresError>((server_basics(&mut session).await?, session))
        };
        let (basics, session) = reached.await.map_err(|error| {
            self.moved(&server);
            failed(error)
        })?;
        let options = server.options();
        let told = format!("{}:{} is writable, PostgreSQL {}", options.host, options.port, basics.version);
        Ok((passed(told), (server, basics, session)))
    }

    /// The connection stands, so what `sslmode` asks for was proven.
    fn tls(&self, server: &Server) -> Trial {
        let authority = match &server.options().ca {
            Some(_) => "the cluster's CA",
            None => {
                "an authority that this machine trusts; tenants are given none, name it in tls.caFile or tls.caSecretRef"
            }
        };
        match self.spec.tls.sslmode {
            SslMode::VerifyFull => {
                passed(format!("the certificate names {} and is from {authority}", server.options().host))
            }
            SslMode::VerifyCa => warned(format!(
                "the certificate is from {authority}; whether it names the host is not checked: set tls.sslmode to verify-full"
            )),
            SslMode::Require => warned(
                "encrypted, but anybody could answer in the server's place: set tls.sslmode to verify-full, and tls.caFile or \
                 tls.caSecretRef",
            ),
        }
    }

    /// One session at a time, so that those who work for claims have the others.
    async fn try_inside(&self, server: &Server, basics: &ServerBasics, mut session: Session, lines: &Lines) {
        let logins = async {
            let found = try_logins(&mut session).await?;
            Ok(found.unwrap_or_else(|| passed(format!("{:?} acts as itself", basics.current_user))))
        };
        lines.only("logins", logins).await;
        lines.findings("inspection", preflight(&mut session)).await;
        lines.only("roles", try_roles(&mut session, basics)).await;
        drop(session);
        let extensions = &self.spec.allowed_extensions;
        let made = async {
            let mut session = server.maintenance().await.map_err(failed)?;
            let sandbox = try_database(server, &mut session, basics).await.map_err(failed)??;
            Ok((passed("a database was made and entered"), sandbox))
        };
        let Some(mut sandbox) = lines.tried("database", made).await else { return };
        if !extensions.is_empty() {
            lines.only("extensions", try_extensions(&mut sandbox, basics, extensions)).await;
        }
        lines.only("removal", sandbox.close(server)).await;
    }

    async fn try_standbys(&self) -> Result<(Trial, Vec<String>), Trial> {
        let seen = self.observe().await.map_err(failed)?;
        let (mut following, mut astray) = (0, Vec::new());
        for Member { host, role, message, .. } in seen.members.iter().filter(|one| one.role != MemberRole::Primary) {
            let message = message.clone().unwrap_or_default();
            // As the topology says of a standby that could not take over.
            let stranger = message.contains("not streaming") || message.contains("of another cluster");
            match role {
                MemberRole::Unreachable => astray.push(format!("{host} does not answer: {message}")),
                _ if stranger => astray.push(format!("{host}: {message}")),
                _ => following += 1,
            }
        }
        let outcome = match following {
            0 => warned("none follows: nothing takes over when the primary fails; add one"),
            1 => passed("one follows the primary"),
            count => passed(format!("{count} follow the primary")),
        };
        Ok((outcome, astray))
    }

    async fn try_repository(&self, lines: &Lines) {
        let Some(found) = self.kept_by_pgbackrest().await else { return };
        let told =
            async { found.map(|(text, findings)| (passed(text), findings)).map_err(|error| warned(error.to_string())) };
        lines.tried("pgbackrest", told).await.into_iter().flatten().for_each(|one| lines.warn(one));
    }

    async fn try_rds(&self, lines: &Lines) {
        let Some(aurora) = self.aurora() else { return };
        let asked = async {
            let found = aurora.findings(self.spec.environment, Utc::now()).await;
            let (facts, findings) = found.ok_or_else(|| warned("RDS has not described the cluster yet"))?;
            Ok((passed(facts.upgrades()), findings))
        };
        lines.tried("maintenance", asked).await.into_iter().flatten().for_each(|one| lines.warn(one));
        let kept = async {
            let found = self.kept_by_rds().await.map_err(|fault| warned(format!("{fault}; {}", fault.advice())))?;
            let (kept, findings) = found.ok_or_else(|| warned("RDS has no such cluster"))?;
            Ok((passed(kept.describe()), findings))
        };
        lines.tried("snapshots", kept).await.into_iter().flatten().for_each(|one| lines.warn(one));
    }
}

/// Whether what is dumped now can be restored.
fn opening(opening: Opening, spec: &BackupSpec) -> Trial {
    let recipients = spec.dumps.as_ref().map_or(0, |dumps| dumps.recipients.len());
    match opening {
        Opening::With(recipient) if recipients > 1 => passed(format!("dumps can be opened, as {recipient}")),
        Opening::With(recipient) => passed(format!(
            "dumps can be opened, as {recipient}, the only recipient: when its private key is lost, so is every dump. Keep a second \
             one elsewhere, and name it in backups.dumps.recipients"
        )),
        Opening::NoIdentity => warned(
            "there is no private key here: dumps are made, and nothing is restored from them or tried. Name a file with one of the \
             recipients' keys",
        ),
        Opening::NotARecipient { held } => warned(format!(
            "it holds the private keys of {}, none of which is a recipient: what is dumped now can not be restored here. Add one of \
             them to backups.dumps.recipients, or the key of a recipient to the file",
            held.join(", ")
        )),
    }
}

fn clock(basics: &ServerBasics) -> Trial {
    let off = basics.clock - Utc::now();
    if off.abs() > CLOCK_MAY_DIFFER {
        return warned(format!("the server's clock is off by {} s: run NTP on it and here", off.num_seconds()));
    }
    passed("the server's clock agrees with this one")
}
