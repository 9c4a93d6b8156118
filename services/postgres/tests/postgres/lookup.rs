//! What PgBouncer may look up, on every version.

use pgtenant_model::Tier;
use pgtenant_postgres::{Bootstrap, GROUP, LOOKUP_DATABASE, Verifier, bootstrap, generate_password};
use pgtenant_testkit::unique;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions as _, PgConnection};

use crate::world::{Tenant, World, run, sqlstate};

struct Lookup {
    login: String,
    password: SecretString,
}

impl Lookup {
    /// A login of PgBouncer's own, made several times.
    async fn made(world: &World) -> Self {
        let (login, password) = (unique("pgbouncer"), generate_password(&mut rand::rng()));
        let wanted = Bootstrap {
            group: GROUP.into(),
            logins: Vec::new(),
            close_to_public: true,
            pgbouncer: Some((login.clone(), Verifier::of(&password))),
            logical_replication: false,
        };
        // It exists while PUBLIC may connect to `postgres`, and is given nothing for it when that is closed.
        for close_to_public in [false, true, true] {
            let wanted = Bootstrap { close_to_public, ..wanted.clone() };
            bootstrap(&world.as_superuser().server, &wanted).await.unwrap();
        }
        Self { login, password }
    }

    async fn connect(&self, world: &World, database: &str) -> sqlx::Result<PgConnection> {
        let options = world.superuser.options.clone().username(&self.login).password(self.password.expose_secret());
        options.database(database).connect().await
    }

    /// What it is told of a role.
    async fn ask(&self, world: &World, role: &str) -> Option<(String, String)> {
        let mut session = self.connect(world, LOOKUP_DATABASE).await.unwrap();
        let asked = "SELECT uname, phash FROM pgbouncer.user_lookup($1)";
        sqlx::query_as(asked).bind(role).fetch_optional(&mut session).await.unwrap()
    }

    async fn answers(&self, tenant: &Tenant<'_>, tier: Tier) -> bool {
        self.ask(tenant.world, &tenant.role(tier)).await.is_some()
    }
}

pub(crate) async fn pgbouncer_is_told_of_tenants_alone(major: u32) {
    let world = World::of_major(major).await;
    let lookup = Lookup::made(&world).await;
    let tenant = world.tenant();
    tenant.create().await;
    let (read, write) = (tenant.role(Tier::Read), tenant.role(Tier::Write));
    let stored = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    for role in [&read, &write] {
        let verifier: String =
            sqlx::query_scalar(stored).bind(role).fetch_one(&mut world.root("postgres").await).await.unwrap();
        assert_eq!(lookup.ask(&world, role).await, Some((role.clone(), verifier)));
    }
    let others = [
        &tenant.role(Tier::Admin),
        "prov_a",
        GROUP,
        &world.superuser.username,
        &lookup.login,
        "nobody",
        "",
        "pg_monitor",
    ];
    for role in others {
        assert_eq!(lookup.ask(&world, role).await, None, "{role}");
    }

    let manager = unique("manager");
    world.sql("postgres", &format!("CREATE ROLE \"{manager}\" CREATEROLE")).await;
    // What makes a login more than a tenant's, or none, and back.
    let alter = |what: &str| format!("ALTER ROLE \"{write}\" {what}");
    for (made, undone) in [
        (alter("NOLOGIN"), alter("LOGIN")),
        (alter("VALID UNTIL '2020-01-01'"), alter("VALID UNTIL 'infinity'")),
        (alter("SUPERUSER"), alter("NOSUPERUSER")),
        (alter("CREATEROLE"), alter("NOCREATEROLE")),
        (alter("CREATEDB"), alter("NOCREATEDB")),
        (alter("REPLICATION"), alter("NOREPLICATION")),
        (alter("BYPASSRLS"), alter("NOBYPASSRLS")),
        (format!("GRANT \"{manager}\" TO \"{write}\""), format!("REVOKE \"{manager}\" FROM \"{write}\"")),
        (format!("GRANT pg_read_all_data TO \"{write}\""), format!("REVOKE pg_read_all_data FROM \"{write}\"")),
        (
            format!("COMMENT ON ROLE \"{write}\" IS 'pgtenant: other/claim write'"),
            format!("COMMENT ON ROLE \"{write}\" IS 'pgtenant: {} write'", tenant.desired.key),
        ),
        (
            format!("COMMENT ON ROLE \"{write}\" IS 'mine'"),
            format!("COMMENT ON ROLE \"{write}\" IS 'pgtenant: {} write'", tenant.desired.key),
        ),
    ] {
        world.sql("postgres", &made).await;
        assert!(!lookup.answers(&tenant, Tier::Write).await, "{made}");
        world.sql("postgres", &undone).await;
        assert!(lookup.answers(&tenant, Tier::Write).await, "{undone}");
    }
    world.sql("postgres", &format!("SET password_encryption = md5; {}", alter("PASSWORD 'x'"))).await;
    assert!(!lookup.answers(&tenant, Tier::Write).await, "an MD5 password is one that can be used by who reads it");
    world.sql("postgres", &format!("DROP ROLE \"{manager}\"")).await;
    tenant.drop().await;
    assert_eq!(lookup.ask(&world, &read).await, None);
}

pub(crate) async fn the_lookup_is_pgbouncers_alone(major: u32) {
    let world = World::of_major(major).await;
    let lookup = Lookup::made(&world).await;
    let tenant = world.tenant();
    tenant.create().await;
    // Nobody else is let in, and nobody else may run it; not even the provisioner.
    let asked = "SELECT * FROM pgbouncer.user_lookup('x')";
    for options in Tier::ALL.map(|tier| tenant.options(tier)) {
        assert_eq!(sqlstate(options.database(LOOKUP_DATABASE).connect().await.map(drop)), "42501");
    }
    let refused = world.server.inside(LOOKUP_DATABASE).await.map(drop).unwrap_err();
    assert_eq!(refused.sqlstate(), Some("42501"), "{refused}");
    let mut root = world.root(LOOKUP_DATABASE).await;
    for role in [tenant.role(Tier::Admin).as_str(), GROUP, "prov_a"] {
        run(&mut root, &format!("SET ROLE \"{role}\"")).await.unwrap();
        assert_eq!(sqlstate(run(&mut root, asked).await), "42501", "{role}");
        run(&mut root, "RESET ROLE").await.unwrap();
    }

    // Its login can make nothing there that the function might find, and comes in nowhere else.
    let mut session = lookup.connect(&world, LOOKUP_DATABASE).await.unwrap();
    run(&mut session, asked).await.unwrap();
    for sql in [
        "SELECT * FROM pg_authid",
        "CREATE TABLE public.x ()",
        "CREATE TEMPORARY TABLE pg_authid ()",
        "CREATE SCHEMA x",
        "CREATE FUNCTION pgbouncer.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION pgbouncer.user_lookup(text) RESET search_path",
    ] {
        assert_eq!(sqlstate(run(&mut session, sql).await), "42501", "{sql}");
    }
    for database in [tenant.database().as_str(), "postgres", "template1"] {
        assert_eq!(sqlstate(lookup.connect(&world, database).await.map(drop)), "42501", "{database}");
    }
    // A role that is something else already is not made PgBouncer's.
    let (role, password) = (tenant.role(Tier::Write), generate_password(&mut rand::rng()));
    let wanted = Bootstrap {
        group: GROUP.into(),
        logins: Vec::new(),
        close_to_public: true,
        pgbouncer: Some((role, Verifier::of(&password))),
        logical_replication: false,
    };
    let refused = bootstrap(&world.as_superuser().server, &wanted).await.unwrap_err().to_string();
    assert!(refused.contains("is there and is more than PgBouncer's login"), "{refused}");
    tenant.sql(Tier::Write, "SELECT 1").await.unwrap();
    tenant.drop().await;
}
