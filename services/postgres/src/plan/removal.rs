//! What has to be done so that nothing of a claim is left.

use pgtenant_model::{ClaimKey, Tier};

use super::roles::{belongs, remove_member};
use super::standing::{is_half_made, is_ours};
use super::{Names, Place, Plan, Refusal, Work, drop, step};
use crate::change::{Change, RoleChange};
use crate::comment::{database_comment, role_comment};
use crate::observed::{Observed, RoleFacts};
use crate::sql::ident;

/// What has to be done so that nothing of the claim is left on the cluster. What is there and does not carry the claim's
/// comment is not the claim's: it stays, and is named in [`Plan::beyond`].
///
/// # Errors
/// A refusal says which of the claim's own roles can not be dropped, and what to do.
pub fn plan_drop(key: &ClaimKey, observed: &Observed) -> Result<Plan, Refusal> {
    let (names, comment) = (Names::new(key, &key.database()), database_comment(key));
    let mut plan = Plan::new(&names);
    let mut work = Work::default();
    let ours = observed.database.as_ref().is_some_and(|facts| is_ours(key, &comment, observed, facts));
    let drop_database = match &observed.database {
        None => false,
        Some(facts) if ours || is_half_made(observed, facts) => true,
        Some(facts) => {
            work.beyond(
                format!(
                    "database {:?} exists and is not this claim's (owner: {:?}): it stays",
                    names.database, facts.owner.name
                ),
                "drop it by hand if it is not needed".to_owned(),
            );
            false
        }
    };
    let roles = own_roles(key, observed, ours, &mut work)?;
    for (role, facts) in &roles {
        refuse_owned_elsewhere(observed, role, facts)?;
    }
    if drop_database {
        // Nobody ends another's sessions; a member of their role may.
        plan.push(step::PREPARE_DROP, Place::Maintenance, borrow(observed, &roles));
        plan.push(step::DROP_DATABASE, Place::Maintenance, vec![drop(&names.database)]);
    }
    plan.push(step::DROP_ROLES, Place::Maintenance, drop_roles(observed, &roles, drop_database));
    plan.beyond = work.beyond;
    Ok(plan)
}

/// The claim's roles, second logins first: they may be members of the others. A role that lost its comment is known by
/// a database that has one, and a second login by its tier's role.
fn own_roles<'a>(
    key: &ClaimKey,
    observed: &'a Observed,
    ours: bool,
    work: &mut Work,
) -> Result<Vec<(String, &'a RoleFacts)>, Refusal> {
    let mut own = Vec::new();
    let seconds = Tier::ALL.map(|tier| (tier, key.second_login(tier)));
    let firsts = Tier::ALL.map(|tier| (tier, key.role(tier)));
    for (tier, role) in seconds.into_iter().chain(firsts) {
        let Some(facts) = observed.roles.get(&role) else { continue };
        let lost_comment = ours && facts.comment.is_none() && role == key.role(tier);
        if !lost_comment && !belongs(facts, &key.role(tier), &role_comment(key, tier)) {
            work.beyond(
                format!("role {role:?} exists and is not this claim's: it stays"),
                "drop it by hand if it is not needed".to_owned(),
            );
        } else if facts.manageable {
            own.push((role, facts));
        } else {
            return Err(Refusal::NeedsSuperuser {
                what: format!("role {role:?} can not be dropped by {:?}", observed.server.current_user),
                sql: format!("DROP ROLE {};", ident(&role)),
            });
        }
    }
    Ok(own)
}

fn borrow(observed: &Observed, roles: &[(String, &RoleFacts)]) -> Vec<Change> {
    let with_options = observed.server.version.has_membership_options();
    let missing = roles.iter().filter(|(_, facts)| !facts.usable);
    missing.map(|(role, _)| Change::Role(RoleChange::Borrow { role: role.clone(), with_options })).collect()
}

/// Ownership in a database that the provisioner does not enter: only a superuser can have given it.
fn refuse_owned_elsewhere(observed: &Observed, role: &str, facts: &RoleFacts) -> Result<(), Refusal> {
    let here = observed.server.maintenance_database.as_str();
    let Some(thing) = facts.elsewhere.iter().find(|thing| thing.owned && thing.database.as_deref() != Some(here))
    else {
        return Ok(());
    };
    let (place, connect) = match &thing.database {
        None => ("of the whole cluster".to_owned(), String::new()),
        Some(database) => (format!("in database {database:?}"), format!("\\connect {}; ", ident(database))),
    };
    Err(Refusal::NeedsSuperuser {
        what: format!("role {role:?} owns objects {place}"),
        sql: format!("{connect}DROP OWNED BY {};", ident(role)),
    })
}

/// Drops the roles, but puts aside those that have privileges in other databases. Anybody may grant anything to any role in
/// a database of their own, so that must not keep a claim from being removed.
fn drop_roles(observed: &Observed, roles: &[(String, &RoleFacts)], lent: bool) -> Vec<Change> {
    let mut changes: Vec<_> = roles.iter().flat_map(|(role, facts)| drop_owned(observed, role, facts, lent)).collect();
    let (aside, dropped): (Vec<_>, Vec<_>) = roles.iter().partition(|(_, facts)| is_granted_elsewhere(facts));
    // While all of the roles are still there: they may be in each other.
    for (role, facts) in &aside {
        let revocable = facts.memberships.iter().filter(|membership| membership.revocable);
        for change in revocable.map(|membership| remove_member(membership, observed)) {
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
        if !observed.server.superuser {
            changes.push(Change::Role(RoleChange::GiveBack { role: role.clone() }));
        }
    }
    changes.extend(dropped.iter().map(|(role, _)| Change::Role(RoleChange::Drop { role: role.clone() })));
    let put_aside = |(role, facts): &&(String, &RoleFacts)| RoleChange::PutAside { role: role.clone(), oid: facts.oid };
    changes.extend(aside.iter().map(put_aside).map(Change::Role));
    changes
}

/// In the maintenance database too: what others granted there, the provisioner may not be able to revoke.
fn is_granted_elsewhere(facts: &RoleFacts) -> bool {
    facts.elsewhere.iter().any(|thing| !thing.owned && thing.database.is_some())
}

/// What the role has in the maintenance database, and privileges on objects of the whole cluster.
fn drop_owned(observed: &Observed, role: &str, facts: &RoleFacts, lent: bool) -> Vec<Change> {
    let here = observed.server.maintenance_database.as_str();
    if !facts.elsewhere.iter().any(|thing| thing.database.as_deref().is_none_or(|database| database == here)) {
        return Vec::new();
    }
    let with_options = observed.server.version.has_membership_options();
    let borrow = Change::Role(RoleChange::Borrow { role: role.to_owned(), with_options });
    let drop = Change::Role(RoleChange::DropOwned { role: role.to_owned() });
    if lent || facts.usable { vec![drop] } else { vec![borrow, drop] }
}
