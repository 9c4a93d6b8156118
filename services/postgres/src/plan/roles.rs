//! The three roles and their logins.

use pgtenant_model::{Side, Tier};

use super::standing::occupied;
use super::{Desired, Names, Refusal, Work};
use crate::change::{Attribute, Change, Object, ObjectChange, RoleChange};
use crate::comment::role_comment;
use crate::job::is_job;
use crate::observed::{Membership, Observed, RoleFacts};
use crate::sql::ident;
use crate::verifier::Verifier;

/// What has to be done so that every tier can log in and is nothing more than its tier.
pub(super) fn plan(desired: &Desired, observed: &Observed, names: &Names, work: &mut Work) -> Result<(), Refusal> {
    debug_assert_eq!(names.database, desired.database);
    // After all roles were made: from 16 on each makes the server collect the provisioner's memberships again.
    let mut comments = Vec::new();
    for tier in [Tier::Admin, Tier::Read, Tier::Write] {
        for side in [Side::A, Side::B] {
            of_login(desired, observed, tier, side, work, &mut comments)?;
        }
    }
    work.changes.append(&mut comments);
    Ok(())
}

fn of_login(
    desired: &Desired,
    observed: &Observed,
    tier: Tier,
    side: Side,
    work: &mut Work,
    comments: &mut Vec<Change>,
) -> Result<(), Refusal> {
    let (key, logins) = (&desired.key, desired.logins(tier));
    let (role, tier_role) = (key.login(tier, side), key.role(tier));
    let comment = role_comment(key, tier);
    let limit = desired.connection_limit.unwrap_or(-1);
    let in_use = side == logins.in_use;
    let password = desired.passwords.get(&tier).filter(|_| in_use);
    match observed.roles.get(&role) {
        None if side == Side::A || in_use => {
            let verifier = in_use.then(|| password.cloned().unwrap_or(Verifier::withheld()));
            let create = RoleChange::Create { role: role.clone(), connection_limit: limit, verifier };
            work.changes.push(Change::Role(create));
            if side == Side::B {
                let (login, member) = (role.clone(), role.clone());
                work.changes.push(Change::Role(RoleChange::AddMember { role: tier_role.clone(), member }));
                work.changes.push(Change::Role(RoleChange::TakeOn { login, role: tier_role }));
            }
            let object = Object::Role(role);
            comments.push(Change::Object(ObjectChange::Comment { object, text: comment }));
        }
        None => {}
        Some(facts) if side == Side::B && !belongs(facts, &tier_role, &comment) => {
            let fault = in_use.then(|| occupied(&role, facts.comment.as_deref()));
            return fault.map_or(Ok(()), Err);
        }
        Some(facts) => {
            let tier_role = (side == Side::B).then_some(tier_role.as_str());
            let subject = Subject { desired, observed, role: &role, facts, tier_role };
            subject.plan(limit, logins.open(side), &comment, password, work)?;
        }
    }
    Ok(())
}

/// A second login is the claim's when it says so or is in the tier's role; else it only looks like one.
pub(super) fn belongs(facts: &RoleFacts, tier_role: &str, comment: &str) -> bool {
    facts.comment.as_deref() == Some(comment)
        || (facts.comment.is_none() && facts.memberships.iter().any(|m| m.role == tier_role))
}

/// The end of a membership.
pub(super) fn remove_member(membership: &Membership, observed: &Observed) -> Change {
    let Membership { role, member, grantor, .. } = membership;
    let per_grantor = observed.server.version.has_membership_options();
    Change::Role(RoleChange::RemoveMember {
        role: role.clone(),
        member: member.clone(),
        grantor: per_grantor.then(|| grantor.clone()),
    })
}

/// A role that exists.
struct Subject<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    role: &'a str,
    facts: &'a RoleFacts,
    /// For a second login: the role that its sessions take on.
    tier_role: Option<&'a str>,
}

impl Subject<'_> {
    fn plan(
        &self,
        limit: i32,
        open: bool,
        comment: &str,
        password: Option<&Verifier>,
        work: &mut Work,
    ) -> Result<(), Refusal> {
        let role = self.role.to_owned();
        let mut changes = Vec::new();
        let attributes = self.attributes(limit, open, work);
        if !attributes.is_empty() {
            changes.push(Change::Role(RoleChange::Alter { role: role.clone(), attributes }));
        }
        if let Some(verifier) = password {
            changes.push(Change::Role(RoleChange::SetPassword { role: role.clone(), verifier: verifier.clone() }));
        }
        if self.facts.comment.as_deref() != Some(comment) {
            let object = Object::Role(role);
            changes.push(Change::Object(ObjectChange::Comment { object, text: comment.to_owned() }));
        }
        changes.extend(self.takes_on());
        if self.facts.manageable {
            work.changes.extend(changes);
        } else if !changes.is_empty() {
            self.out_of_reach(&changes, work)?;
        }
        self.memberships(work);
        Ok(())
    }

    /// Attributes that differ; those that only a superuser changes are said to be beyond the provisioner.
    fn attributes(&self, limit: i32, open: bool, work: &mut Work) -> Vec<Attribute> {
        let facts = self.facts;
        let expires = facts.valid_until.as_deref().is_some_and(|until| until != "infinity");
        let differing = [
            (open && !facts.can_login, Attribute::Login),
            (!open && facts.can_login, Attribute::NoLogin),
            (!facts.inherit, Attribute::Inherit),
            (facts.create_db, Attribute::NoCreateDb),
            (facts.create_role, Attribute::NoCreateRole),
            (facts.connection_limit != limit, Attribute::ConnectionLimit(limit)),
            (expires, Attribute::NoExpiry),
        ];
        let mut attributes: Vec<_> =
            differing.into_iter().filter_map(|(differs, want)| differs.then_some(want)).collect();
        for (differs, want) in [
            (facts.superuser, Attribute::NoSuperuser),
            (facts.replication, Attribute::NoReplication),
            (facts.bypass_rls, Attribute::NoBypassRls),
        ] {
            if differs && self.observed.server.superuser {
                attributes.push(want);
            } else if differs {
                work.beyond(
                    format!("role {:?} is not {want}, and only a superuser can change that", self.role),
                    format!("ALTER ROLE {} {want};", ident(self.role)),
                );
            }
        }
        attributes
    }

    /// `ALTER ROLE … SET role`: a tier's role acts as itself, its second login as the tier's role.
    fn takes_on(&self) -> Vec<Change> {
        let settings = &self.facts.role_settings;
        let acts_as = self.tier_role.unwrap_or(self.role);
        let login = self.role.to_owned();
        let mut changes = Vec::new();
        let global = settings.iter().find(|s| s.database.is_none()).map(|s| s.value.as_str());
        match (self.tier_role, global) {
            (Some(role), value) if value != Some(role) => {
                let role = role.to_owned();
                changes.push(Change::Role(RoleChange::TakeOn { login: login.clone(), role }));
            }
            (None, Some(value)) if value != acts_as => {
                let change = RoleChange::ResetTakeOn { login: login.clone(), database: None };
                changes.push(Change::Role(change));
            }
            _ => {}
        }
        let elsewhere = settings.iter().filter(|s| s.database.is_some() && s.value != acts_as);
        changes.extend(elsewhere.map(|setting| {
            let (login, database) = (login.clone(), setting.database.clone());
            Change::Role(RoleChange::ResetTakeOn { login, database })
        }));
        changes
    }

    fn memberships(&self, work: &mut Work) {
        let server = &self.observed.server;
        let second = self.second_login();
        let mut joined = self.tier_role.is_none();
        for membership in &self.facts.memberships {
            let Membership { role, member, admin, inherit, set, .. } = membership;
            if member == self.role {
                let whole = !admin && *inherit != Some(false) && *set != Some(false);
                if Some(role.as_str()) == self.tier_role && whole {
                    joined = true;
                } else {
                    self.remove(membership, work);
                }
            } else if *member != server.current_user
                && *member != server.session_user
                // Its entry is looked at from its own side.
                && Some(member) != second.as_ref()
                // It is there for as long as a restore or a dump takes.
                && !is_job(member)
            {
                self.remove(membership, work);
            }
        }
        if let (false, Some(role)) = (joined, self.tier_role) {
            let (role, member) = (role.to_owned(), self.role.to_owned());
            work.changes.push(Change::Role(RoleChange::AddMember { role, member }));
        }
    }

    fn second_login(&self) -> Option<String> {
        let key = &self.desired.key;
        let tier = Tier::ALL.into_iter().find(|tier| key.role(*tier) == self.role)?;
        let second = key.second_login(tier);
        let facts = self.observed.roles.get(&second)?;
        belongs(facts, self.role, &role_comment(key, tier)).then_some(second)
    }

    fn remove(&self, membership: &Membership, work: &mut Work) {
        let Membership { role, member, grantor, revocable, .. } = membership;
        let change = remove_member(membership, self.observed);
        if *revocable {
            // A membership within the claim is seen from both of its sides.
            if !work.changes.contains(&change) {
                work.changes.push(change);
            }
        } else {
            work.beyond(
                format!("{member:?} is in role {role:?} by grant of {grantor:?}, who alone can revoke it"),
                format!("{};", change.sql_withheld()),
            );
        }
    }

    /// The role can not be altered by the provisioner: on 16 and later that takes ADMIN OPTION.
    fn out_of_reach(&self, changes: &[Change], work: &mut Work) -> Result<(), Refusal> {
        let what = format!("role {:?} can not be altered by {:?}", self.role, self.observed.server.current_user);
        if self.facts.superuser {
            // Said already, with the statement that brings it back into reach.
            return Ok(());
        }
        let sql = if self.observed.server.version.has_membership_options() {
            let provisioner = ident(&self.observed.server.current_user);
            format!("GRANT {} TO {provisioner} WITH ADMIN OPTION;", ident(self.role))
        } else {
            let statements: Vec<_> = changes.iter().map(|c| format!("{};", c.sql_withheld())).collect();
            statements.join(" ")
        };
        if self.desired.adopt {
            return Err(Refusal::NeedsSuperuser { what, sql });
        }
        work.beyond(what, sql);
        Ok(())
    }
}
