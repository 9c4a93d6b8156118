//! What has to be done: a pure function of what is wished and what is there.
//!
//! Laws, tested as properties: after a plan was applied, the next is empty; a plan for one claim changes nothing of
//! another; what the claim does not own is never dropped.

mod acl;
mod database;
mod inside;
mod removal;
mod roles;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use pgtenant_model::{ChangeReport, ClaimKey, ClaimSpec, Side, Tier};

use crate::change::{Change, DatabaseChange, RoleChange};
use crate::comment::database_comment;
use crate::observed::{DatabaseFacts, Inside, Observed};
use crate::verifier::Verifier;
use standing::Standing;

pub use removal::plan_drop;
pub use standing::Refusal;

/// What is wished of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The claim.
    pub key: ClaimKey,
    /// The claim's own database, or a copy that is to take its place.
    pub database: String,
    /// What the database's comment says of whose it is.
    pub comment: String,
    /// While these logins have the database for themselves, no tier may connect to it.
    pub filled_by: Vec<String>,
    /// Schemas beside `public`.
    pub schemas: Vec<String>,
    /// Extensions; the caller has checked them against the cluster's allow-list.
    pub extensions: Vec<String>,
    /// Connections that each role may have at once.
    pub connection_limit: Option<i32>,
    /// Take over a database and roles that are not the claim's.
    pub adopt: bool,
    /// Which logins each tier has; a tier without an entry logs in as its role, and nothing else does.
    pub logins: BTreeMap<Tier, Logins>,
    /// The tiers whose password is to be set, on the login in use. A role that does not exist and has no entry is planned with
    /// [`Verifier::withheld`], which can be printed and not applied.
    pub passwords: BTreeMap<Tier, Verifier>,
}

impl Desired {
    /// A claim's wish, to take nothing over and to set no password.
    #[must_use]
    pub fn new(key: ClaimKey, spec: &ClaimSpec) -> Self {
        Self {
            database: key.database(),
            comment: database_comment(&key),
            filled_by: Vec::new(),
            key,
            schemas: spec.schemas.clone(),
            extensions: spec.extensions.clone(),
            connection_limit: spec.connection_limit,
            adopt: false,
            logins: BTreeMap::new(),
            passwords: BTreeMap::new(),
        }
    }

    fn logins(&self, tier: Tier) -> Logins {
        self.logins.get(&tier).copied().unwrap_or_default()
    }
}

/// The two logins of a tier. One that is locked keeps its sessions, and gets no new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logins {
    /// The one whose password the stores have; it is made where it is not there.
    pub in_use: Side,
    /// Whether the other one, where it is there, may still log in.
    pub both: bool,
}

impl Logins {
    /// Whether this one may log in.
    #[must_use]
    pub fn open(self, side: Side) -> bool {
        self.both || self.in_use == side
    }
}

/// Changes, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The claim's database.
    pub database: String,
    /// One message to the server each.
    pub batches: Vec<Batch>,
    /// What the provisioner can not do; it does not keep the rest from being done.
    pub beyond: Vec<Beyond>,
    /// Nobody has looked into the database, so that there may be more to do there: apply, look again, plan again.
    pub partial: bool,
}

/// Changes that are made together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its name, for progress, metrics and fault points.
    pub step: &'static str,
    /// Where it runs.
    pub place: Place,
    /// What it does. A change that can not be in a transaction is the only one of its batch.
    pub changes: Vec<Change>,
}

/// Where a batch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the provisioner's maintenance database.
    Maintenance,
    /// In the claim's database.
    Inside,
}

/// Something that is not as it should be and that the provisioner may not put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// What is wrong.
    pub text: String,
    /// What a superuser does about it: statements where there are some.
    pub remedy: String,
}

/// What has to be done so that the claim's database, roles and privileges are as wished.
///
/// While `observed.inside` is none and the database exists, only what can be told from outside is planned, and the plan is
/// [partial](Plan::partial).
///
/// # Errors
/// A refusal says what stands in the way, whose it is, and what to do; nothing has been changed.
pub fn plan(desired: &Desired, observed: &Observed) -> Result<Plan, Refusal> {
    let names = Names::new(&desired.key, &desired.database);
    standing::check_server(observed)?;
    let standing = standing::of(desired, observed, &names)?;
    let mut plan = Plan::new(&names);
    let provisioner = &observed.server.current_user;
    let fresh = DatabaseFacts::fresh(provisioner);
    let database = match (&observed.database, standing) {
        (Some(facts), Standing::Ours | Standing::ToAdopt) => facts,
        (_, Standing::Invalid) => {
            plan.push(step::DROP_DATABASE, Place::Maintenance, vec![drop(&names.database)]);
            plan.push(step::CREATE_DATABASE, Place::Maintenance, vec![create(&names, observed)]);
            &fresh
        }
        (None, _) => {
            plan.push(step::CREATE_DATABASE, Place::Maintenance, vec![create(&names, observed)]);
            &fresh
        }
        (Some(_), Standing::Absent | Standing::HalfMade) => &fresh,
    };

    let mut work = Work::default();
    roles::plan(desired, observed, &names, &mut work)?;
    database::plan(desired, observed, &names, database, &mut work)?;
    plan.push(step::ROLES, Place::Maintenance, work.changes);
    plan.beyond.append(&mut work.beyond);

    let empty = Inside::fresh(observed.server.version);
    let inside = match standing {
        Standing::Absent | Standing::HalfMade | Standing::Invalid => Some(&empty),
        Standing::Ours | Standing::ToAdopt => observed.inside.as_ref(),
    };
    match inside {
        Some(inside) => inside::plan(desired, observed, &names, inside, &mut plan),
        None => plan.partial = true,
    }
    Ok(plan)
}

fn create(names: &Names, observed: &Observed) -> Change {
    Change::Database(DatabaseChange::Create {
        database: names.database.clone(),
        template: observed.server.version.template(),
    })
}

fn drop(database: &str) -> Change {
    Change::Database(DatabaseChange::Drop { database: database.to_owned() })
}

/// The names of the steps, as [`Batch::step`] has them.
pub mod step {
    /// The database is made, closed.
    pub const CREATE_DATABASE: &str = "create-database";
    /// Roles, memberships, and who may do what with the database.
    pub const ROLES: &str = "roles";
    /// Schemas and default privileges.
    pub const INSIDE: &str = "inside";
    /// Relations that existed before they could be granted.
    pub const RELATIONS: &str = "relations";
    /// Extensions.
    pub const EXTENSIONS: &str = "extensions";
    /// The provisioner takes on the roles whose sessions it has to end.
    pub const PREPARE_DROP: &str = "prepare-drop";
    /// The database is dropped.
    pub const DROP_DATABASE: &str = "drop-database";
    /// The roles are dropped.
    pub const DROP_ROLES: &str = "drop-roles";
}

impl Plan {
    fn new(names: &Names) -> Self {
        Self { database: names.database.clone(), batches: Vec::new(), beyond: Vec::new(), partial: false }
    }

    fn push(&mut self, step: &'static str, place: Place, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.batches.push(Batch { step, place, changes });
        }
    }

    /// Whether there is nothing to do. What is [beyond](Plan::beyond) the provisioner does not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Every change.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.batches.iter().flat_map(|batch| &batch.changes)
    }

    /// The batches of one place.
    pub fn batches_of(&self, place: Place) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(move |batch| batch.place == place)
    }

    /// The changes as people and the API see them.
    #[must_use]
    pub fn report(&self) -> Vec<ChangeReport> {
        let report = |batch: &Batch| {
            let database = (batch.place == Place::Inside).then(|| self.database.clone());
            let report = move |change: &Change| ChangeReport {
                text: change.text(),
                sql: format!("{};", change.sql_withheld()),
                database: database.clone(),
            };
            batch.changes.iter().map(report).collect::<Vec<_>>()
        };
        self.batches.iter().flat_map(report).collect()
    }

    /// The roles that would be made without a password. Such a plan is not applied: give [`Desired::passwords`].
    #[must_use]
    pub fn roles_without_password(&self) -> BTreeSet<&str> {
        let role = |change| match change {
            &Change::Role(RoleChange::Create { ref role, verifier: Some(ref verifier), .. })
                if verifier.is_withheld() =>
            {
                Some(role.as_str())
            }
            _ => None,
        };
        self.changes().filter_map(role).collect()
    }
}

impl Batch {
    /// Whether its change can not be in a transaction.
    #[must_use]
    pub fn alone(&self) -> bool {
        matches!(
            self.changes.as_slice(),
            [Change::Database(DatabaseChange::Create { .. } | DatabaseChange::Drop { .. })]
        )
    }
}

/// What one part of the planner has to say.
#[derive(Debug, Default)]
struct Work {
    changes: Vec<Change>,
    beyond: Vec<Beyond>,
}

impl Work {
    fn beyond(&mut self, text: String, remedy: String) {
        self.beyond.push(Beyond { text, remedy });
    }
}

/// A claim's names, put together once.
#[derive(Debug)]
struct Names {
    database: String,
    read: String,
    write: String,
    admin: String,
    second_admin: String,
}

impl Names {
    fn new(key: &ClaimKey, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            read: key.role(Tier::Read),
            write: key.role(Tier::Write),
            admin: key.role(Tier::Admin),
            second_admin: key.second_login(Tier::Admin),
        }
    }
}

#[cfg(test)]
mod tests;
