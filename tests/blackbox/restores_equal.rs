//! Held against raw tools: what each strategy brings back is what `pg_dump | pg_restore` make of the same database.

use std::process::Command;

use pgtenant_lab::Binaries;
use pgtenant_tests::{Finished, Folder, Place, TIERS, can, rows, run, soon, superuser_sql};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::shop::Shop;

/// One of each that PostgreSQL has, made by the admin tier.
const EVERYTHING: &str = include_str!("../../services/postgres/tests/postgres/transfer/everything.sql");
/// Some of it is gone, and some is different.
const MISTAKE: &str = "drop table children cascade; delete from parents where id > 1000; drop table \"odd \"\"schema\"\"; --\".\"ein Ümläut 🐘\";
     alter table types drop column d; revoke all on secrets from public; comment on schema own is 'other'; drop policy mine on secrets;
     select lo_unlink(4711), lo_put(4713, 100, 'SMALL'), setval('own.odd', 3); insert into by_hash values ('ok', 1000, 'new');
     alter default privileges in schema own revoke select on tables from \"{read}\"; refresh materialized view not_filled";

/// A claim with everything in it, a dump of it, and what raw tools make of it.
struct Held {
    shop: Shop,
    superuser: Place,
    snapshot: String,
    raw: String,
}

/// A database as the superuser sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    definitions: Vec<String>,
    content: Vec<String>,
}

impl Held {
    async fn new() -> Self {
        let shop = Shop::open().await;
        shop.api().ready(&shop.namespace, "data").await;
        let held = Self { superuser: Place::shared().await, snapshot: String::new(), raw: shop.database("raw"), shop };
        held.sql(EVERYTHING).await;
        // What the admin tier has revoked of the other tiers' rights is granted again with the next look.
        let granted = format!(
            "select has_table_privilege('{}', 'children', 'insert')::text",
            held.shop.credential("data", "write").username
        );
        soon("a look has come by", || async {
            let granted = rows(&held.superuser.superuser, Some(&held.shop.database("data")), &granted).await;
            if granted == ["true"] { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let snapshot = held.shop.dump("data").await;
        held.copy_with_raw_tools().await;
        Self { snapshot, ..held }
    }

    /// Runs statements as the admin tier.
    async fn sql(&self, sql: &str) {
        let role =
            |sql: String, tier: &str| sql.replace(&format!("{{{tier}}}"), &self.shop.credential("data", tier).username);
        let sql = TIERS.into_iter().fold(sql.to_owned(), role);
        can(&self.shop.credential("data", "admin"), &sql).await;
    }

    async fn copy_with_raw_tools(&self) {
        let folder = Folder::new("raw");
        let dump = folder.join("dump").display().to_string();
        let create = format!("create database \"{}\" template template0", self.raw);
        superuser_sql(&self.superuser.superuser, None, &create).await;
        let data = self.shop.database("data");
        self.tool("pg_dump", &data, &["-Fd", "-j2", "--no-publications", "-f", &dump]).await;
        self.tool("pg_restore", &self.raw, &["-j2", "--exit-on-error", &dump]).await;
    }

    /// Runs a program of PostgreSQL's as the superuser.
    async fn tool(&self, program: &str, database: &str, arguments: &[&str]) -> Finished {
        let superuser = pgtenant_testkit::cluster().await.superuser();
        let own = Binaries::locate(None).unwrap().dir().join(program);
        // Some versions are there without it.
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", superuser.options.get_port().to_string())
            .env("PGUSER", &superuser.username)
            .env("PGPASSWORD", superuser.password.expose_secret())
            .env("PGSSLMODE", "require")
            .args(["-d", database])
            .args(arguments);
        run(command).await.expect(0)
    }

    async fn seen(&self, database: &str) -> Seen {
        let text = self.tool("pg_dump", database, &["--schema-only", "--no-publications"]).await.stdout;
        // `\restrict` has another word each time.
        let definitions = text.lines().filter(|line| !line.starts_with("\\")).map(str::to_owned).collect();
        let rows = async |sql: &str| rows(&self.superuser.superuser, Some(database), sql).await;
        let content = rows(&rows(CHECKSUMS).await.join(" union all ")).await;
        Seen { definitions, content }
    }

    /// What applications may do with the database, and what it is.
    async fn of_database(&self, database: &str) -> Vec<String> {
        let sql = format!(
            "select concat_ws(' ', datdba::regrole, datconnlimit, encoding, datcollate, datctype, datistemplate, datallowconn,
                    shobj_description(oid, 'pg_database'), (select array_agg(one::text order by one::text) from unnest(datacl) one),
                    (select array_agg(setrole::text || setconfig::text) from pg_db_role_setting where setdatabase = oid))
             from pg_database where datname = '{database}'"
        );
        rows(&self.superuser.superuser, None, &sql).await
    }

    async fn restored(&self, mut spec: Value) {
        spec["from"] = json!({"snapshot": self.snapshot});
        let done = self.shop.restored("data", spec).await;
        assert_eq!(done["phase"], "Succeeded", "{done}");
        let left_out = done["report"]["leftOut"].as_array().unwrap();
        assert!(left_out.len() == 1 && left_out[0]["object"] == "publication \"published\"", "{left_out:?}");
    }
}

/// A query for each table, sequence, and all large objects. Rows of partitions are counted where they are asked for: which partition has
/// the hash of an enum's value is another one in each database.
const CHECKSUMS: &str = "
    select format($$ select %L || count(*) || ' ' || coalesce(md5(string_agg(t::text, e'\\n' order by t::text collate \"C\")), '') from %s %s t $$,
                  c.oid::regclass::text || ': ', case when relkind = 'p' then '' else 'only' end, c.oid::regclass)
    from pg_class c where relkind in ('r', 'p', 'm') and not relispartition and relispopulated and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all
    select format($$ select %L || last_value || ' ' || is_called from %s $$, c.oid::regclass::text || ': ', c.oid::regclass)
    from pg_class c where relkind = 'S'
    union all
    select format($$ select %L $$, c.oid::regclass::text || ' is not filled') from pg_class c where not relispopulated
    union all
    select $$ select concat_ws(' ', 'large object', oid, length(lo_get(oid)), md5(lo_get(oid)), lomowner::regrole, lomacl, obj_description(oid, 'pg_largeobject'))
              from pg_largeobject_metadata $$
    order by 1";

fn assert_equal(ours: &[String], theirs: &[String], what: &str) {
    let differing: Vec<_> = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs).take(10).collect();
    assert!(ours == theirs, "{what}: {} and {} lines, {differing:#?}", ours.len(), theirs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_strategy_brings_back_what_raw_tools_bring_back() {
    let held = Held::new().await;
    let (data, old) = (held.shop.database("data"), held.shop.database("old"));
    let (raw, facts) = (held.seen(&held.raw).await, held.of_database(&data).await);
    assert!(raw.definitions.len() > 1000 && raw.content.len() > 25, "{} {}", raw.definitions.len(), raw.content.len());
    for strategy in ["swap", "replace"] {
        held.sql(MISTAKE).await;
        let mistaken = held.seen(&data).await;
        assert!(mistaken.definitions != raw.definitions && mistaken.content != raw.content, "it would be seen");
        held.restored(json!({"strategy": strategy})).await;
        let seen = held.seen(&data).await;
        assert_equal(&seen.content, &raw.content, strategy);
        assert_equal(&seen.definitions, &raw.definitions, strategy);
        assert_eq!(held.of_database(&data).await, facts, "{strategy}");
    }
    held.restored(json!({"strategy": "copy", "copyName": "old"})).await;
    // Roles and the database have other names there, and nothing else has.
    let renamed = |lines: Vec<String>| lines.into_iter().map(|line| line.replace(&old, &data)).collect::<Vec<_>>();
    let seen = held.seen(&old).await;
    assert_equal(&renamed(seen.content), &raw.content, "copy");
    assert_equal(&renamed(seen.definitions), &raw.definitions, "copy");
    let comment =
        |facts: &str| facts.replace(&format!("{}/old", held.shop.namespace), &format!("{}/data", held.shop.namespace));
    assert_eq!(comment(&renamed(held.of_database(&old).await).concat()), facts.concat());
}
