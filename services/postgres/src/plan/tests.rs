//! Rules and laws of the planner, without a server.

use proptest::prelude::*;

use super::*;
use crate::change::{InsideChange, Object, ObjectChange};
use crate::comment::{database_comment, role_comment};
use crate::observed::{
    AclItem, DefaultAcl, Elsewhere, HALF_MADE_LIMIT, Owner, RelationKind, RoleFacts, SchemaFacts, ServerFacts,
};
use crate::version::ServerVersion;

const PROVISIONER: &str = "pgtenant";

fn key() -> ClaimKey {
    ClaimKey::new("a", "b").unwrap()
}

fn desired() -> Desired {
    Desired::new(key(), &ClaimSpec::default())
}

fn empty() -> Observed {
    Observed {
        server: ServerFacts {
            version: ServerVersion::new(150_018),
            clock: chrono::DateTime::UNIX_EPOCH,
            in_recovery: false,
            current_user: PROVISIONER.into(),
            session_user: "prov_a".into(),
            superuser: false,
            maintenance_database: "postgres".into(),
            has_template: true,
        },
        database: None,
        roles: BTreeMap::new(),
        extensions_available: BTreeSet::new(),
        inside: None,
    }
}

fn role(comment: Option<String>) -> RoleFacts {
    RoleFacts {
        oid: 16_400,
        can_login: true,
        superuser: false,
        create_db: false,
        create_role: false,
        inherit: true,
        replication: false,
        bypass_rls: false,
        connection_limit: -1,
        valid_until: None,
        comment,
        manageable: true,
        usable: false,
        memberships: Vec::new(),
        role_settings: Vec::new(),
        elsewhere: Vec::new(),
    }
}

fn item(grantee: &str, grantor: &str, privilege: &str) -> AclItem {
    AclItem { grantee: Some(grantee.into()), grantor: grantor.into(), privilege: privilege.into(), grantable: false }
}

/// As it is when nothing is left to do.
fn settled() -> Observed {
    let mut observed = empty();
    for tier in Tier::ALL {
        observed.roles.insert(key().role(tier), role(Some(role_comment(&key(), tier))));
    }
    let mut database = DatabaseFacts::fresh(PROVISIONER);
    database.acl.retain(|item| item.grantee.is_some());
    for privilege in ["CONNECT", "CREATE", "TEMPORARY"] {
        database.acl.push(item("a-b-admin", PROVISIONER, privilege));
    }
    database.acl.extend(["a-b-read", "a-b-write"].map(|name| item(name, PROVISIONER, "CONNECT")));
    database.comment = Some(database_comment(&key()));
    database.allow_connections = true;
    database.connection_limit = -1;
    observed.database = Some(database);

    let owner = Owner { name: "a-b-admin".into(), usable: false, manageable: true };
    let acl = ["a-b-admin", "a-b-read", "a-b-write"].map(|name| item(name, "a-b-admin", "USAGE"));
    let mut acl: Vec<_> = acl.into();
    acl.push(item("a-b-admin", "a-b-admin", "CREATE"));
    let public = SchemaFacts { owner, acl };
    let default_acl = |kind, read: &[&str], write: &[&str]| DefaultAcl {
        owner: "a-b-admin".into(),
        schema: "public".into(),
        kind,
        acl: read
            .iter()
            .map(|privilege| item("a-b-read", "a-b-admin", privilege))
            .chain(write.iter().map(|privilege| item("a-b-write", "a-b-admin", privilege)))
            .collect(),
    };
    observed.inside = Some(Inside {
        schemas: BTreeMap::from([("public".into(), public)]),
        default_acls: vec![
            default_acl(RelationKind::Table, &["SELECT"], &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]),
            default_acl(RelationKind::Sequence, &["SELECT"], &["SELECT", "USAGE"]),
        ],
        extensions: BTreeSet::from(["plpgsql".into()]),
        ..Inside::default()
    });
    observed
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.changes().map(Change::text).collect()
}

fn database(observed: &mut Observed) -> &mut DatabaseFacts {
    observed.database.as_mut().unwrap()
}

#[test]
fn a_second_login_is_made_where_it_is_in_use_and_a_strangers_is_not_taken() {
    let logins = BTreeMap::from([(Tier::Write, Logins { in_use: Side::B, both: true })]);
    let desired = Desired { logins, ..desired() };
    let made = plan(&desired, &settled()).unwrap();
    let texts: Vec<_> = made.changes().map(Change::text).collect();
    let second = "a-b-write-b";
    assert_eq!(
        texts,
        [
            format!("create role {second:?}"),
            format!("add {second:?} to role \"a-b-write\""),
            format!("let sessions of {second:?} act as \"a-b-write\""),
            format!("comment on role {second:?}: \"pgtenant: a/b write\""),
        ]
    );
    assert_eq!(made.roles_without_password(), BTreeSet::from([second]));
    let mut occupied = settled();
    occupied.roles.insert(second.to_owned(), role(Some("somebody's".to_owned())));
    let refusal = plan(&desired, &occupied).unwrap_err();
    assert!(refusal.to_string().contains(second), "{refusal}");
    // While it is not in use it is none of the claim's business.
    assert!(plan(&super::tests::desired(), &occupied).unwrap().is_empty());
}

#[test]
fn nothing_is_done_where_all_is_as_it_should_be() {
    let plan = plan(&desired(), &settled()).unwrap();
    assert!(plan.is_empty() && plan.beyond.is_empty(), "{plan:?}");
}

#[test]
fn a_database_is_made_in_three_batches() {
    let plan = plan(&desired(), &empty()).unwrap();
    let batches: Vec<_> = plan.batches.iter().map(|b| (b.step, b.place, b.alone())).collect();
    assert_eq!(
        batches,
        [
            (step::CREATE_DATABASE, Place::Maintenance, true),
            (step::ROLES, Place::Maintenance, false),
            (step::INSIDE, Place::Inside, false),
        ]
    );
    let roles = &plan.batches[1].changes;
    // Nobody can enter before all else is done.
    assert_eq!(roles.last().unwrap().text(), "allow connections to database \"a-b\"");
    let report = plan.report();
    assert_eq!(report.len(), plan.changes().count());
    assert!(report.iter().all(|r| !r.sql.contains("SCRAM")));
    assert_eq!(
        report[0].sql,
        "CREATE DATABASE \"a-b\" TEMPLATE \"template0\" ALLOW_CONNECTIONS false CONNECTION LIMIT 1073741789;"
    );
    assert_eq!(report.last().unwrap().database.as_deref(), Some("a-b"));
    assert_eq!(plan.roles_without_password().len(), 3);
}

#[test]
fn a_half_made_database_is_gone_on_with() {
    let mut observed = empty();
    observed.database = Some(DatabaseFacts::fresh(PROVISIONER));
    let rest = plan(&desired(), &observed).unwrap();
    let whole = plan(&desired(), &empty()).unwrap();
    assert_eq!(rest.batches, whole.batches[1..]);
    // Somebody else's is not.
    database(&mut observed).owner.name = "other".into();
    assert!(matches!(plan(&desired(), &observed), Err(Refusal::Occupied { .. })));
    // Nor is one that somebody closed, though it is the provisioner's.
    database(&mut observed).owner.name = PROVISIONER.into();
    database(&mut observed).connection_limit = -1;
    assert!(matches!(plan(&desired(), &observed), Err(Refusal::Occupied { .. })));
    assert!(plan_drop(&key(), &observed).unwrap().is_empty());
}

#[test]
fn what_is_left_of_an_interrupted_drop_is_dropped_and_made_again() {
    let mut observed = settled();
    database(&mut observed).connection_limit = -2;
    let made = plan(&desired(), &observed).unwrap();
    assert_eq!(made.batches[0].step, step::DROP_DATABASE);
    assert_eq!(made.batches[1].step, step::CREATE_DATABASE);
    // Of a half-made one too.
    let mut never_open = empty();
    never_open.database = Some(DatabaseFacts { connection_limit: -2, ..DatabaseFacts::fresh(PROVISIONER) });
    assert_eq!(plan(&desired(), &never_open).unwrap().batches[0].step, step::DROP_DATABASE);
    database(&mut observed).comment = Some("other".into());
    let adopt = Desired { adopt: true, ..desired() };
    assert!(matches!(plan(&adopt, &observed), Err(Refusal::Occupied { .. })));
}

#[test]
fn a_server_that_was_not_prepared_is_refused() {
    let mut observed = empty();
    observed.server.has_template = false;
    let refusal = plan(&desired(), &observed).unwrap_err();
    assert!(refusal.to_string().ends_with("run the bootstrap script"), "{refusal}");
    observed.server.has_template = true;
    observed.server.version = ServerVersion::new(130_020);
    let refusal = plan(&desired(), &observed).unwrap_err();
    assert_eq!(refusal.to_string(), "PostgreSQL 13.20 is not supported: use 14 to 18");
}

#[test]
fn two_claims_that_mean_one_database_do_not_share_it() {
    let (first, second) = (ClaimKey::new("a-b", "c").unwrap(), ClaimKey::new("a", "b-c").unwrap());
    let mut observed = settled();
    database(&mut observed).comment = Some(database_comment(&first));
    let desired = Desired { adopt: true, ..Desired::new(second.clone(), &ClaimSpec::default()) };
    let refusal = plan(&desired, &observed).unwrap_err();
    assert_eq!(refusal.to_string(), "database \"a-b-c\" belongs to another claim: choose another name");
    let removal = plan_drop(&second, &observed).unwrap();
    assert!(removal.is_empty(), "{removal:?}");
}

#[test]
fn a_role_that_is_somebody_elses_is_refused() {
    let mut observed = empty();
    observed.roles.insert("a-b-write".into(), role(Some("the accountants'".into())));
    let refusal = plan(&desired(), &observed).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "role \"a-b-write\" exists and is not this claim's (owner: none; comment: \"the accountants'\"): \
         adopt it, or choose another name"
    );
    let removal = plan_drop(&key(), &observed).unwrap();
    assert!(removal.is_empty() && removal.beyond.len() == 1, "{removal:?}");
}

#[test]
fn roles_that_others_granted_something_are_put_aside_and_not_named_after_a_database() {
    let mut observed = settled();
    let granted = |database: &str| Elsewhere { database: Some(database.into()), owned: false };
    let read = observed.roles.get_mut("a-b-read").unwrap();
    read.elsewhere = vec![granted("theirs"), granted("postgres")];
    let removal = plan_drop(&key(), &observed).unwrap();
    let sql: Vec<_> = removal.batches.last().unwrap().changes.iter().map(Change::sql_withheld).collect();
    assert_eq!(
        sql,
        [
            "DROP OWNED BY \"a-b-read\" CASCADE",
            "REVOKE \"a-b-read\" FROM CURRENT_USER",
            "DROP ROLE IF EXISTS \"a-b-write\"",
            "DROP ROLE IF EXISTS \"a-b-admin\"",
            "ALTER ROLE \"a-b-read\" NOLOGIN PASSWORD NULL; COMMENT ON ROLE \"a-b-read\" IS 'pgtenant: dropped role \
             \"a-b-read\"; it goes when the privileges are gone that it was given in other databases'; \
             ALTER ROLE \"a-b-read\" RENAME TO \"pgtenant_dropped_16400\"",
        ]
    );
    assert!(removal.report().iter().all(|change| !format!("{} {}", change.text, change.sql).contains("theirs")));
    observed.roles.get_mut("a-b-read").unwrap().elsewhere[0].owned = true;
    assert!(matches!(plan_drop(&key(), &observed), Err(Refusal::NeedsSuperuser { .. })));
}

#[test]
fn a_lost_comment_is_written_again() {
    let mut observed = settled();
    database(&mut observed).comment = None;
    observed.roles.get_mut("a-b-read").unwrap().comment = None;
    let plan = plan(&desired(), &observed).unwrap();
    assert_eq!(
        texts(&plan),
        ["comment on role \"a-b-read\": \"pgtenant: a/b read\"", "comment on database \"a-b\": \"pgtenant: a/b\"",]
    );
}

#[test]
fn what_only_a_superuser_can_undo_keeps_nothing_else_from_being_done() {
    let mut observed = settled();
    let read = observed.roles.get_mut("a-b-read").unwrap();
    read.superuser = true;
    read.manageable = false;
    read.connection_limit = 3;
    observed.roles.get_mut("a-b-write").unwrap().connection_limit = 3;
    let plan = plan(&desired(), &observed).unwrap();
    assert_eq!(texts(&plan), ["alter role \"a-b-write\": CONNECTION LIMIT -1"]);
    let remedies: Vec<_> = plan.beyond.iter().map(|b| b.remedy.as_str()).collect();
    assert_eq!(remedies, ["ALTER ROLE \"a-b-read\" NOSUPERUSER;"]);
}

#[test]
fn extensions_are_made_last_and_as_the_tenant() {
    let mut observed = settled();
    observed.extensions_available.insert("hstore".into());
    let extensions = vec!["hstore".into(), "nosuch".into()];
    let plan = plan(&Desired { extensions, ..desired() }, &observed).unwrap();
    assert_eq!(plan.batches.last().unwrap().step, step::EXTENSIONS);
    let sql: Vec<_> = plan.changes().map(Change::sql_withheld).collect();
    assert!(sql[1].starts_with("SET ROLE \"a-b-admin\";"), "{sql:?}");
    assert_eq!(plan.beyond[0].text, "extension \"nosuch\" is not on the server");
}

#[test]
fn passwords_are_set_only_where_they_are_given() {
    let passwords = BTreeMap::from([(Tier::Write, Verifier::of(&"x".into()))]);
    let plan = plan(&Desired { passwords, ..desired() }, &settled()).unwrap();
    assert_eq!(texts(&plan), ["set the password of role \"a-b-write\""]);
    assert!(plan.roles_without_password().is_empty());
}

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
