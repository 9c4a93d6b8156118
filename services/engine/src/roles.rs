//! Where credentials are, as people see it.

use std::collections::BTreeMap;

use pgtenant_ledger::{Claim, CredentialState};
use pgtenant_model::{RoleStatus, Roles, StoreLocation, StoreState, Tier};
use pgtenant_secrets::{Found, StoreErrors, Stores};

use crate::credentials::{Wanted, was_filled};

/// The roles of a claim, and the state of each store: as `wanted` was found, or written by a try that ended with `errors`.
pub(crate) fn roles(
    claim: &Claim,
    stores: &Stores,
    wanted: &[Wanted],
    states: &BTreeMap<Tier, CredentialState>,
    errors: Option<&StoreErrors>,
) -> Roles {
    let status = |tier| {
        let one = wanted.iter().find(|one| one.target.tier == tier);
        let state = states.get(&tier);
        RoleStatus {
            role: claim.key.role(tier),
            login: claim.key.login(tier, state.map(|state| state.side).unwrap_or_default()),
            set_at: state.map(|state| state.set_at),
            stores: one.map(|one| locations(claim, stores, one, errors)).unwrap_or_default(),
        }
    };
    Roles { read: status(Tier::Read), write: status(Tier::Write), admin: status(Tier::Admin) }
}

/// The roles as they were, and that nobody knows what the stores that gave `errors` have.
pub(crate) fn unknown<'a>(claim: &Claim, errors: impl Iterator<Item = &'a StoreErrors>) -> Option<Roles> {
    let mut roles = claim.roles.clone()?;
    for (_, error) in errors.flat_map(|errors| &errors.0) {
        for tier in Tier::ALL {
            let stores = roles.of_mut(tier).stores.iter_mut();
            let same = |one: &&mut StoreLocation| one.store == error.store && one.location == error.location;
            stores.filter(same).filter(|one| one.state != StoreState::Pending).for_each(|one| {
                (one.state, one.message) = (StoreState::Unknown, Some(error.explain()));
            });
        }
    }
    Some(roles)
}

fn locations(claim: &Claim, stores: &Stores, one: &Wanted, errors: Option<&StoreErrors>) -> Vec<StoreLocation> {
    let mut list = Vec::new();
    for (index, (store, location)) in stores.locations(&one.target).enumerate() {
        let found = one.found.each().get(index);
        let failed = errors.and_then(|errors| errors.0.iter().find(|(at, _)| *at == index)).map(|(_, error)| error);
        let (state, message) = match (failed, found.map(|found| &found.held)) {
            (Some(error), _) if !holds(one, found) => (StoreState::Behind, Some(error.explain())),
            (_, Some(Err(error))) if found.is_some_and(Found::is_foreign) => {
                (StoreState::Behind, Some(error.explain()))
            }
            (_, Some(Err(error))) if !one.stored => (StoreState::Unknown, Some(error.explain())),
            _ => (StoreState::Current, None),
        };
        let filled = found.is_none_or(|found| {
            let before = one.found.each().get(..index).unwrap_or_default();
            was_filled(claim, one.target.tier, before, found)
        });
        let state = if state == StoreState::Current || filled { state } else { StoreState::Pending };
        list.push(StoreLocation { store: store.to_owned(), location, state, message });
    }
    list
}

fn holds(one: &Wanted, found: Option<&Found>) -> bool {
    match (&one.credential, found) {
        (Some(credential), Some(found)) => found.holds(credential),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}
