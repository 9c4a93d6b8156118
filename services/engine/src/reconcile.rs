//! One look at one claim: what is wished, what is there, and the difference done.
//!
//! Order matters, since the process may be killed after any line: a credential is in every store before PostgreSQL
//! knows it, it is proven by a login before the claim is Ready, and what the ledger does not know yet is found again
//! by the next look.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join_all, try_join, try_join_all};
use pgtenant_ledger::{Claim, CredentialState};
use pgtenant_model::{CredentialTarget, Endpoint, RoleStatus, Roles, Tier};
use pgtenant_postgres::{
    Desired, Fence as _, Observed, Plan, ProofError, Server, Session, Step, Verifier, connect_inside, observe,
    observe_inside, plan, plan_drop, run_inside, run_maintenance,
};

use crate::Faults;
use crate::cluster::Cluster;
use crate::credentials::{self, Reach, Wanted};
use crate::failure::{Cause, Failure};
use crate::lease::Lease;

/// A claim under work.
pub(crate) struct Attempt<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) cluster: &'a Cluster,
    pub(crate) lease: &'a Lease,
    pub(crate) faults: &'a Faults,
}

/// What a look that came to its end has done.
#[derive(Debug)]
pub(crate) struct Done {
    /// What was changed on the cluster.
    pub(crate) plan: Plan,
    /// Tiers whose password is a new one in place of an earlier one, and why.
    pub(crate) rotated: Vec<(Tier, String)>,
    pub(crate) endpoint: Endpoint,
    pub(crate) roles: Roles,
    pub(crate) credentials: BTreeMap<Tier, CredentialState>,
    /// The look listed only a part of what is to be done.
    pub(crate) more: bool,
}

impl Attempt<'_> {
    /// Makes the claim's wish true.
    pub(crate) async fn provide(&self) -> Result<Done, Failure> {
        let server = self.cluster.server().await.map_err(Failure::at("find-primary"))?;
        let result = self.provide_on(&server).await;
        self.noting_a_move(&server, result)
    }

    /// Removes database, roles and stored credentials; nothing of a database that is not ours.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
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
        result
    }

    async fn provide_on(&self, server: &Server) -> Result<Done, Failure> {
        let reach = self.cluster.reach(server).map_err(Failure::at("observe"))?;
        let mut desired = Desired { adopt: self.claim.adopt, ..Desired::new(self.claim.key.clone(), &self.claim.spec) };
        let (session, mut observed) = self.observe(server).await?;
        let mut wanted = self.wanted(&reach).await?;

        let proven = self.look_inside(server, &desired, &mut observed, &mut wanted).await?;
        desired.passwords = passwords(&wanted, &observed).await;
        let plan = plan(&desired, &observed).map_err(Failure::at("plan"))?;

        self.store(&wanted).await?;
        self.faults.reach("after:store").await;
        self.apply_outside(server, session, &plan).await?;
        // The tiers can log in from here on, so they are proven while the rest is done.
        let unproven = wanted.iter().filter(|one| !proven.contains(&one.target.tier));
        let inside = connect_inside(server, &plan).await.map_err(Failure::at("apply-inside"))?;
        try_join(self.apply_inside(server, inside, &plan), self.prove(server, unproven)).await?;
        self.faults.reach("after:prove").await;
        let more = observed.inside.as_ref().is_some_and(pgtenant_postgres::Inside::more);
        Ok(self.done(plan, wanted, reach.endpoint, more))
    }

    async fn remove_on(&self, server: &Server) -> Result<(), Failure> {
        let (session, observed) = self.observe(server).await?;
        let plan = plan_drop(&self.claim.key, &observed).map_err(Failure::at("plan"))?;
        self.apply_outside(server, session, &plan).await?;
        // A try that was cut off has stored credentials before there was anything on the server. Where a database or a
        // role of the name is somebody else's and the claim never was Ready, what lies in the stores may be theirs too.
        if self.claim.roles.is_some() || plan.beyond.is_empty() {
            self.fence("store")?;
            let targets = Tier::ALL.map(|tier| CredentialTarget { key: self.claim.key.clone(), tier });
            self.cluster.stores.delete_many(&targets).await.map_err(Failure::at("store"))?;
        }
        self.faults.reach("after:delete-credentials").await;
        Ok(())
    }

    async fn observe(&self, server: &Server) -> Result<(Session, Observed), Failure> {
        let mut session = server.maintenance().await.map_err(Failure::at("connect"))?;
        let (key, extensions) = (&self.claim.key, &self.claim.spec.extensions);
        let observed = observe(server, &mut session, key, extensions).await.map_err(Failure::at("observe"))?;
        Ok((session, observed))
    }

    async fn wanted(&self, reach: &Reach) -> Result<Vec<Wanted>, Failure> {
        let stores = &self.cluster.stores;
        try_join_all(Tier::ALL.map(|tier| credentials::wanted(self.claim, tier, reach, stores))).await
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
        let there = |one: &Wanted| !one.set && observed.roles.contains_key(&one.target.role());
        let logins =
            wanted.iter().map(|one| async { if there(one) { Some(self.login(server, one).await) } else { None } });
        let answers = join_all(logins).await;
        let mut proven = BTreeSet::new();
        for (one, answer) in wanted.iter_mut().zip(answers) {
            match answer {
                None => {}
                Some(Ok(mut session)) => {
                    proven.insert(one.target.tier);
                    if one.target.tier == Tier::Admin {
                        let provisioner = &observed.server.current_user;
                        observed.inside = observe_inside(&mut session, desired, provisioner).await.ok();
                    }
                }
                Some(Err(ProofError::Unknown(error))) => return Err(Failure::at("prove")(error)),
                Some(Err(error)) => match error.password_is_right() {
                    // An expired password is refused in the same words: once the expiry is gone, the login will tell.
                    Some(false) => {
                        let role = observed.roles.get(&one.target.role());
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
            let provisioner = observed.server.current_user.clone();
            let mut session = server.inside(&desired.key.database()).await.map_err(Failure::at("observe"))?;
            let inside = observe_inside(&mut session, desired, &provisioner).await;
            observed.inside = Some(inside.map_err(Failure::at("observe"))?);
        }
        Ok(proven)
    }

    async fn login(&self, server: &Server, one: &Wanted) -> Result<Session, ProofError> {
        let Wanted { credential, .. } = one;
        server.prove(&credential.database, &credential.username, &credential.password).await
    }

    /// Every store gets the credential before the server does.
    async fn store(&self, wanted: &[Wanted]) -> Result<(), Failure> {
        let entries: Vec<_> =
            wanted.iter().filter(|one| one.store).map(|one| (one.target.clone(), one.credential.clone())).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.fence("store")?;
        self.cluster.stores.put_many(&entries).await.map_err(Failure::at("store"))
    }

    async fn apply_outside(&self, server: &Server, mut session: Session, plan: &Plan) -> Result<(), Failure> {
        let on_step = |step: Step| self.on_step(step);
        run_maintenance(server, &mut session, plan, self.lease, &on_step).await.map_err(Failure::at("apply"))
    }

    async fn apply_inside(&self, server: &Server, session: Option<Session>, plan: &Plan) -> Result<(), Failure> {
        let on_step = |step: Step| self.on_step(step);
        run_inside(server, session, plan, self.lease, &on_step).await.map_err(Failure::at("apply-inside"))
    }

    fn on_step(&self, step: Step) {
        let when = if step.done { "after" } else { "before" };
        self.faults.reach_now(&format!("{when}:{}", step.name));
    }

    async fn prove<'a>(&self, server: &Server, tiers: impl Iterator<Item = &'a Wanted>) -> Result<(), Failure> {
        let logins = tiers.map(|one| async {
            match self.login(server, one).await {
                Ok(_) | Err(ProofError::Full { .. }) => Ok(()),
                Err(ProofError::Unknown(error)) => Err(Failure::at("prove")(error)),
                Err(error) => Err(Failure::at("prove")(Cause::Unproven(error))),
            }
        });
        try_join_all(logins).await.map(|_| ())
    }

    /// Stores can not check a lease, so it is checked right before they are asked.
    fn fence(&self, step: &'static str) -> Result<(), Failure> {
        match self.lease.remaining() {
            Some(_) => Ok(()),
            None => Err(Failure { step, cause: Box::new(Cause::LeaseLost) }),
        }
    }

    fn done(&self, plan: Plan, wanted: Vec<Wanted>, endpoint: Endpoint, more: bool) -> Done {
        let credentials: BTreeMap<_, _> = wanted
            .iter()
            .map(|one| (one.target.tier, one.state(self.claim.credentials.get(&one.target.tier))))
            .collect();
        let status = |tier| {
            let target = CredentialTarget { key: self.claim.key.clone(), tier };
            RoleStatus {
                role: target.role(),
                login: target.role(),
                set_at: credentials.get(&tier).map(|state| state.set_at),
                stores: self.cluster.stores.locations(&target),
            }
        };
        let roles = Roles { read: status(Tier::Read), write: status(Tier::Write), admin: status(Tier::Admin) };
        let rotated = wanted.into_iter().filter_map(|one| one.rotated.map(|why| (one.target.tier, why))).collect();
        Done { plan, rotated, endpoint, roles, credentials, more }
    }
}

/// Verifiers of the passwords that the server does not have. Each costs 2 ms of a core, so they do not hold up others.
async fn passwords(wanted: &[Wanted], observed: &Observed) -> BTreeMap<Tier, Verifier> {
    let tiers = wanted.iter().filter(|one| one.set || !observed.roles.contains_key(&one.target.role()));
    let verifiers = tiers.map(|one| {
        let (tier, password) = (one.target.tier, one.credential.password.clone());
        async move { tokio::task::spawn_blocking(move || (tier, Verifier::of(&password))).await.ok() }
    });
    join_all(verifiers).await.into_iter().flatten().collect()
}
