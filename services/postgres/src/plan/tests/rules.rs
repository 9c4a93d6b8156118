//! What is planned of which facts.

use super::*;

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
