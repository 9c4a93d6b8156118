//! Owner, privileges, settings and comment of the database.

use super::acl::{self, Others};
use super::{Desired, Names, Refusal, Work};
use crate::change::{Change, DatabaseChange, Object, ObjectChange, Privilege, RoleChange};
use crate::observed::{DatabaseFacts, Observed};
use crate::sql::{ident, setting_name};

/// What has to be done to a database that exists when these changes run.
pub(super) fn plan(
    desired: &Desired,
    observed: &Observed,
    names: &Names,
    facts: &DatabaseFacts,
    work: &mut Work,
) -> Result<(), Refusal> {
    let database = &names.database;
    let object = Object::Database(database.clone());
    let provisioner = &observed.server.current_user;
    take_over(observed, names, facts, work)?;

    let acl = acl::after_owner_change(&facts.acl, &facts.owner.name, provisioner);
    const WHOLE: &[Privilege] = &[Privilege::Connect, Privilege::Create, Privilege::Temporary];
    const CONNECT: &[Privilege] = &[Privilege::Connect];
    let mut wanted: Vec<(&str, &[Privilege])> = vec![(provisioner, WHOLE)];
    if desired.filled_by.is_empty() {
        wanted.extend([(names.admin.as_str(), WHOLE), (&names.read, CONNECT), (&names.write, CONNECT)]);
    } else {
        wanted.push((&names.admin, &[Privilege::Create, Privilege::Temporary]));
        wanted.extend(desired.filled_by.iter().map(|login| (login.as_str(), CONNECT)));
    }
    work.changes.extend(acl::difference(&object, provisioner, &acl, &wanted, Others::Revoke));

    for setting in &facts.settings {
        if setting.resettable {
            work.changes.push(Change::Database(DatabaseChange::Reset {
                database: database.clone(),
                setting: setting.name.clone(),
            }));
        } else {
            work.beyond(
                format!("{} is set to {:?} for database {database:?}", setting.name, setting.value),
                format!("ALTER DATABASE {} RESET {};", ident(database), setting_name(&setting.name)),
            );
        }
    }
    if facts.comment.as_ref() != Some(&desired.comment) {
        work.changes.push(Change::Object(ObjectChange::Comment { object, text: desired.comment.clone() }));
    }
    // Last: until here nobody can enter.
    if !facts.allow_connections {
        work.changes.push(Change::Database(DatabaseChange::AllowConnections { database: database.clone() }));
    } else if facts.connection_limit != -1 {
        work.changes.push(Change::Database(DatabaseChange::Unlimit { database: database.clone() }));
    }
    Ok(())
}

/// The provisioner owns the database: an owner could drop it, rename it and let others in.
fn take_over(observed: &Observed, names: &Names, facts: &DatabaseFacts, work: &mut Work) -> Result<(), Refusal> {
    let provisioner = &observed.server.current_user;
    let owner = &facts.owner;
    if owner.name == *provisioner {
        return Ok(());
    }
    if !owner.usable && !owner.manageable {
        return Err(Refusal::NeedsSuperuser {
            what: format!(
                "database {:?} belongs to {:?}, from whom {provisioner:?} can not take it",
                names.database, owner.name
            ),
            sql: format!("ALTER DATABASE {} OWNER TO {};", ident(&names.database), ident(provisioner)),
        });
    }
    let change = Change::Object(ObjectChange::Owner {
        object: Object::Database(names.database.clone()),
        owner: provisioner.clone(),
    });
    if owner.usable {
        work.changes.push(change);
    } else {
        let role = owner.name.clone();
        let with_options = observed.server.version.has_membership_options();
        work.changes.extend([
            Change::Role(RoleChange::Borrow { role: role.clone(), with_options }),
            change,
            Change::Role(RoleChange::GiveBack { role }),
        ]);
    }
    Ok(())
}
