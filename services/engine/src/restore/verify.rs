//! The copy is held against the snapshot, and every tier logs in to it, before anything is switched.

use chrono::Utc;
use pgtenant_ledger::StepDone;
use pgtenant_model::{Finding, LeftOut, RestorePhase, RestoreStrategy, Side, SnapshotKind, Tier, Verification};
use pgtenant_postgres::transfer::RoleMap;
use pgtenant_postgres::{
    BesideKind, Desired, ErrorClass, Job, ProofError, Unfenced, connect_inside, observe, observe_inside, plan,
    run_inside, run_maintenance,
};

use super::dump;
use super::load::{Loading, roles};
use super::machine::{Next, Restoring};
use super::source::Source;
use super::trouble::Trouble;
use crate::credentials::{Rules, wanted};
use crate::planner::logins;

/// Rounds of looking and putting right until nothing is left to do.
const MOST_ROUNDS: usize = 4;

impl Loading<'_> {
    /// Puts owners and privileges right as the claim's own would be: what is left to do after that differs. While the logins `filled_by`
    /// have the database for themselves, no tier may connect to it.
    pub(super) async fn settle(&self, filled_by: &[String]) -> Result<Vec<Finding>, Trouble> {
        let Self { server, claim, database, .. } = *self;
        let mut desired = Desired {
            database: database.to_owned(),
            comment: self.comment.to_owned(),
            filled_by: filled_by.to_vec(),
            logins: logins(claim),
            ..Desired::new(claim.key.clone(), &claim.spec)
        };
        for _ in 0..MOST_ROUNDS {
            let mut session = server.maintenance().await?;
            let mut observed = observe(server, &mut session, &claim.key, database, &desired.extensions).await?;
            if observed.database.as_ref().is_some_and(|facts| facts.allow_connections) {
                let mut inside = server.inside(database).await?;
                observed.inside = Some(observe_inside(&mut inside, &desired, &observed.server.current_user).await?);
            }
            let missing = |tier: &Tier| !observed.roles.contains_key(&self.login(*tier));
            desired.passwords = self.passwords.clone().into_iter().filter(|(tier, _)| missing(tier)).collect();
            let plan = plan(&desired, &observed)?;
            if plan.is_empty() && !plan.partial {
                let beyond = plan.beyond.into_iter();
                return Ok(beyond.map(|one| Finding { object: database.to_owned(), message: one.text }).collect());
            }
            run_maintenance(server, &mut session, &plan, &FREE, &|_| {}).await?;
            drop(session);
            let session = connect_inside(server, &plan).await?;
            match run_inside(server, session, &plan, &FREE, &|_| {}).await {
                // As where it is not trusted. The claim says so, and what needs it is lacking where that is compared.
                Err(error) if error.class() == ErrorClass::Refused && !desired.extensions.is_empty() => {
                    tracing::warn!(database, %error, "the claim's extensions are left to the next look at it");
                    desired.extensions.clear();
                }
                result => result?,
            }
        }
        let message = "its privileges do not become as they should be".to_owned();
        Ok(vec![Finding { object: database.to_owned(), message }])
    }

    /// The login of a tier that is in use.
    fn login(&self, tier: Tier) -> String {
        let side = self.claim.credentials.get(&tier).map_or(Side::A, |known| known.side);
        self.claim.key.login(tier, side)
    }

    /// Holds what was loaded against the snapshot, puts privileges right, and logs in as each tier, unless it stays closed for all but
    /// `logins`.
    pub(super) async fn examine(
        &self,
        job: &Job,
        source: &Source,
        left_out: Vec<LeftOut>,
        roles: &RoleMap,
        logins: &[String],
    ) -> Result<Verification, Trouble> {
        let report = self.compare(job, source, &left_out, roles).await?;
        self.conclude(report, left_out, logins).await
    }

    /// Puts privileges right, and says what differs in the end.
    pub(super) async fn conclude(
        &self,
        mut report: Verification,
        left_out: Vec<LeftOut>,
        logins: &[String],
    ) -> Result<Verification, Trouble> {
        report.differences.extend(self.settle(logins).await?);
        if logins.is_empty() {
            let (able, refused) = self.log_in_as_tiers().await?;
            report.logins = able;
            report.differences.extend(refused);
        }
        report.left_out.extend(left_out);
        report.left_out.sort();
        report.left_out.dedup();
        Ok(report)
    }

    /// Logs in as each tier with what the stores have: who could, and who could not.
    pub(super) async fn log_in_as_tiers(&self) -> Result<(Vec<String>, Vec<Finding>), Trouble> {
        let Self { server, claim, database, cluster, .. } = *self;
        let reach = cluster.reach(server).await?;
        let rules = Rules { claim, spec: &cluster.spec, now: Utc::now(), idle: false };
        let (mut tried, mut refused) = (Vec::new(), Vec::new());
        for tier in Tier::ALL {
            let wanted = wanted(rules, tier, &reach, &cluster.stores).await?;
            let Some(credential) = wanted.credential.filter(|_| !wanted.set && wanted.turns.is_none()) else {
                continue;
            };
            match server.prove(database, &credential.username, &credential.password).await {
                Ok(_) | Err(ProofError::Full { .. }) => tried.push(credential.username),
                Err(ProofError::Unknown(error)) => return Err(error.into()),
                Err(error) => {
                    let object = format!("login {:?}", credential.username);
                    refused.push(Finding { object, message: error.to_string() });
                }
            }
        }
        Ok((tried, refused))
    }
}

impl Restoring {
    /// A dump that was restored counts as one that was tried.
    async fn mark_verified(&self) -> Result<(), Trouble> {
        let (snapshot, key) = (self.snapshot()?, self.key()?);
        match snapshot.kind() {
            SnapshotKind::Dump => {
                dump::verified(&self.engine, &self.cluster, self.work.restore.claim, &key, snapshot).await
            }
            SnapshotKind::Rds | SnapshotKind::PgBackRest => Ok(()),
        }
    }

    /// Whether the copy is dropped when it is verified.
    pub(super) fn tests(&self) -> bool {
        self.work.restore.view.spec.strategy == RestoreStrategy::Test
    }

    /// Compares; a difference ends the restore with all as it was.
    pub(super) async fn verify(&self) -> Result<Next, Trouble> {
        let source = self.open(self.snapshot()?).await?;
        if self.replaces() {
            return self.verify_first(&source).await;
        }
        let copy = self.beside(BesideKind::Copy)?;
        let claim = self.present(&copy.key).await?;
        let server = self.cluster.server().await?;
        if let Some(again) = self.copy_again_if_moved(&server).await? {
            return Ok(again);
        }
        let comment = copy.comment();
        let loading = self.loading(&server, &claim, &copy.database, &comment);
        // The password of the login that filled it was never written down.
        let job = loading.log_in(Some(Tier::Admin)).await?;
        let roles = roles(&self.key()?, &copy.key);
        let report = loading.examine(&job, &source, self.steps()?.left_out, &roles, &[]).await?;
        let message = describe(&report);
        if report.is_good() && self.tests() {
            self.mark_verified().await?;
        }
        let (phase, message, outcome) = match (report.is_good(), self.tests()) {
            (true, false) => (RestorePhase::Switching, message, None),
            (true, true) => (RestorePhase::CleaningUp, message, Some(RestorePhase::Succeeded)),
            (false, _) => {
                (RestorePhase::CleaningUp, format!("{message}; the database is as it was"), Some(RestorePhase::Failed))
            }
        };
        self.done(StepDone { report: Some(report), outcome, ..StepDone::new(phase, message) }).await
    }
}

pub(super) fn describe(report: &Verification) -> String {
    let Verification { objects, tables, rows, differences, left_out, .. } = report;
    let left_out = match left_out.len() {
        0 => String::new(),
        count => format!("; {count} could not be brought back, see the report"),
    };
    match differences.first() {
        None => format!("{objects} objects and {tables} tables with {rows} rows are as in the snapshot{left_out}"),
        Some(first) => {
            format!("{} differ from the snapshot, the first is {}: {}", differences.len(), first.object, first.message)
        }
    }
}

/// The fence of a job that has no lease of a claim.
pub(super) const FREE: Unfenced = Unfenced;
