//! Tenants whose functions run while their database is copied.

use pgtenant_model::Tier;
use pgtenant_testkit::unique;

use super::Job;
use crate::world::{World, value};

/// Tries what it is told, and writes down what succeeded. It runs when rows are written, when indexes are built, and when
/// materialised views are filled.
const ATTACKER: &str = r#"
    CREATE TABLE gained (what text);
    CREATE FUNCTION attack() RETURNS bool LANGUAGE plpgsql AS $f$
    DECLARE what text;
    BEGIN
      FOREACH what IN ARRAY ARRAY[
        'RESET ROLE', 'SET ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT', 'SET ROLE pgtenant', 'SET SESSION AUTHORIZATION postgres',
        'ALTER ROLE "{admin}" SUPERUSER', 'ALTER ROLE "{admin}" CREATEROLE', 'CREATE ROLE "{made}"', 'GRANT pgtenant TO "{admin}"',
        'ALTER ROLE CURRENT_USER SUPERUSER', 'ALTER ROLE SESSION_USER SUPERUSER', 'GRANT pg_read_all_data TO "{admin}"', 'COPY public.gained TO ''/tmp/x''',
        'COPY public.gained FROM PROGRAM ''id''', 'SELECT * FROM pg_authid', 'CREATE DATABASE "{made}"', 'ALTER SYSTEM SET work_mem = 1',
        'GRANT CONNECT ON DATABASE "{other}" TO "{admin}"', 'SELECT pg_read_file(''/etc/passwd'')',
        'SELECT set_config(''search_path'', ''public'', false)'
      ] LOOP
        BEGIN
          EXECUTE what;
          EXECUTE 'INSERT INTO public.gained VALUES (' || quote_literal(what) || ')';
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
      END LOOP;
      RETURN true;
    END $f$;
    CREATE FUNCTION format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION pg_xact_status(xid8) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION pg_current_xact_id() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE TABLE rows (x int CHECK (public.attack()), y int GENERATED ALWAYS AS IDENTITY);
    CREATE FUNCTION quiet(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM public.attack(); RETURN x; END';
    CREATE DOMAIN checked AS int CHECK (public.attack());
    CREATE TABLE more (x checked);
    INSERT INTO rows VALUES (1); INSERT INTO more VALUES (1);
    CREATE INDEX ON rows (quiet(x));
    CREATE MATERIALIZED VIEW filled AS SELECT x, public.attack() FROM rows;
    CREATE SEQUENCE "odd"; SELECT nextval('odd'), nextval('odd');
    CREATE TABLE "x""; ALTER ROLE ""{admin}"" SUPERUSER; --
DROP TABLE rows" (x int, "b'; --
" text); INSERT INTO "x""; ALTER ROLE ""{admin}"" SUPERUSER; --
DROP TABLE rows" VALUES (1);
    CREATE TYPE row_type AS (a int);
    CREATE FUNCTION evil_cast(row_type) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.attack(); RETURN ''; END $$;
    CREATE CAST (row_type AS text) WITH FUNCTION evil_cast(row_type) AS IMPLICIT;
    CREATE TABLE cast_rows OF row_type; INSERT INTO cast_rows VALUES (1);
    CREATE FUNCTION "ON"() RETURNS text LANGUAGE sql AS $$ SELECT 'GRANT ALL TO PUBLIC; -- Name: x; Type: TABLE; Schema: public; Owner: y' $$;
    TRUNCATE gained;
"#;

#[tokio::test]
async fn a_tenants_code_gains_nothing_while_it_is_copied() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    let (made, bystander) = (unique("made"), world.tenant());
    bystander.create().await;
    job.fill(&ATTACKER.replace("{made}", &made).replace("{other}", &bystander.database())).await;
    let (export, copied) = job.copy().await.unwrap();

    let mut root = world.root(&job.target).await;
    let gained: String =
        value(&mut root, "SELECT coalesce(string_agg(DISTINCT what, '; ' ORDER BY what), '') FROM gained").await;
    // What anybody may: the session's own settings, and to be the login, which has the rights of the tiers.
    let harmless = [
        "RESET ROLE",
        "SELECT set_config('search_path', 'public', false)",
        "SET ROLE NONE",
        "SET SESSION AUTHORIZATION DEFAULT",
    ];
    assert_eq!(gained, harmless.join("; "), "and it did run");
    let admin = job.tenant.role(Tier::Admin);
    let logins = format!("'{admin}', '{}'", job.login.username);
    let rights = format!(
        "SELECT count(*) FROM pg_roles WHERE rolname IN ({logins}) AND (rolsuper OR rolcreaterole OR rolcreatedb)"
    );
    assert_eq!(value::<i64>(&mut root, &rights).await, 0);
    let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{made}'");
    assert_eq!(value::<i64>(&mut root, &roles).await, 0);
    let members = format!(
        "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = '{admin}'"
    );
    assert_eq!(value::<i64>(&mut root, &members).await, 0);

    // All is there and belongs to whom it should, though the functions changed the sessions that wrote.
    let owners = format!(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> '\"{admin}\"'::regrole"
    );
    assert_eq!(value::<i64>(&mut root, &owners).await, 0);
    world.sql(&job.target, "TRUNCATE gained").await;
    let verification = job.verify(&export, &copied, 1 << 30).await;
    assert_eq!(verification.differences, []);
    assert_eq!(value::<i64>(&mut root, "SELECT count(*) FROM gained").await, 0, "reading runs none of it");
}
