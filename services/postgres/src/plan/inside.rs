//! Schemas, privileges and extensions within the database.

use std::collections::{BTreeMap, BTreeSet};

use pgtenant_model::{Side, Tier};

use super::acl::{self, Others};
use super::roles::belongs;
use super::{Beyond, Desired, Names, Place, Plan, Work, step};
use crate::change::{Change, InsideChange, Object, ObjectChange, Privilege, Relation, RoleChange};
use crate::comment::role_comment;
use crate::observed::{AclItem, Foreign, Inside, Observed, Owner, RelationKind};

/// Relations in one statement. A batch of them locks few rows of the catalogue at a time, and one that fails because a
/// tenant dropped a table meanwhile leaves the others done.
const CHUNK: usize = 200;

const READ_TABLES: &[Privilege] = &[Privilege::Select];
const WRITE_TABLES: &[Privilege] =
    &[Privilege::Select, Privilege::Insert, Privilege::Update, Privilege::Delete, Privilege::Truncate];
const READ_SEQUENCES: &[Privilege] = &[Privilege::Select];
const WRITE_SEQUENCES: &[Privilege] = &[Privilege::Select, Privilege::Usage];

/// What a tier gets on relations of the admin tier.
fn privileges(tier: Tier, kind: RelationKind) -> &'static [Privilege] {
    match (tier, kind) {
        (Tier::Read, RelationKind::Table) => READ_TABLES,
        (Tier::Read, RelationKind::Sequence) => READ_SEQUENCES,
        (Tier::Write, RelationKind::Table) => WRITE_TABLES,
        (Tier::Write, RelationKind::Sequence) => WRITE_SEQUENCES,
        // It owns them.
        (Tier::Admin, _) => &[],
    }
}

/// Adds what has to be done within the database, first what new objects depend on.
pub(super) fn plan(desired: &Desired, observed: &Observed, names: &Names, inside: &Inside, plan: &mut Plan) {
    let mut planner = Planner { desired, observed, names, inside, work: Work::default(), lent: BTreeSet::new() };
    for schema in std::iter::once("public").chain(desired.schemas.iter().map(String::as_str)) {
        planner.schema(schema);
    }
    planner.second_logins();
    plan.push(step::INSIDE, Place::Inside, planner.finish());
    for changes in planner.relations() {
        plan.push(step::RELATIONS, Place::Inside, changes);
    }
    // Last and each by itself: an extension that the server refuses keeps nothing else from being done.
    for changes in planner.extensions() {
        plan.push(step::EXTENSIONS, Place::Inside, changes);
    }
    plan.beyond.append(&mut planner.work.beyond);
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    names: &'a Names,
    inside: &'a Inside,
    work: Work,
    /// Roles whose privileges the changes that are being collected need.
    lent: BTreeSet<String>,
}

impl Planner<'_> {
    fn push(&mut self, change: Change) {
        self.work.changes.push(change);
    }

    /// The changes so far, between taking on the roles that they need and giving them back.
    fn finish(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.work.changes);
        let lent = std::mem::take(&mut self.lent);
        if changes.is_empty() {
            return changes;
        }
        let with_options = self.observed.server.version.has_membership_options();
        let borrow = |role: &String| Change::Role(RoleChange::Borrow { role: role.clone(), with_options });
        let give_back = |role: &String| Change::Role(RoleChange::GiveBack { role: role.clone() });
        lent.iter().map(borrow).chain(changes).chain(lent.iter().rev().map(give_back)).collect()
    }

    /// The next changes need the privileges of one of the claim's roles.
    fn act_for(&mut self, role: &str) {
        let usable = match self.observed.roles.get(role) {
            Some(facts) => facts.usable,
            None => self.observed.server.superuser,
        };
        if !usable {
            self.lent.insert(role.to_owned());
        }
    }

    /// The next changes need the privileges of somebody else; false: they can not be had.
    fn act_for_owner(&mut self, owner: &Owner) -> bool {
        if !owner.usable && owner.manageable {
            self.lent.insert(owner.name.clone());
        }
        owner.usable || owner.manageable
    }

    fn schema(&mut self, schema: &str) {
        let admin = self.names.admin.clone();
        let object = Object::Schema(schema.to_owned());
        let acl = match self.inside.schemas.get(schema) {
            None => {
                self.act_for(&admin);
                let owner = admin.clone();
                self.push(Change::Inside(InsideChange::CreateSchema { schema: schema.to_owned(), owner }));
                acl::of_new_schema(&admin)
            }
            Some(facts) if facts.owner.name == admin => facts.acl.clone(),
            Some(facts) => {
                let change = Change::Object(ObjectChange::Owner { object: object.clone(), owner: admin.clone() });
                if !self.may_take(&facts.owner) {
                    self.work.beyond(
                        format!("schema {schema:?} belongs to {:?}, not to {admin:?}", facts.owner.name),
                        format!("{};", change.sql_withheld()),
                    );
                    return;
                }
                self.act_for(&admin);
                self.push(change);
                acl::after_owner_change(&facts.acl, &facts.owner.name, &admin)
            }
        };
        let wanted: [(&str, &[Privilege]); 3] = [
            (&admin, &[Privilege::Create, Privilege::Usage]),
            (&self.names.read, &[Privilege::Usage]),
            (&self.names.write, &[Privilege::Usage]),
        ];
        let changes = acl::difference(&object, &admin, &acl, &wanted, Others::Keep);
        if !changes.is_empty() {
            self.act_for(&admin);
            self.work.changes.extend(changes);
        }
        self.default_privileges(schema, &admin);
        let second = self.names.second_admin.clone();
        if self.has_second_admin() {
            self.default_privileges(schema, &second);
        }
    }

    /// `pg_database_owner` is whoever owns the database, which is the provisioner by now.
    fn may_take(&mut self, owner: &Owner) -> bool {
        owner.name == "pg_database_owner" || self.act_for_owner(owner)
    }

    fn default_privileges(&mut self, schema: &str, owner: &str) {
        for tier in [Tier::Read, Tier::Write] {
            for kind in [RelationKind::Table, RelationKind::Sequence] {
                let to = self.desired.key.role(tier);
                let existing = self
                    .inside
                    .default_acls
                    .iter()
                    .filter(|d| d.owner == owner && d.schema == schema && d.kind == kind);
                let items: Vec<&AclItem> = existing.flat_map(|d| &d.acl).collect();
                let has = |privilege: &Privilege| {
                    items.iter().any(|item| {
                        item.grantee.as_deref() == Some(to.as_str()) && item.privilege == privilege.as_str()
                    })
                };
                let missing: Vec<_> = privileges(tier, kind).iter().copied().filter(|p| !has(p)).collect();
                if !missing.is_empty() {
                    self.act_for(owner);
                    self.push(Change::Inside(InsideChange::DefaultPrivileges {
                        owner: owner.to_owned(),
                        schema: schema.to_owned(),
                        kind,
                        privileges: missing,
                        to,
                    }));
                }
            }
        }
    }

    /// It acts as the tier's role unless it says `RESET ROLE`: what it makes then is to be granted like the rest.
    fn has_second_admin(&self) -> bool {
        if self.desired.logins(Tier::Admin).in_use == Side::B {
            return true;
        }
        let comment = role_comment(&self.desired.key, Tier::Admin);
        let second = self.observed.roles.get(&self.names.second_admin);
        second.is_some_and(|facts| belongs(facts, &self.names.admin, &comment))
    }

    /// What a second login made while it did not act as its tier's role.
    fn second_logins(&mut self) {
        for tier in Tier::ALL {
            let (from, to) = (self.desired.key.second_login(tier), self.desired.key.role(tier));
            let comment = role_comment(&self.desired.key, tier);
            let ours = self.observed.roles.get(&from).is_some_and(|facts| belongs(facts, &to, &comment));
            if !ours || !self.inside.owned_by_second.contains_key(&from) {
                continue;
            }
            self.act_for(&from);
            self.act_for(&to);
            self.push(Change::Inside(InsideChange::ReassignOwned { from, to }));
        }
    }

    fn extensions(&mut self) -> Vec<Vec<Change>> {
        let mut each = Vec::new();
        for extension in &self.desired.extensions {
            if self.inside.extensions.contains(extension) {
                continue;
            }
            if self.observed.extensions_available.contains(extension) {
                let (extension, as_role) = (extension.clone(), self.names.admin.clone());
                self.act_for(&as_role);
                self.push(Change::Inside(InsideChange::CreateExtension { extension, as_role }));
                each.push(self.finish());
            } else {
                self.work.beyond.push(Beyond {
                    text: format!("extension {extension:?} is not on the server"),
                    remedy: "install its package on every server of the cluster, or take it out of the claim"
                        .to_owned(),
                });
            }
        }
        each
    }

    /// Relations that are to change owner or are granted too little, in chunks.
    fn relations(&mut self) -> Vec<Vec<Change>> {
        let inside = self.inside;
        let mut grants: BTreeMap<(RelationKind, Tier), Vec<Relation>> = BTreeMap::new();
        for lacking in &inside.lacking {
            let relation = Relation { schema: lacking.schema.clone(), name: lacking.name.clone() };
            for (lacks, tier) in [(lacking.read, Tier::Read), (lacking.write, Tier::Write)] {
                if lacks {
                    grants.entry((lacking.kind, tier)).or_default().push(relation.clone());
                }
            }
        }
        let mut chunks = Vec::new();
        if self.desired.adopt {
            let (within, beyond): (Vec<_>, Vec<_>) =
                inside.foreign.iter().partition(|foreign| foreign.owner.usable || foreign.owner.manageable);
            beyond.into_iter().for_each(|foreign| self.leave(foreign));
            chunks = self.take(&within);
            for foreign in within {
                let relation = Relation { schema: foreign.schema.clone(), name: foreign.name.clone() };
                for tier in [Tier::Read, Tier::Write] {
                    grants.entry((foreign.kind, tier)).or_default().push(relation.clone());
                }
            }
        }
        for ((kind, tier), relations) in grants {
            for part in relations.chunks(CHUNK) {
                self.act_for(&self.names.admin);
                self.push(Change::Object(ObjectChange::Grant {
                    privileges: privileges(tier, kind).to_vec(),
                    object: Object::Relations(kind, part.to_vec()),
                    to: vec![self.desired.key.role(tier)],
                }));
                chunks.push(self.finish());
            }
        }
        chunks
    }

    /// Relations that become the admin tier's.
    fn take(&mut self, relations: &[&Foreign]) -> Vec<Vec<Change>> {
        let mut by_owner: BTreeMap<&str, (&Owner, Vec<Relation>)> = BTreeMap::new();
        // A linked sequence goes with its table.
        for foreign in relations.iter().filter(|foreign| !foreign.linked) {
            let relation = Relation { schema: foreign.schema.clone(), name: foreign.name.clone() };
            let of_owner = by_owner.entry(&foreign.owner.name).or_insert((&foreign.owner, Vec::new()));
            of_owner.1.push(relation);
        }
        let mut chunks = Vec::new();
        for (owner, relations) in by_owner.into_values() {
            for part in relations.chunks(CHUNK) {
                self.act_for_owner(owner);
                self.act_for(&self.names.admin);
                // ALTER TABLE takes sequences too.
                let object = Object::Relations(RelationKind::Table, part.to_vec());
                let owner = self.names.admin.clone();
                self.push(Change::Object(ObjectChange::Owner { object, owner }));
                chunks.push(self.finish());
            }
        }
        chunks
    }

    /// A relation whose owner is out of the provisioner's reach.
    fn leave(&mut self, foreign: &Foreign) {
        let relation = Relation { schema: foreign.schema.clone(), name: foreign.name.clone() };
        let object = Object::Relations(foreign.kind, vec![relation]);
        let owner = self.names.admin.clone();
        let text = format!("{object} belongs to {:?}, from whom the provisioner can not take it", foreign.owner.name);
        let change = Change::Object(ObjectChange::Owner { object, owner });
        self.work.beyond(text, format!("{};", change.sql_withheld()));
    }
}
