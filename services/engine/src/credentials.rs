//! Which password a tier has, on which of its two logins, and what the stores have of it.
//!
//! A rotation never touches the login in use: the other one gets the new password, is proven, the stores are switched, and the
//! former one is locked when nobody uses it any more. Whatever fails in between, every store has a credential that works.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_ledger::{Claim, CredentialState, NextPassword};
use pgtenant_model::{
    ClusterSpec, Credential, CredentialTarget, Endpoint, HostPort, Side, SslMode, StoreLocation, StoreState, Tier,
};
use pgtenant_postgres::{Logins, generate_password};
use pgtenant_secrets::{Findings, Found, Login, Stores, fingerprint};
use secrecy::SecretString;

use crate::failure::Failure;

/// How tenants reach a cluster: what all of its credentials have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) endpoint: Endpoint,
    /// The URI's hosts; empty where the endpoint follows the primary by itself.
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) sslmode: SslMode,
    pub(crate) ca_crt: Option<String>,
    /// PgBouncer, where there is one.
    pub(crate) pool: Option<HostPort>,
}

impl Reach {
    fn credential(&self, target: &CredentialTarget, side: Side, password: &SecretString) -> Credential {
        pgtenant_secrets::credential(&Login {
            username: &target.key.login(target.tier, side),
            password,
            database: &target.key.database(),
            endpoint: &self.endpoint,
            hosts: &self.hosts,
            sslmode: self.sslmode,
            ca_crt: self.ca_crt.as_deref(),
            reads: target.tier == Tier::Read,
            // Who changes tables needs a session of its own: advisory locks, `SET`, `CREATE INDEX CONCURRENTLY`.
            pool: self.pool.as_ref().filter(|_| target.tier != Tier::Admin),
        })
    }

    /// The version that the stores should have, known without the password.
    fn version(&self, target: &CredentialTarget, known: &CredentialState) -> uuid::Uuid {
        let shape = self.credential(target, known.side, &SecretString::default());
        pgtenant_secrets::version(&shape, &known.fingerprint)
    }
}

/// A tier's credential as it should be everywhere.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) target: CredentialTarget,
    pub(crate) side: Side,
    /// None: every store has it as it should be, and nobody has read it.
    pub(crate) credential: Option<Credential>,
    /// What the stores have.
    pub(crate) found: Findings,
    /// The server does not have this password yet, or nobody knows whether it has.
    pub(crate) set: bool,
    /// The other login takes the place of the one in use, and why.
    pub(crate) turns: Option<String>,
    /// The former login may still log in.
    pub(crate) both: bool,
    /// A rotation that is wished for has to wait until then.
    pub(crate) waits_until: Option<DateTime<Utc>>,
    /// When this try has written to the ledger what the other login is to get.
    pub(crate) noted: Option<DateTime<Utc>>,
    /// Every store has it, and it is a new one.
    pub(crate) stored: bool,
    known: Option<CredentialState>,
}

/// What decides about a tier's password, beside what the stores have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) spec: &'a ClusterSpec,
    pub(crate) now: DateTime<Utc>,
    /// Nobody waits, so stores that can tell without being read are not read.
    pub(crate) idle: bool,
}

/// Decides for one tier. Nothing is written.
///
/// The ledger keeps a fingerprint of the password that the stores should hold. So a changed store can be told from a
/// changed server: a store that was changed by hand gets a new password, a server that was changed gets the stored one back.
pub(crate) async fn wanted(rules: Rules<'_>, tier: Tier, reach: &Reach, stores: &Stores) -> Result<Wanted, Failure> {
    let target = CredentialTarget { key: rules.claim.key.clone(), tier };
    let known = rules.claim.credentials.get(&tier);
    // While a rotation is under way a listing that lags may show what was there before it.
    let settled = known.filter(|known| rules.idle && known.next.is_none());
    let expected = settled.map(|known| reach.version(&target, known));
    let mut found = stores.get(&target, expected).await;
    let mut choice = choose(rules, tier, &found, false);
    if expected.is_some() && !matches!(choice, Choice::Keep(_)) {
        // Something is to be done, for which the password may be needed.
        found = stores.get(&target, None).await;
        choice = choose(rules, tier, &found, false);
    }
    // Nothing is concluded from what a store that does not answer may have: the first password that another try has stored, or the
    // next one of a rotation that is under way.
    let begun = matches!(choice, Choice::Turn { begun: Some(_), .. });
    if known.is_none_or(|known| known.next.is_some() && !begun) || matches!(choice, Choice::Lost) {
        found = found.complete().map_err(Failure::at("store"))?;
    }
    if matches!(choice, Choice::Lost) {
        // Lost is what stores that are there do not have: a volume that is not mounted has lost nothing.
        stores.reach().await.map_err(Failure::at("store"))?;
        choice = choose(rules, tier, &found, true);
    }
    Ok(Wanted::new(rules, target, reach, found, choice))
}

/// What is to become of a tier's password.
#[derive(Debug)]
enum Choice {
    /// It stays; none: it was not read.
    Keep(Option<SecretString>),
    /// It stays; a new one is wished for, and has to wait until then.
    Wait(Option<SecretString>, DateTime<Utc>),
    /// The first one of this tier, on this login.
    First(Side, SecretString),
    /// The other login's takes its place: why, and since when that is under way.
    Turn { password: SecretString, reason: String, begun: Option<DateTime<Utc>> },
    /// No store has it, if all of them are there.
    Lost,
}

fn choose(rules: Rules<'_>, tier: Tier, found: &Findings, lost: bool) -> Choice {
    let fresh = || generate_password(&mut rand::rng());
    let Some(known) = rules.claim.credentials.get(&tier) else {
        // Stored by a try that did not come to its end, or kept from an earlier claim: nobody has given it out since.
        let stored = found.unanimous();
        let side = stored.and_then(|credential| rules.claim.key.side(tier, &credential.username));
        return match (stored, side) {
            (Some(credential), Some(side)) => Choice::First(side, credential.password.clone()),
            _ => Choice::First(Side::A, fresh()),
        };
    };
    if let Some(next) = &known.next
        && let Some(begun) = found.with_fingerprint(&next.fingerprint)
    {
        let (password, reason) = (begun.password.clone(), next.reason.clone());
        return Choice::Turn { password, reason, begun: Some(next.made_at) };
    }
    let current = found.with_fingerprint(&known.fingerprint).map(|credential| credential.password.clone());
    let there = current.is_some() || found.all_unread();
    // Whoever read the former credential a moment ago may use it until then.
    let taken_until = known.former_since.map(|since| since + rules.spec.rotate_overlap.duration());
    match (reason(rules, tier, known, found), taken_until) {
        (None, _) if there => Choice::Keep(current),
        (_, _) if !there && !lost => Choice::Lost,
        (Some(_), Some(until)) if there && until > rules.now => Choice::Wait(current, until),
        (reason, _) => Choice::Turn {
            password: fresh(),
            begun: None,
            reason: reason.unwrap_or_else(|| "no store has the credential".to_owned()),
        },
    }
}

/// Why there should be a new password.
fn reason(rules: Rules<'_>, tier: Tier, known: &CredentialState, found: &Findings) -> Option<String> {
    if rules.claim.asked().contains(&tier) {
        return Some("a new password was asked for".to_owned());
    }
    let tampered = found.each().iter().enumerate().find(|(index, store)| {
        store.is_another(&known.fingerprint) && was_filled(rules.claim, tier, &found.each()[..*index], store)
    });
    if let Some((_, Found { store, location, .. })) = tampered {
        return Some(format!("the stored credential was changed by hand: store {store:?}, {location}"));
    }
    let every = rules.spec.rotate_every.filter(|every| known.set_at + every.duration() <= rules.now)?;
    Some(format!("it is older than {every}"))
}

/// Whether the store had the credential when all was well the last time: what one held before it was added to the cluster says
/// nothing. Stores of one kind may have the same names, and are told apart by their order.
pub(crate) fn was_filled(claim: &Claim, tier: Tier, before: &[Found], store: &Found) -> bool {
    let Some(roles) = &claim.roles else { return true };
    let place = (store.store, store.location.as_str());
    let others = before.iter().filter(|one| (one.store, one.location.as_str()) == place).count();
    let same = |one: &&StoreLocation| (one.store.as_str(), one.location.as_str()) == place;
    roles.of(tier).stores.iter().filter(same).nth(others).is_some_and(|one| one.state != StoreState::Pending)
}

impl Wanted {
    fn new(rules: Rules<'_>, target: CredentialTarget, reach: &Reach, found: Findings, choice: Choice) -> Self {
        let known = rules.claim.credentials.get(&target.tier);
        let in_use = known.map_or(Side::A, |known| known.side);
        let (side, password, set) = match &choice {
            Choice::Keep(password) | Choice::Wait(password, _) => (in_use, password.as_ref(), false),
            Choice::First(side, password) => (*side, Some(password), true),
            Choice::Turn { password, begun, .. } => (in_use.other(), Some(password), begun.is_none()),
            Choice::Lost => (in_use, None, false),
        };
        let credential = password.map(|password| reach.credential(&target, side, password));
        let (turns, waits_until) = match choice {
            Choice::Turn { reason, begun, .. } => {
                // Asked for while the former wish was under way: that comes next.
                let claim = rules.claim;
                let later = begun.zip(claim.asked_at).is_some_and(|(begun, asked)| asked > begun);
                let again = later && claim.asked().contains(&target.tier);
                (Some(reason), again.then(|| rules.now + rules.spec.rotate_overlap.duration()))
            }
            Choice::Wait(_, until) => (None, Some(until)),
            Choice::Keep(_) | Choice::First(..) | Choice::Lost => (None, None),
        };
        let both = turns.is_some() || known.is_some_and(|known| known.former_since.is_some());
        Self {
            side,
            credential,
            found,
            set,
            both,
            waits_until,
            noted: None,
            stored: false,
            known: known.cloned(),
            turns,
            target,
        }
    }

    /// A credential of the other login that some store has, where it is about to get another password: a ledger that was restored
    /// from a backup does not know of a rotation since then, nor which login is in use.
    pub(crate) fn unknown_turn(&self) -> Option<&Credential> {
        let (known, other) = (self.known.as_ref()?, self.login());
        // The former one, where the ledger knows of it, may log in for a while: it is out of use as long as some store has the other.
        let current = self.found.with_fingerprint(&known.fingerprint).is_some();
        let former = known.former_since.is_some() && current;
        let unknown = !former && self.turns.is_some() && self.set && self.side != known.side;
        unknown.then(|| self.found.credentials().find(|credential| credential.username == other)).flatten()
    }

    /// Goes on with [that](Self::unknown_turn) credential, which has logged in.
    pub(crate) fn go_on_with(&mut self, rules: Rules<'_>, reach: &Reach, password: &SecretString) {
        self.credential = Some(reach.credential(&self.target, self.side, password));
        self.turns = Some("the stores have a newer one than the ledger".to_owned());
        self.set = false;
        // It may be the former one that somebody has put back: it works, and is replaced in its turn.
        let former = self.known.as_ref().is_some_and(|known| known.former_since.is_some());
        let again = former || rules.claim.asked().contains(&self.target.tier);
        self.waits_until = again.then(|| rules.now + rules.spec.rotate_overlap.duration());
    }

    /// The login that the credential is of.
    pub(crate) fn login(&self) -> String {
        self.target.key.login(self.target.tier, self.side)
    }

    pub(crate) fn logins(&self) -> Logins {
        Logins { in_use: self.side, both: self.both }
    }

    /// Whether the former login is locked by this try.
    pub(crate) fn locks(&self) -> bool {
        !self.both && self.known.as_ref().is_some_and(|known| known.former_since.is_some())
    }

    /// What has to be written to the stores.
    pub(crate) fn entry(&self) -> Option<(CredentialTarget, Credential)> {
        let credential = self.credential.as_ref().filter(|_| !self.stored)?;
        let missing = self.found.each().iter().any(|store| store.held.is_ok() && !store.holds(credential));
        missing.then(|| (self.target.clone(), credential.clone()))
    }

    /// The former login, once everybody has had time to read the credential that took its place; and whether it is locked
    /// even when it has sessions.
    pub(crate) fn former(&self, spec: &ClusterSpec, now: DateTime<Utc>) -> Option<(String, bool)> {
        let since = self.known.as_ref().filter(|_| self.turns.is_none())?.former_since?;
        let login = self.target.key.login(self.target.tier, self.side.other());
        let due = now >= since + spec.rotate_overlap.duration();
        due.then(|| (login, now >= since + spec.rotate_grace.duration()))
    }

    /// Whether it is one that the ledger does not know as the one in use, and that every store has answered for. What is somebody
    /// else's holds nothing of ours, and so keeps no former login open.
    pub(crate) fn is_new(&self) -> bool {
        let answered = self.found.each().iter().all(|store| store.held.is_ok() || store.is_foreign());
        answered && !self.stored && (self.turns.is_some() || self.known.is_none())
    }

    /// What the ledger has to know whatever becomes of the try: otherwise the next one would take what this one has written
    /// for a change by hand, and make another password.
    pub(crate) fn state_so_far(&self, now: DateTime<Utc>) -> Option<CredentialState> {
        let fingerprint = || self.credential.as_ref().map(|credential| fingerprint(&credential.password));
        match (&self.turns, &self.known) {
            (Some(reason), Some(known)) if !self.stored => {
                let next =
                    |made_at| Some(NextPassword { fingerprint: fingerprint()?, reason: reason.clone(), made_at });
                let noted = self.noted.and_then(next);
                Some(CredentialState { next: noted.or_else(|| known.next.clone()), ..known.clone() })
            }
            (None, Some(known)) => Some(known.clone()),
            (turns, known) => fingerprint().filter(|_| self.stored).map(|fingerprint| CredentialState {
                fingerprint,
                side: self.side,
                set_at: now,
                former_since: turns.as_ref().map(|_| now),
                next: None,
                cleaned: known.as_ref().and_then(|known| known.cleaned.clone()),
            }),
        }
    }

    /// What the ledger knows when all is done: a login that was locked is forgotten, and so is a rotation that was given up.
    pub(crate) fn state_at_end(&self, now: DateTime<Utc>) -> Option<CredentialState> {
        let state = self.state_so_far(now)?;
        let former_since = state.former_since.filter(|_| self.both);
        let next = state.next.filter(|_| self.turns.is_some());
        Some(CredentialState { former_since, next, ..state })
    }

    /// When there is something to do again, if nothing else happens.
    pub(crate) fn next(&self, spec: &ClusterSpec, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let state = self.state_at_end(now)?;
        let overlap = spec.rotate_overlap.duration();
        let former = state.former_since.map(|since| {
            // Looks come along, too; without them it is asked for less and less often.
            let again = now + (now - since).to_std().unwrap_or_default().max(overlap).max(Duration::from_secs(2));
            let grace = since + spec.rotate_grace.duration();
            if since + overlap > now { since + overlap } else { again.min(grace) }
        });
        let due = spec.rotate_every.map(|every| state.set_at + every.duration());
        [self.waits_until, former, due].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
