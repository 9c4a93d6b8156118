//! What is changed by hand is found by the periodic look, put back, and told with the exact difference.

use std::time::Duration;

use pgtenant_tests::{
    Credential, Place, can, eventually, rows, superuser_sql, try_sql, unique, works_for_an_application,
};
use serde_json::{Value, json};

use crate::shared::{self, Plane};

/// A database under drift; removed at the end, since each look at it costs three logins a second.
struct Subject<'a> {
    plane: &'a Plane,
    namespace: String,
}

impl Subject<'_> {
    async fn new() -> Self {
        let (plane, namespace) = (shared::watchful().await, unique("drift"));
        plane.api().ready(&namespace, "db").await;
        Self { plane, namespace }
    }

    fn database(&self) -> String {
        format!("{}-db", self.namespace)
    }

    async fn superuser(&self, database: Option<&str>, sql: &str) {
        superuser_sql(&self.plane.site.superuser, database, &self.named(sql)).await;
    }

    /// `D` stands for the database's name.
    fn named(&self, sql: &str) -> String {
        sql.replace("{D}", &self.database())
    }

    fn credential(&self, tier: &str) -> Credential {
        Credential::read(&self.plane.site.secrets, &self.namespace, "db", tier)
    }

    async fn repairs(&self) -> Vec<Value> {
        let events = self.plane.site.events(&self.namespace, "db").await;
        events.into_iter().filter(|event| event["type"] == "DriftRepaired").collect()
    }

    async fn settled(&self) -> Value {
        self.plane.api().is_ready(&self.namespace, "db").await
    }

    /// Waits until the claim was looked at `times` more times.
    async fn looked_at(&self, times: usize) {
        let mut last = Value::Null;
        for _look in 0..=times {
            let api = self.plane.api();
            last =
                api.comes_to(&self.namespace, "db", "another look", |db| db["nextLookAt"] != last).await["nextLookAt"]
                    .clone();
        }
    }

    async fn removed(self) {
        let path = format!("/v1/namespaces/{}/databases/db", self.namespace);
        self.plane.api().delete(&path).await.expect(202);
        self.plane.api().is_gone(&self.namespace, "db").await;
    }
}

/// What is done by hand, in the database or beside it; a query whose answer must come back; a part of the event.
struct Drift {
    what: &'static str,
    by_hand: &'static str,
    inside: bool,
    query: &'static str,
    told: &'static [&'static str],
}

const DATABASE: &str =
    "select coalesce((select array_agg(a::text order by a::text) from pg_database d, unnest(d.datacl) a
                        where datname = '{D}')::text, 'none')";
const ROLE: &str = "select string_agg(concat_ws(' ', rolname, rolcanlogin, rolconnlimit, rolcreatedb, rolcreaterole, rolsuper,
                    rolreplication, rolbypassrls, rolinherit, coalesce(rolvaliduntil::text, 'infinity'),
                    shobj_description(oid, 'pg_authid')), '; ' order by rolname) from pg_authid where rolname like '{D}-%'";
const SCHEMA: &str = "select concat_ws(' ', nspowner::regrole::text, (select array_agg(a::text order by a::text)
                      from unnest(nspacl) a)::text) from pg_namespace where nspname = 'public'";
const DEFAULTS: &str =
    "select string_agg(defaclrole::regrole || defaclobjtype::text || (select array_agg(a::text order by a::text)
                        from unnest(defaclacl) a)::text, '; ' order by defaclobjtype) from pg_default_acl";

const DRIFTS: &[Drift] = &[
    Drift {
        what: "a grant on the database is gone",
        by_hand: "revoke connect on database \"{D}\" from \"{D}-read\"",
        inside: false,
        query: DATABASE,
        told: &["grant CONNECT", "{D}-read"],
    },
    Drift {
        what: "PUBLIC may connect",
        by_hand: "grant connect, temporary on database \"{D}\" to public",
        inside: false,
        query: DATABASE,
        told: &["revoke", "PUBLIC"],
    },
    Drift {
        what: "a stranger may connect",
        by_hand: "create role \"{D}_stranger\"; grant connect on database \"{D}\" to \"{D}_stranger\"",
        inside: false,
        query: DATABASE,
        told: &["revoke", "{D}_stranger"],
    },
    Drift {
        what: "read is a member of admin",
        by_hand: "grant \"{D}-admin\" to \"{D}-read\"",
        inside: false,
        query: "select count(*)::text from pg_auth_members where roleid = '\"{D}-admin\"'::regrole
                and member = '\"{D}-read\"'::regrole",
        told: &["remove", "{D}-read", "{D}-admin"],
    },
    Drift {
        what: "schema public has another owner",
        by_hand: "alter schema public owner to \"{D}-write\"",
        inside: true,
        query: SCHEMA,
        told: &["owner", "schema", "public", "{D}-admin"],
    },
    Drift {
        what: "usage of schema public is gone",
        by_hand: "revoke usage on schema public from \"{D}-read\"",
        inside: true,
        query: SCHEMA,
        told: &["grant USAGE", "{D}-read"],
    },
    Drift {
        what: "a connection limit",
        by_hand: "alter role \"{D}-write\" connection limit 1",
        inside: false,
        query: ROLE,
        told: &["alter role", "{D}-write", "CONNECTION LIMIT -1"],
    },
    Drift {
        what: "a login is locked",
        by_hand: "alter role \"{D}-read\" nologin",
        inside: false,
        query: ROLE,
        told: &["alter role", "{D}-read", "LOGIN"],
    },
    Drift {
        what: "a password expires",
        by_hand: "alter role \"{D}-admin\" valid until '2020-01-01'",
        inside: false,
        query: ROLE,
        told: &["alter role", "{D}-admin", "VALID UNTIL"],
    },
    Drift {
        what: "a role may create databases",
        by_hand: "alter role \"{D}-write\" createdb createrole",
        inside: false,
        query: ROLE,
        told: &["alter role", "{D}-write", "NOCREATEDB"],
    },
    Drift {
        what: "default privileges are gone",
        by_hand: "alter default privileges for role \"{D}-admin\" in schema public revoke all on tables from \"{D}-read\"",
        inside: true,
        query: DEFAULTS,
        told: &["SELECT", "future", "{D}-read"],
    },
    Drift {
        what: "the comment on a role",
        by_hand: "comment on role \"{D}-read\" is null",
        inside: false,
        query: ROLE,
        told: &["comment", "{D}-read"],
    },
];

#[tokio::test]
async fn a_change_by_hand_is_put_back_and_told_exactly() {
    let subject = Subject::new().await;
    let mut waited = Vec::new();
    for drift in DRIFTS {
        let database = subject.database();
        let place = drift.inside.then_some(&*database);
        let query = subject.named(drift.query);
        let before = rows(&subject.plane.site.superuser, place, &query).await;
        let seen = subject.repairs().await.len();
        let begun = std::time::Instant::now();
        subject.superuser(place, drift.by_hand).await;
        eventually(&format!("put back: {}", drift.what), Duration::from_secs(15), || async {
            let now = rows(&subject.plane.site.superuser, place, &query).await;
            if now == before { Ok(()) } else { Err(format!("{now:?}, not {before:?}; {}", subject.settled().await)) }
        })
        .await;
        waited.push(begun.elapsed());
        // A look that was under way when the hand came may have put back a part: then two looks tell of it.
        let told = eventually(&format!("told: {}", drift.what), Duration::from_secs(10), || async {
            let told = subject.repairs().await.split_off(seen);
            let text = json!(told).to_string().replace('\\', "");
            let missing = drift.told.iter().find(|part| !text.contains(&subject.named(part)));
            missing.map_or(Ok(told), |part| Err(format!("no {part:?} in {text}")))
        })
        .await;
        let changes = |event: &Value| event["detail"]["changes"].as_array().map_or(0, Vec::len);
        // With the owner, PostgreSQL moves what the owner was granted; and it tells an expired password from a wrong one to nobody.
        let most = if drift.what.contains("owner") || drift.what.contains("expires") { 2 } else { 1 };
        assert!(
            told.iter().map(changes).sum::<usize>() <= most,
            "{}: nothing but the difference: {told:#?}",
            drift.what
        );
        for event in &told {
            assert!(
                event["message"].as_str().unwrap().contains(event["detail"]["changes"][0].as_str().unwrap()),
                "{event}"
            );
        }
    }
    waited.sort();
    pgtenant_tests::measured(&format!(
        "drift: put back after {:?} (median), looks are 1 s apart",
        waited[waited.len() / 2]
    ));
    works_for_an_application(&subject.plane.site.secrets, &subject.namespace, "db").await;
    assert!(subject.plane.serve.metric("pgtenant_drift_repaired_total").await >= 12.0);
    subject.superuser(None, "drop owned by \"{D}_stranger\"; drop role \"{D}_stranger\"").await;
    subject.removed().await;
}

#[tokio::test]
async fn a_password_that_was_changed_on_the_server_is_set_back_to_the_stored_one() {
    let subject = Subject::new().await;
    let before = subject.credential("write");
    subject.superuser(None, "alter role \"{D}-write\" password 'changed by hand'").await;
    eventually("the stored password works again", Duration::from_secs(15), || async {
        try_sql(&before, "select 1").await
    })
    .await;
    subject.settled().await;
    assert_eq!(subject.credential("write"), before, "applications have it, so it stays");
    let repairs = subject.repairs().await;
    let text = repairs.last().map(Value::to_string).unwrap_or_default();
    assert!(text.contains("password") && text.contains("-write"), "{text}");
    assert!(!text.contains("SCRAM-SHA-256") && !text.contains(&before.password), "{text}");
    subject.removed().await;
}

#[tokio::test]
async fn a_lost_comment_is_written_again_and_a_foreign_one_is_told() {
    let subject = Subject::new().await;
    let query = subject.named("select shobj_description(oid, 'pg_database') from pg_database where datname = '{D}'");
    let before = rows(&subject.plane.site.superuser, None, &query).await;
    assert!(before[0].contains(&format!("{}/db", subject.namespace)), "it names the claim: {before:?}");
    let path = format!("/v1/namespaces/{}/databases/db", subject.namespace);

    // Somebody says that the database is theirs: nothing is touched until a person has decided.
    subject.superuser(None, "comment on database \"{D}\" is 'my own notes'").await;
    eventually("the claim says so", Duration::from_secs(20), || async {
        let now = subject.plane.api().get(&path).await.text;
        if now.contains("NotOurs") && now.contains("my own notes") { Ok(()) } else { Err(now) }
    })
    .await;

    subject.superuser(None, "comment on database \"{D}\" is null").await;
    eventually("the comment is back", Duration::from_secs(30), || async {
        let now = rows(&subject.plane.site.superuser, None, &query).await;
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    subject.settled().await;
    subject.removed().await;
}

#[tokio::test]
async fn what_a_tenant_may_do_in_its_own_database_is_left_alone() {
    let subject = Subject::new().await;
    let admin = subject.credential("admin");
    let reader = subject.credential("read");
    let sql = subject.named(
        "create schema private; create table private.t (n int); create schema shared; create table shared.t (n int);
         grant usage on schema shared to \"{D}-read\"; grant select, insert on shared.t to \"{D}-read\";
         create table public.extra (n int); grant update on public.extra to \"{D}-read\";
         alter default privileges in schema shared grant select on tables to \"{D}-read\";
         create function public.f() returns int language sql as 'select 1'; comment on schema shared is 'ours'",
    );
    can(&admin, &sql).await;
    subject.settled().await;
    let database = subject.database();
    let acls = "select n.nspname || c.relname || coalesce(c.relacl::text, '-') || coalesce(n.nspacl::text, '-')
                from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'
                and n.nspname in ('private', 'shared', 'public') order by 1";
    let before = rows(&Place::shared().await.superuser, Some(&database), acls).await;
    let told = subject.repairs().await.len();
    subject.looked_at(3).await;
    assert_eq!(rows(&Place::shared().await.superuser, Some(&database), acls).await, before);
    assert_eq!(subject.repairs().await.len(), told, "{:#?}", subject.repairs().await);
    can(&reader, "insert into shared.t values (1); select * from shared.t; update extra set n = 1").await;
    assert_eq!(try_sql(&reader, "select * from private.t").await, Err("42501".to_owned()));
    subject.removed().await;
}

#[tokio::test]
async fn tables_that_were_made_before_the_grants_were_right_or_by_a_second_login_are_granted_too() {
    let subject = Subject::new().await;
    let database = subject.database();
    // Made while the default privileges were missing.
    let early = "alter default privileges for role \"{D}-admin\" in schema public revoke all on tables from \"{D}-read\", \"{D}-write\";
                 set role \"{D}-admin\"; create table early (n int); reset role";
    subject.superuser(Some(&database), early).await;
    // The second login of a rotation, without the setting that makes it act for its group.
    subject.superuser(None, "create role \"{D}-admin-b\" login in role \"{D}-admin\" password 'second'").await;
    let second = Credential {
        username: subject.named("{D}-admin-b"),
        password: "second".to_owned(),
        ..subject.credential("admin")
    };
    eventually("the second login makes a table", Duration::from_secs(10), || async {
        try_sql(&second, "create table if not exists by_second (n int)").await
    })
    .await;
    let (reader, writer) = (subject.credential("read"), subject.credential("write"));
    for table in ["early", "by_second"] {
        eventually(&format!("{table} is granted"), Duration::from_secs(15), || async {
            try_sql(&writer, &format!("insert into {table} values (1)")).await?;
            try_sql(&reader, &format!("select * from {table}")).await
        })
        .await;
    }
    can(&subject.credential("admin"), "alter table by_second add column m int").await;
    subject.settled().await;
    subject.removed().await;
    let left = rows(
        &Place::shared().await.superuser,
        None,
        &format!("select rolname::text from pg_roles where rolname like '{database}-%'"),
    )
    .await;
    assert_eq!(left, Vec::<String>::new(), "the second login goes with the others");
}

#[tokio::test]
async fn further_schemas_and_extensions_and_limits_are_as_the_claim_says() {
    let (plane, namespace) = (shared::watchful().await, unique("wide"));
    let body =
        serde_json::json!({"name": "db", "schemas": ["reporting"], "extensions": ["pgcrypto"], "connectionLimit": 2});
    plane.api().ready_with(&namespace, body).await;
    let subject = Subject { plane, namespace };
    let [reader, writer, admin] = Credential::of(&plane.site.secrets, &subject.namespace, "db");
    can(&admin, "create table reporting.t (n int); select gen_random_bytes(4)").await;
    can(&writer, "insert into reporting.t values (1)").await;
    can(&reader, "select * from reporting.t").await;
    assert_eq!(try_sql(&reader, "insert into reporting.t values (1)").await, Err("42501".to_owned()));
    let limits =
        subject.named("select string_agg(distinct rolconnlimit::text, ',') from pg_roles where rolname like '{D}-%'");
    assert_eq!(rows(&plane.site.superuser, None, &limits).await, ["2"]);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        // A look may hold one of the two for a moment.
        let session = eventually("a session", Duration::from_secs(10), || async {
            pgtenant_tests::connect(&writer).await.map_err(|error| error.to_string())
        });
        sessions.push(session.await);
    }
    assert_eq!(try_sql(&writer, "select 1").await, Err("53300".to_owned()), "a third session of a limit of two");
    // A full limit is no reason to find the password wrong.
    let state = || async { plane.api().get(&format!("/v1/namespaces/{}/databases/db", subject.namespace)).await };
    subject.looked_at(2).await;
    assert_eq!(
        Credential::read(&plane.site.secrets, &subject.namespace, "db", "write"),
        writer,
        "{}",
        state().await.text
    );
    drop(sessions);
    subject.settled().await;
    subject.removed().await;
}

#[tokio::test]
async fn drift_that_is_found_after_a_failed_try_is_told_as_well() {
    let plane = Plane::start(pgtenant_tests::SiteOptions::shared().await).await;
    let (api, namespace) = (plane.api(), unique("retry"));
    api.ready(&namespace, "db").await;
    // The store is away for a while: looks fail.
    let aside = plane.site.path().join("aside");
    std::fs::rename(&plane.site.secrets, &aside).unwrap();
    std::fs::write(&plane.site.secrets, "not a folder").unwrap();
    api.is_in(&namespace, "db", "Degraded").await;
    superuser_sql(&plane.site.superuser, None, &format!("alter role \"{namespace}-db-read\" connection limit 1")).await;
    std::fs::remove_file(&plane.site.secrets).unwrap();
    std::fs::rename(&aside, &plane.site.secrets).unwrap();
    api.is_ready(&namespace, "db").await;
    let limit = format!("select rolconnlimit::text from pg_roles where rolname = '{namespace}-db-read'");
    eventually("the limit is put back", Duration::from_secs(15), || async {
        let now = rows(&plane.site.superuser, None, &limit).await;
        if now == ["-1"] { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    api.is_ready(&namespace, "db").await;
    eventually("DriftRepaired is told", Duration::from_secs(10), || async {
        let events = plane.site.events(&namespace, "db").await;
        let told = events.iter().any(|e| e["type"] == "DriftRepaired" && e.to_string().contains("CONNECTION LIMIT -1"));
        if told { Ok(()) } else { Err(format!("{events:#?}")) }
    })
    .await;
}
