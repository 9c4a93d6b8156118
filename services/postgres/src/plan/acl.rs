//! The difference between the privileges that are there and those that should be.

use std::collections::BTreeMap;

use crate::change::{Change, Object, ObjectChange, Privilege};
use crate::observed::AclItem;

/// What is done about privileges of roles that should have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They are revoked: the object is the provisioner's.
    Revoke,
    /// They stay, but for PUBLIC's: the object is the tenant's.
    Keep,
}

/// Revokes what is too much and grants what is missing. `owner` owns the object when these run.
pub(super) fn difference(
    object: &Object,
    owner: &str,
    acl: &[AclItem],
    wanted: &[(&str, &[Privilege])],
    others: Others,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut revoked: Vec<Option<&str>> = Vec::new();
    for item in acl {
        let grantee = item.grantee.as_deref();
        // What others granted goes with their grant option: REVOKE says CASCADE.
        if grantee == Some(owner) || item.grantor != owner || revoked.contains(&grantee) {
            continue;
        }
        let allowed = wanted.iter().find(|(name, _)| Some(*name) == grantee);
        let excess = match allowed {
            Some((_, privileges)) => {
                !privileges.iter().any(|p| p.as_str() == item.privilege) || (item.grantable && others == Others::Revoke)
            }
            None => grantee.is_none() || others == Others::Revoke,
        };
        if excess {
            revoked.push(grantee);
            changes.push(Change::Object(ObjectChange::Revoke {
                privileges: vec![Privilege::All],
                object: object.clone(),
                from: grantee.map(str::to_owned),
            }));
        }
    }

    let mut grants: BTreeMap<Vec<Privilege>, Vec<String>> = BTreeMap::new();
    // An owner can take its own privileges away, so it may be among the wanted.
    for (name, privileges) in wanted {
        let has = |privilege: &Privilege| {
            !revoked.contains(&Some(*name))
                && acl.iter().any(|item| {
                    item.grantee.as_deref() == Some(*name)
                        && item.privilege == privilege.as_str()
                        && (item.grantor == owner || others == Others::Keep)
                })
        };
        let missing: Vec<_> = privileges.iter().copied().filter(|p| !has(p)).collect();
        if !missing.is_empty() {
            grants.entry(missing).or_default().push((*name).to_owned());
        }
    }
    changes.extend(
        grants
            .into_iter()
            .map(|(privileges, to)| Change::Object(ObjectChange::Grant { privileges, object: object.clone(), to })),
    );
    changes
}

/// The same privileges after `ALTER … OWNER TO`: what was the old owner's, and what it granted, is the new one's.
pub(super) fn after_owner_change(acl: &[AclItem], from: &str, to: &str) -> Vec<AclItem> {
    let renamed = |name: &str| if name == from { to.to_owned() } else { name.to_owned() };
    let moved = |item: &AclItem| AclItem {
        grantee: item.grantee.as_deref().map(renamed),
        grantor: renamed(&item.grantor),
        ..item.clone()
    };
    acl.iter().map(moved).collect()
}

/// What its owner has on a schema that is made.
pub(super) fn of_new_schema(owner: &str) -> Vec<AclItem> {
    let item = |privilege: Privilege| AclItem {
        grantee: Some(owner.to_owned()),
        grantor: owner.to_owned(),
        privilege: privilege.as_str().to_owned(),
        grantable: false,
    };
    [Privilege::Create, Privilege::Usage].map(item).into()
}
