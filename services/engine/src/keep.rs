//! A claim's credentials in the stores: which are wanted, when they are written, and what the ledger is told before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use pgtenant_ledger::{CredentialState, note_credentials, within_deadline};
use pgtenant_model::{Credential, CredentialTarget, Roles, Tier};
use pgtenant_postgres::{Observed, ProofError, Server, Session, logged_in};
use pgtenant_secrets::{Fault, Removal, StoreErrors};

use crate::credentials::{self, Reach, Rules, Wanted};
use crate::failure::Failure;
use crate::progress::Rotated;
use crate::reconcile::Attempt;
use crate::roles::{roles, unknown};

/// How long a proof holds where a store tells without being read that nothing has changed: a password that was changed on the server
/// is found when it has run out. Each costs a read of every secret.
const PROOF: Duration = Duration::from_secs(24 * 3600);

impl Attempt<'_> {
    pub(crate) async fn wanted(&self, server: &Server, reach: &Reach) -> Result<Vec<Wanted>, Failure> {
        let rules = self.rules(self.is_idle());
        let tiers = Tier::ALL.map(|tier| async move {
            let mut one = credentials::wanted(rules, tier, reach, &self.cluster.stores).await?;
            if let Some(Credential { username, password, .. }) = one.unknown_turn().cloned() {
                match server.prove(&self.claim().key.database(), &username, &password).await {
                    Ok(_) | Err(ProofError::Full { .. }) => one.go_on_with(rules, reach, &password),
                    Err(ProofError::Unknown(error)) => return Err(Failure::at("prove")(error)),
                    Err(_) => {}
                }
            }
            Ok(one)
        });
        let found = join_all(tiers).await;
        let failed: Vec<_> = found.iter().filter_map(|one: &Result<_, Failure>| one.as_ref().err()?.stores()).collect();
        if !failed.is_empty() {
            self.progress().roles = unknown(self.claim(), failed.into_iter());
        }
        found.into_iter().collect()
    }

    /// Nobody waits for anything of its credentials, and they were proven lately.
    fn is_idle(&self) -> bool {
        let claim = self.claim();
        let settled = claim.observed_generation == claim.generation && claim.asked().is_empty();
        settled && claim.proven_at.is_some_and(|at| Utc::now() < at + PROOF)
    }

    fn rules(&self, idle: bool) -> Rules<'_> {
        Rules { claim: self.claim(), spec: &self.cluster.spec, now: Utc::now(), idle }
    }

    /// A login that is not there is made with its password, which has to be read for that.
    pub(crate) async fn read_for_new_roles(
        &self,
        observed: &Observed,
        reach: &Reach,
        wanted: &mut [Wanted],
    ) -> Result<(), Failure> {
        for one in wanted.iter_mut() {
            if one.credential.is_none() && !observed.roles.contains_key(&one.login()) {
                let (rules, stores) = (self.rules(false), &self.cluster.stores);
                *one = credentials::wanted(rules, one.target.tier, reach, stores).await?;
            }
        }
        Ok(())
    }

    /// Decides which former logins are locked: those that nobody uses any more, or that have had their time.
    pub(crate) async fn lock_former(&self, session: &mut Session, wanted: &mut [Wanted]) -> Result<(), Failure> {
        let (spec, now) = (&self.cluster.spec, Utc::now());
        let due: Vec<_> = wanted.iter().map(|one| one.former(spec, now)).collect();
        let asked: Vec<_> = due.iter().flatten().filter(|(_, over)| !over).map(|(login, _)| login.clone()).collect();
        let busy = match asked.as_slice() {
            [] => Vec::new(),
            logins => logged_in(session, logins).await.map_err(Failure::at("observe"))?,
        };
        for (one, due) in wanted.iter_mut().zip(due) {
            one.both &= due.is_none_or(|(login, over)| !over && busy.contains(&login));
        }
        Ok(())
    }

    /// Writes the credentials that `which` says to every store that does not have them.
    ///
    /// The first credential of a tier is in every store before the server knows it. One that takes the place of another is
    /// written when it is proven: until then the former one is in the stores, and afterwards both work.
    pub(crate) async fn store(&self, wanted: &mut [Wanted], which: impl Fn(&Wanted) -> bool) -> Result<(), Failure> {
        let entries: Vec<_> = wanted.iter().filter(|one| which(one)).filter_map(Wanted::entry).collect();
        if !entries.is_empty() {
            self.fence("store")?;
            if let Err(errors) = self.cluster.stores.put_many(&entries).await {
                // Told at the end: what is somebody else's does not keep a former login open.
                let turning = entries.iter().all(|(target, _)| is_turning(wanted, target));
                if !(turning && errors.all(|fault| matches!(fault, Fault::Foreign(_)))) {
                    self.progress().roles = self.roles_so_far(wanted, &errors);
                    return Err(Failure::at("store")(errors));
                }
            }
        }
        let news: Vec<_> = wanted.iter_mut().filter(|one| which(one) && one.is_new()).collect();
        if news.is_empty() {
            return Ok(());
        }
        news.into_iter().for_each(|one| one.stored = true);
        let turned = wanted.iter().filter(|one| one.stored).filter_map(|one| {
            let reason = one.turns.clone()?;
            Some(Rotated { tier: one.target.tier, login: one.login(), reason, last: one.waits_until.is_none() })
        });
        let mut progress = self.progress();
        progress.credentials = Some(self.states_so_far(wanted));
        progress.rotated = turned.collect();
        Ok(())
    }

    /// Writes down what the other logins are to get, so that a password which some store has is never taken for a stranger's.
    pub(crate) async fn note_turns(&self, wanted: &mut [Wanted]) -> Result<(), Failure> {
        let turns = |one: &Wanted| one.turns.is_some() && one.set && one.noted.is_none();
        if !wanted.iter().any(turns) {
            return Ok(());
        }
        wanted.iter_mut().filter(|one| turns(one)).for_each(|one| one.noted = Some(Utc::now()));
        let states = self.states_so_far(wanted);
        let note = async { note_credentials(&mut *self.ledger.acquire().await?, self.work, &states).await };
        within_deadline(note).await.map_err(Failure::at("store"))?;
        self.progress().credentials = Some(states);
        self.faults.reach("after:note").await;
        Ok(())
    }

    fn states_so_far(&self, wanted: &[Wanted]) -> BTreeMap<Tier, CredentialState> {
        let now = Utc::now();
        wanted.iter().filter_map(|one| Some((one.target.tier, one.state_so_far(now)?))).collect()
    }

    /// The former stores lose what is theirs of the claim, once.
    pub(crate) async fn clean_former_stores(&self) -> Result<(), Failure> {
        let Some(former) = &self.cluster.former else { return Ok(()) };
        let cleaned = |state: &CredentialState| state.cleaned.as_ref() == Some(&former.digest);
        if !self.claim().credentials.is_empty() && self.claim().credentials.values().all(cleaned) {
            return Ok(());
        }
        self.fence("store")?;
        let targets = Tier::ALL.map(|tier| CredentialTarget { key: self.claim().key.clone(), tier });
        former.stores.delete_many(&targets, Removal::Usual).await.map_err(Failure::at("store"))
    }

    fn roles_so_far(&self, wanted: &[Wanted], errors: &StoreErrors) -> Option<Roles> {
        // That they are known says that the claim was Ready once.
        self.claim().roles.as_ref()?;
        Some(roles(self.claim(), &self.cluster.stores, wanted, &self.states_so_far(wanted), Some(errors)))
    }
}

fn is_turning(wanted: &[Wanted], target: &CredentialTarget) -> bool {
    wanted.iter().any(|one| one.turns.is_some() && one.target == *target)
}
