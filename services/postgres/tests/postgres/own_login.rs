//! A login of the provisioner replaces its own password.

use pgtenant_postgres::{OwnLogin, Verifier, acts_as, generate_password};
use pgtenant_testkit::unique;
use secrecy::SecretString;

use crate::world::World;

#[tokio::test]
async fn a_login_replaces_its_own_password_on_every_version() {
    for major in 14..=18 {
        let world = World::of_major(major).await;
        let (group, login) = (unique("group"), unique("own"));
        for sql in [
            format!("create role \"{group}\" nologin"),
            format!("grant connect on database postgres to \"{group}\""),
            format!("create role \"{login}\" login password 'the first one'"),
            format!("grant \"{group}\" to \"{login}\""),
            format!("alter role \"{login}\" set role = '{group}'"),
        ] {
            world.sql("postgres", &sql).await;
        }
        let take_turn = async |password: &SecretString| OwnLogin::take_turn(&world.server, &login, password).await;
        let first = SecretString::from("the first one");
        let mut turn = take_turn(&first).await.unwrap().expect("nobody else has it");
        assert!(take_turn(&first).await.unwrap().is_none(), "one at a time");
        let second = generate_password(&mut rand::rng());
        turn.set_password(&Verifier::of(&second)).await.unwrap();
        assert!(turn.still_has_it().await, "its session goes on");
        let refused = take_turn(&first).await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("28P01"), "PostgreSQL {major}: {refused}");
        let mut proof = world.server.log_in("postgres", &login, &second).await.unwrap();
        assert_eq!(acts_as(&mut proof).await.unwrap(), group, "and still acts as its group");
    }
}
