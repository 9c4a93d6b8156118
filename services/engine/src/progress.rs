//! What a try has done that stays done when it fails.

use std::collections::BTreeMap;

use pgtenant_ledger::CredentialState;
use pgtenant_model::{Roles, Tier};
use pgtenant_postgres::{Change, InsideChange, Object, ObjectChange, RoleChange};

use crate::credentials::Wanted;

/// Whatever becomes of the try, the ledger is told of it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What is known of the passwords, where that has changed: see [`Wanted::state_so_far`].
    pub(crate) credentials: Option<BTreeMap<Tier, CredentialState>>,
    /// Where the credentials are, where a store could not be written.
    pub(crate) roles: Option<Roles>,
    /// Tiers whose credential is another one now in every store.
    pub(crate) rotated: Vec<Rotated>,
    /// The logins that [turn](turning) in this try.
    pub(crate) turning: Vec<String>,
    /// What the server has committed.
    pub(crate) changes: Vec<Changed>,
}

/// A credential that took the place of another.
#[derive(Debug)]
pub(crate) struct Rotated {
    pub(crate) tier: Tier,
    pub(crate) login: String,
    pub(crate) reason: String,
    /// Nobody has asked for yet another one meanwhile.
    pub(crate) last: bool,
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Changed {
    /// For people.
    pub(crate) text: String,
    /// In full, without verifiers.
    pub(crate) sql: String,
}

/// What was changed; nothing of what only made a change possible, nor of what turning from one login to the other takes.
pub(crate) fn changed(change: &Change, turning: &[String]) -> Option<Changed> {
    let borrowed = matches!(change, Change::Role(RoleChange::Borrow { .. } | RoleChange::GiveBack { .. }));
    let of_rotation = login_of(change).is_some_and(|login| turning.contains(login));
    (!borrowed && !of_rotation).then(|| Changed { text: change.text(), sql: change.sql_withheld() })
}

/// The login that a change is about.
fn login_of(change: &Change) -> Option<&String> {
    match change {
        Change::Role(
            RoleChange::Create { role, .. } | RoleChange::Alter { role, .. } | RoleChange::SetPassword { role, .. },
        ) => Some(role),
        Change::Role(RoleChange::AddMember { member, .. }) => Some(member),
        Change::Role(RoleChange::TakeOn { login, .. }) => Some(login),
        Change::Object(ObjectChange::Comment { object: Object::Role(role), .. }) => Some(role),
        Change::Inside(InsideChange::DefaultPrivileges { owner, .. }) => Some(owner),
        _ => None,
    }
}

/// The logins that turn: one that takes another's place, and one that is locked after that.
pub(crate) fn turning(wanted: &[Wanted]) -> Vec<String> {
    let name = |one: &Wanted| {
        if one.turns.is_some() {
            Some(one.login())
        } else {
            one.locks().then(|| one.target.key.login(one.target.tier, one.side.other()))
        }
    };
    wanted.iter().filter_map(name).collect()
}
