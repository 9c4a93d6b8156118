//! One look at one claim: what is wished, what is there, and the difference done.
//!
//! Order matters, since the process may be killed after any line: a tier's first credential is in every store before
//! PostgreSQL knows it, one that takes the place of another only when it is proven by a login, none is Ready before that,
//! and what the ledger does not know yet is found again by the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures::future::{join, join_all, try_join_all};
use pgtenant_ledger::{Claim, CredentialState, Ledger, Work};
use pgtenant_model::{CredentialTarget, Endpoint, Roles, Tier};
use pgtenant_postgres::{
    Beyond, Desired, Fence as _, Inside, Observed, Place, Plan, PostgresError, ProofError, Server, Session, Step,
    Verifier, beside, connect_inside, drop_beside, observe, observe_inside, plan, plan_drop, run_inside,
    run_maintenance,
};
use pgtenant_secrets::{Removal, StoreErrors};

use crate::Faults;
use crate::cluster::Cluster;
use crate::credentials::{Reach, Wanted};
use crate::failure::{Cause, Failure};
use crate::lease::Lease;
use crate::progress::{Progress, changed, turning};
use crate::roles::roles;

/// A claim under work.
pub(crate) struct Attempt<'a> {
    pub(crate) work: &'a Work,
    pub(crate) ledger: &'a Ledger,
    pub(crate) cluster: &'a Cluster,
    pub(crate) lease: &'a Lease,
    pub(crate) faults: &'a Faults,
    pub(crate) progress: Mutex<Progress>,
}

/// What a try that came to its end has found and left.
#[derive(Debug)]
pub(crate) struct Done {
    /// What only a superuser can put right.
    pub(crate) beyond: Vec<Beyond>,
    pub(crate) endpoint: Endpoint,
    pub(crate) roles: Roles,
    pub(crate) credentials: BTreeMap<Tier, CredentialState>,
    /// Tiers whose wished-for rotation has to wait, and until when.
    pub(crate) waits: Option<(Vec<Tier>, DateTime<Utc>)>,
    /// When the credentials need work again, if nothing else happens.
    pub(crate) next: Option<DateTime<Utc>>,
    /// Every tier has logged in with what the stores have.
    pub(crate) proven: bool,
    /// The look listed only a part of what is to be done.
    pub(crate) more: bool,
}

/// One look, and what was done about it.
struct Round {
    beyond: Vec<Beyond>,
    /// The database could not be entered at first.
    partial: bool,
    more: bool,
}

/// Rounds of looking and dropping until nothing is left.
const MOST_DROPS: usize = 3;

impl<'a> Attempt<'a> {
    pub(crate) fn claim(&self) -> &'a Claim {
        &self.work.claim
    }

    /// What was done, however it ended.
    pub(crate) fn into_progress(self) -> Progress {
        self.progress.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the claim's wish true.
    pub(crate) async fn provide(&self) -> Result<Done, Failure> {
        let server = self.cluster.server().await.map_err(Failure::at("find-primary"))?;
        let result = self.provide_on(&server).await;
        self.noting_a_move(&server, result)
    }

    /// Removes database, roles and stored credentials; nothing of a database that is not ours. Returns what stays.
    pub(crate) async fn remove(&self) -> Result<Vec<Beyond>, Failure> {
        let server = self.cluster.server().await.map_err(Failure::at("find-primary"))?;
        let result = self.remove_on(&server).await;
        self.noting_a_move(&server, result)
    }

    fn noting_a_move<T>(&self, server: &Server, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result
            && failure.moved()
        {
            self.cluster.moved(server);
        }
        if let Err(failure) = &result
            && failure.login_refused()
        {
            self.cluster.login_refused();
        }
        result
    }

    async fn provide_on(&self, server: &Server) -> Result<Done, Failure> {
        let reach = self.cluster.reach(server).await.map_err(Failure::at("observe"))?;
        let mut wanted = self.wanted(server, &reach).await?;
        let mut round = self.round(server, &reach, &mut wanted).await?;
        if round.partial {
            // From outside all is right now, so this one sees what is inside.
            round = self.round(server, &reach, &mut wanted).await?;
        }
        self.clean_former_stores().await?;
        self.done(round, wanted, reach.endpoint)
    }

    /// Looks, and does what is to be done.
    async fn round(&self, server: &Server, reach: &Reach, wanted: &mut [Wanted]) -> Result<Round, Failure> {
        let claim = self.claim();
        let mut desired = Desired { adopt: claim.adopt, ..Desired::new(claim.key.clone(), &claim.spec) };
        let (mut session, mut observed) = self.observe(server).await?;
        self.read_for_new_roles(&observed, reach, wanted).await?;
        self.lock_former(&mut session, wanted).await?;
        let proven = self.look_inside(server, &desired, &mut observed, wanted).await?;
        desired.logins = wanted.iter().map(|one| (one.target.tier, one.logins())).collect();
        desired.passwords = passwords(wanted, &observed).await;
        let plan = plan(&desired, &observed).map_err(Failure::at("plan"))?;

        self.store(wanted, |one| one.turns.is_none()).await?;
        self.faults.reach("after:store").await;
        self.note_turns(wanted).await?;
        self.progress().turning = turning(wanted);
        self.apply_outside(server, session, &plan).await?;
        // The tiers can log in from here on, so they are proven while the rest is done.
        let unproven = wanted.iter().filter(|one| !proven.contains(&one.target.tier));
        let (inside, proven) = match connect_inside(server, &plan).await {
            Ok(session) => join(self.apply_inside(server, session, &plan), self.prove(server, unproven)).await,
            Err(error) => (Err(Failure::at("apply-inside")(error)), self.prove(server, unproven).await),
        };
        proven?;
        self.faults.reach("after:prove").await;
        // Whatever is in the way inside, as a lock of the tenant's, keeps no password from being replaced.
        self.store(wanted, |one| one.turns.is_some()).await?;
        self.faults.reach("after:turn").await;
        inside?;
        wanted.iter_mut().for_each(|one| one.set = false);
        let more = observed.inside.as_ref().is_some_and(Inside::more);
        Ok(Round { beyond: plan.beyond, partial: plan.partial, more })
    }

    async fn remove_on(&self, server: &Server) -> Result<Vec<Beyond>, Failure> {
        let left = self.drop_all(server).await?;
        // A try that was cut off has stored credentials before there was anything on the server. Where a database or a
        // role of the name is somebody else's and the claim never was Ready, what lies in the stores may be theirs too.
        if self.claim().roles.is_some() || left.is_empty() {
            self.fence("store")?;
            let targets = Tier::ALL.map(|tier| CredentialTarget { key: self.claim().key.clone(), tier });
            let removal = if self.claim().purge { Removal::Final } else { Removal::Usual };
            let gone = join_all(self.cluster.all_stores().map(|stores| stores.delete_many(&targets, removal))).await;
            gone.into_iter().try_for_each(|one| one.map_err(Failure::at("store")))?;
        }
        self.faults.reach("after:delete-credentials").await;
        Ok(left)
    }

    /// Drops until a look finds nothing of the claim: what a process that was killed has sent may come true later than the
    /// first look. Returns what is not the claim's and stays.
    async fn drop_all(&self, server: &Server) -> Result<Vec<Beyond>, Failure> {
        self.drop_beside(server).await?;
        for _ in 0..=MOST_DROPS {
            let (session, observed) = self.observe(server).await?;
            let plan = plan_drop(&self.claim().key, &observed).map_err(Failure::at("plan"))?;
            if plan.is_empty() {
                return Ok(plan.beyond);
            }
            self.apply_outside(server, session, &plan).await?;
        }
        Err(Failure::at("apply")(Cause::Unsettled))
    }

    /// What restores have made or put aside is the claim's as well: its roles own what is in there.
    async fn drop_beside(&self, server: &Server) -> Result<(), Failure> {
        let mut session = server.maintenance().await.map_err(Failure::at("connect"))?;
        let found = beside(&mut session).await.map_err(Failure::at("observe"))?;
        for one in found.iter().filter(|one| one.key == self.claim().key) {
            drop_beside(server, &mut session, one, self.lease).await.map_err(Failure::at("apply"))?;
        }
        Ok(())
    }

    async fn observe(&self, server: &Server) -> Result<(Session, Observed), Failure> {
        let mut session = server.maintenance().await.map_err(Failure::at("connect"))?;
        let (key, extensions) = (&self.claim().key, &self.claim().spec.extensions);
        let observed = observe(server, &mut session, key, &key.database(), extensions).await;
        let observed = observed.map_err(Failure::at("observe"))?;
        Ok((session, observed))
    }

    /// Logs in as each tier whose password the server should have, and looks at the database through the admin tier's
    /// session: the catalogs are open to every login. A password that is wrong is marked to be set again. Returns the
    /// tiers that are proven.
    async fn look_inside(
        &self,
        server: &Server,
        desired: &Desired,
        observed: &mut Observed,
        wanted: &mut [Wanted],
    ) -> Result<BTreeSet<Tier>, Failure> {
        if !observed.database.as_ref().is_some_and(|database| database.allow_connections) {
            return Ok(BTreeSet::new());
        }
        let there = |one: &Wanted| !one.set && one.credential.is_some() && observed.roles.contains_key(&one.login());
        let provisioner = observed.server.current_user.clone();
        let looks = wanted.iter().map(|one| async {
            if there(one) { Some(self.look_as(server, one, desired, &provisioner).await) } else { None }
        });
        let answers = join_all(looks).await;
        let mut proven = BTreeSet::new();
        for (one, answer) in wanted.iter_mut().zip(answers) {
            match answer {
                None => {}
                Some(Ok(inside)) => {
                    proven.insert(one.target.tier);
                    observed.inside = observed.inside.take().or(inside);
                }
                Some(Err(ProofError::Unknown(error))) => return Err(Failure::at("prove")(error)),
                Some(Err(error)) => match error.password_is_right() {
                    // An expired password is refused in the same words: once the expiry is gone, the login will tell.
                    Some(false) => {
                        let role = observed.roles.get(&one.login());
                        one.set = role.is_none_or(|facts| facts.valid_until.is_none());
                    }
                    // All its connections are in use: the password was checked before they were counted.
                    _ if matches!(error, ProofError::Full { .. }) => _ = proven.insert(one.target.tier),
                    // The plan sees why; it is tried again when that is put right.
                    _ => {}
                },
            }
        }
        if observed.inside.is_none() {
            observed.inside = self.look_as_provisioner(server, desired, &provisioner).await?;
        }
        Ok(proven)
    }

    /// Proves a tier by a login; the admin tier's session also looks. Nobody holds a session while waiting for another:
    /// there are four for all claims.
    async fn look_as(
        &self,
        server: &Server,
        one: &Wanted,
        desired: &Desired,
        provisioner: &str,
    ) -> Result<Option<Inside>, ProofError> {
        let mut session = self.login(server, one).await?;
        match one.target.tier {
            Tier::Admin => Ok(observe_inside(&mut session, desired, provisioner).await.ok()),
            Tier::Read | Tier::Write => Ok(None),
        }
    }

    /// None: the provisioner may not enter yet, or nobody may.
    async fn look_as_provisioner(
        &self,
        server: &Server,
        desired: &Desired,
        provisioner: &str,
    ) -> Result<Option<Inside>, Failure> {
        let mut session = match server.inside(&desired.database).await {
            Ok(session) => session,
            Err(error) if matches!(error.sqlstate(), Some("42501" | "55000")) => return Ok(None),
            Err(error) => return Err(Failure::at("observe")(error)),
        };
        let inside = observe_inside(&mut session, desired, provisioner).await;
        inside.map(Some).map_err(Failure::at("observe"))
    }

    async fn login(&self, server: &Server, one: &Wanted) -> Result<Session, ProofError> {
        let Some(credential) = &one.credential else {
            return Err(ProofError::Unknown(PostgresError::NoPassword { role: one.login() }));
        };
        server.prove(&credential.database, &credential.username, &credential.password).await
    }

    async fn apply_outside(&self, server: &Server, mut session: Session, plan: &Plan) -> Result<(), Failure> {
        let (begun, place) = (AtomicUsize::new(0), Place::Maintenance);
        let on_step = |step: Step| self.on_step(step, &begun, plan, place);
        run_maintenance(server, &mut session, plan, self.lease, &on_step).await.map_err(Failure::at("apply"))
    }

    async fn apply_inside(&self, server: &Server, session: Option<Session>, plan: &Plan) -> Result<(), Failure> {
        let (begun, place) = (AtomicUsize::new(0), Place::Inside);
        let on_step = |step: Step| self.on_step(step, &begun, plan, place);
        run_inside(server, session, plan, self.lease, &on_step).await.map_err(Failure::at("apply-inside"))
    }

    /// `begun` of the batches of `place` were begun; they come one after the other, and a refused extension is passed over.
    fn on_step(&self, step: Step, begun: &AtomicUsize, plan: &Plan, place: Place) {
        let when = if step.done { "after" } else { "before" };
        if !step.done {
            begun.fetch_add(1, Ordering::Relaxed);
        } else if let Some(last) = begun.load(Ordering::Relaxed).checked_sub(1) {
            let batch = plan.batches_of(place).nth(last);
            let mut progress = self.progress();
            let changes = batch.into_iter().flat_map(|batch| &batch.changes);
            let changes: Vec<_> = changes.filter_map(|change| changed(change, &progress.turning)).collect();
            progress.changes.extend(changes);
        }
        self.faults.reach_now(&format!("{when}:{}", step.name));
    }

    async fn prove<'w>(&self, server: &Server, tiers: impl Iterator<Item = &'w Wanted>) -> Result<(), Failure> {
        let logins = tiers.filter(|one| one.credential.is_some()).map(|one| async {
            match self.login(server, one).await {
                Ok(_) | Err(ProofError::Full { .. }) => Ok(()),
                Err(ProofError::Unknown(error)) => Err(Failure::at("prove")(error)),
                Err(error) => Err(Failure::at("prove")(Cause::Unproven(error))),
            }
        });
        try_join_all(logins).await.map(|_| ())
    }

    /// Stores can not check a lease, so it is checked right before they are asked.
    pub(crate) fn fence(&self, step: &'static str) -> Result<(), Failure> {
        match self.lease.remaining() {
            Some(_) => Ok(()),
            None => Err(Failure { step, cause: Box::new(Cause::LeaseLost) }),
        }
    }

    fn done(&self, round: Round, wanted: Vec<Wanted>, endpoint: Endpoint) -> Result<Done, Failure> {
        let Round { beyond, more, partial } = round;
        let (spec, now) = (&self.cluster.spec, Utc::now());
        let cleaned = self.cluster.former.as_ref().map(|former| former.digest.clone());
        let state = |one: &Wanted| Some(CredentialState { cleaned: cleaned.clone(), ..one.state_at_end(now)? });
        let credentials: BTreeMap<_, _> =
            wanted.iter().filter_map(|one| Some((one.target.tier, state(one)?))).collect();
        let waiting = wanted.iter().filter_map(|one| Some((one.target.tier, one.waits_until?)));
        let (tiers, until): (Vec<_>, Vec<_>) = waiting.unzip();
        let waits = until.into_iter().max().map(|until| (tiers, until));
        let next = wanted.iter().filter_map(|one| one.next(spec, now)).min();
        let proven = wanted.iter().all(|one| one.credential.is_some());
        let roles = roles(self.claim(), &self.cluster.stores, &wanted, &credentials, None);
        let mut errors = Vec::new();
        for one in wanted {
            errors.extend(one.found.unanswered());
        }
        if !errors.is_empty() {
            // What another store has is as it should be by now; the one that did not answer is named.
            errors.sort_by_key(|(index, _)| *index);
            errors.dedup_by_key(|(index, _)| *index);
            let mut progress = self.progress();
            (progress.credentials, progress.roles) = (Some(credentials), Some(roles));
            return Err(Failure::at("store")(StoreErrors(errors)));
        }
        Ok(Done { beyond, endpoint, roles, credentials, waits, next, proven, more: more || partial })
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifiers of the passwords that the server does not have. Each costs 2 ms of a core, so they do not hold up others.
async fn passwords(wanted: &[Wanted], observed: &Observed) -> BTreeMap<Tier, Verifier> {
    let tiers = wanted.iter().filter(|one| one.set || !observed.roles.contains_key(&one.login()));
    let known = tiers.filter_map(|one| Some((one.target.tier, one.credential.as_ref()?.password.clone())));
    let verifiers = known.map(|(tier, password)| async move {
        tokio::task::spawn_blocking(move || (tier, Verifier::of(&password))).await.ok()
    });
    join_all(verifiers).await.into_iter().flatten().collect()
}
