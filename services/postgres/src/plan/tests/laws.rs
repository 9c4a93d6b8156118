//! What holds of every plan, whatever the facts are.

use super::*;

/// Facts of any kind about a database and roles of the claim's names.
fn anything() -> impl Strategy<Value = Observed> {
    let comment = prop_oneof![
        Just(None),
        Just(Some(database_comment(&key()))),
        Just(Some("pgtenant: a-b/x".to_owned())),
        Just(Some("somebody's".to_owned())),
    ];
    let owner = prop_oneof![Just(PROVISIONER), Just("somebody")];
    let database = (comment, owner, any::<[bool; 3]>(), prop_oneof![Just(-1), Just(-2), Just(HALF_MADE_LIMIT)]);
    let roles = proptest::collection::vec((0..6usize, 0..4usize, any::<[bool; 4]>()), 0..6);
    (proptest::option::of(database), roles, any::<[bool; 3]>()).prop_map(|(database, roles, flags)| {
        let mut observed = if flags[0] { settled() } else { empty() };
        observed.server.version = ServerVersion::new(if flags[1] { 180_004 } else { 140_023 });
        observed.database = database.map(|(comment, owner, [open, usable, manageable], limit)| {
            let mut facts = DatabaseFacts::fresh(owner);
            facts.owner = Owner { name: owner.into(), usable, manageable };
            facts.comment = comment;
            facts.allow_connections = open;
            facts.connection_limit = limit;
            facts.acl.push(item("somebody", owner, "CONNECT"));
            facts
        });
        for (name, comment, [manageable, usable, create_db, stranger]) in roles {
            let tier = Tier::ALL[name % 3];
            let name = if name < 3 { key().role(tier) } else { key().second_login(tier) };
            let comment = match comment {
                0 => None,
                1 => Some(role_comment(&key(), tier)),
                2 => Some("pgtenant: a-b/x read".to_owned()),
                _ => Some("somebody's".to_owned()),
            };
            let mut facts = RoleFacts { manageable, usable, create_db, ..role(comment) };
            if stranger {
                facts.memberships.push(crate::observed::Membership {
                    role: name.clone(),
                    member: "somebody".into(),
                    grantor: "root".into(),
                    admin: false,
                    inherit: None,
                    set: None,
                    revocable: usable,
                });
            }
            observed.roles.insert(name, facts);
        }
        observed
    })
}

/// What a change changes. Who gains or loses a privilege is not changed by it.
fn changed(change: &Change) -> Vec<String> {
    let of_object = |object: &Object| match object {
        Object::Database(name) | Object::Role(name) => vec![name.clone()],
        Object::Schema(_) | Object::Relations(..) => Vec::new(),
    };
    match change {
        Change::Database(
            DatabaseChange::Create { database, .. }
            | DatabaseChange::Drop { database }
            | DatabaseChange::AllowConnections { database }
            | DatabaseChange::Close { database }
            | DatabaseChange::EndSessions { database }
            | DatabaseChange::Unlimit { database }
            | DatabaseChange::Reset { database, .. },
        ) => vec![database.clone()],
        Change::Database(DatabaseChange::Rename { from, to }) => vec![from.clone(), to.clone()],
        Change::Role(
            RoleChange::Create { role, .. }
            | RoleChange::Alter { role, .. }
            | RoleChange::SetPassword { role, .. }
            | RoleChange::Drop { role }
            | RoleChange::PutAside { role, .. }
            | RoleChange::DropOwned { role }
            | RoleChange::AddMember { role, .. }
            | RoleChange::RemoveMember { role, .. },
        ) => vec![role.clone()],
        // The provisioner's own memberships.
        Change::Role(RoleChange::Borrow { .. } | RoleChange::GiveBack { .. }) => Vec::new(),
        Change::Role(RoleChange::TakeOn { login, .. } | RoleChange::ResetTakeOn { login, .. }) => {
            vec![login.clone()]
        }
        Change::Object(
            ObjectChange::Comment { object, .. }
            | ObjectChange::Owner { object, .. }
            | ObjectChange::Grant { object, .. }
            | ObjectChange::Revoke { object, .. },
        ) => of_object(object),
        Change::Inside(InsideChange::CreateSchema { owner, .. } | InsideChange::DefaultPrivileges { owner, .. }) => {
            vec![owner.clone()]
        }
        Change::Inside(InsideChange::CreateExtension { as_role, .. }) => vec![as_role.clone()],
        Change::Inside(InsideChange::ReassignOwned { from, to }) => vec![from.clone(), to.clone()],
    }
}

fn own_names() -> BTreeSet<String> {
    let roles = Tier::ALL.into_iter().flat_map(|t| [key().role(t), key().second_login(t)]);
    roles.chain([key().database()]).collect()
}

proptest! {
    #[test]
    fn only_what_bears_the_claims_names_is_changed(
        observed in anything(),
        adopt in any::<bool>(),
        second in any::<[bool; 3]>(),
        both in any::<[bool; 3]>(),
    ) {
        let in_use = second.map(|second| if second { Side::B } else { Side::A });
        let logins = in_use.into_iter().zip(both).map(|(in_use, both)| Logins { in_use, both });
        let desired = Desired { adopt, logins: Tier::ALL.into_iter().zip(logins).collect(), ..desired() };
        let plans = [plan(&desired, &observed), plan_drop(&key(), &observed)];
        for change in plans.iter().flatten().flat_map(Plan::changes) {
            for name in changed(change) {
                prop_assert!(own_names().contains(&name), "{} in {}", name, change.text());
            }
        }
    }

    #[test]
    fn nothing_is_dropped_that_is_not_the_claims(observed in anything(), adopt in any::<bool>()) {
        let desired = Desired { adopt, ..desired() };
        let theirs = |comment: &Option<String>| {
            comment.as_ref().is_some_and(|text| !text.starts_with("pgtenant: a/b"))
        };
        let removal = plan_drop(&key(), &observed);
        for change in removal.iter().flat_map(Plan::changes) {
            match change {
                Change::Database(DatabaseChange::Drop { .. }) => {
                    let facts = observed.database.as_ref().unwrap();
                    prop_assert!(!theirs(&facts.comment));
                    prop_assert!(facts.comment.is_some() || facts.owner.name == PROVISIONER);
                    let known = observed.roles.contains_key("a-b-admin") || facts.connection_limit != -1;
                    prop_assert!(facts.comment.is_some() || known);
                }
                Change::Role(
                    RoleChange::Drop { role } | RoleChange::PutAside { role, .. } | RoleChange::DropOwned { role },
                ) => {
                    prop_assert!(!theirs(&observed.roles[role].comment));
                }
                _ => {}
            }
        }
        let made = plan(&desired, &observed);
        for change in made.iter().flat_map(Plan::changes) {
            let drops_role =
                matches!(change, Change::Role(RoleChange::Drop { .. } | RoleChange::PutAside { .. } | RoleChange::DropOwned { .. }));
            prop_assert!(!drops_role, "{}", change.text());
            if matches!(change, Change::Database(DatabaseChange::Drop { .. })) {
                let facts = observed.database.as_ref().unwrap();
                prop_assert!(facts.is_invalid() && !theirs(&facts.comment));
            }
        }
    }

    #[test]
    fn what_is_borrowed_is_given_back(observed in anything(), adopt in any::<bool>()) {
        let desired = Desired { adopt, ..desired() };
        for batch in plan(&desired, &observed).iter().flat_map(|plan| &plan.batches) {
            let mut lent = Vec::new();
            for change in &batch.changes {
                match change {
                    Change::Role(RoleChange::Borrow { role, .. }) => lent.push(role),
                    Change::Role(RoleChange::GiveBack { role }) => prop_assert_eq!(lent.pop(), Some(role)),
                    _ => {}
                }
            }
            prop_assert!(lent.is_empty());
        }
    }

    #[test]
    fn no_report_holds_a_verifier(observed in anything()) {
        let passwords = Tier::ALL.map(|tier| (tier, Verifier::of(&"hunter2".into()))).into();
        if let Ok(plan) = plan(&Desired { passwords, ..desired() }, &observed) {
            let shown = format!("{plan:?} {:?}", plan.report());
            prop_assert!(!shown.contains("SCRAM") && !shown.contains("hunter2"));
        }
    }
}
