//! What a comparison finds.

use pgtenant_model::{Finding, Tier};
use pgtenant_postgres::transfer::{Copied, Export};

use super::Job;
use crate::world::World;

const SCHEMA: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, state varchar(9) CHECK (state IN ('a', 'b')), note text);
    CREATE TABLE other (x int); CREATE INDEX by_note ON orders (note) WHERE state = 'a'; CREATE SEQUENCE up; CREATE SEQUENCE down INCREMENT -1;
    CREATE VIEW seen AS SELECT * FROM orders WHERE state IN ('a', 'b');
    CREATE FUNCTION f(x int) RETURNS int LANGUAGE sql AS 'SELECT x + 1';
    COMMENT ON TABLE orders IS 'these';
    INSERT INTO orders SELECT n, 'a', 'note ' || n FROM generate_series(1, 1000) n; INSERT INTO other VALUES (1), (1), (NULL);
    SELECT nextval('up'), nextval('up'), nextval('down'), nextval('down');
    SELECT lo_from_bytea(1, 'one'), lo_from_bytea(2, 'two');
    GRANT SELECT ON orders TO PUBLIC;";

async fn changed(job: &Job<'_>, export: &Export, copied: &Copied, sql: &str, sample_above: u64) -> Vec<String> {
    job.tenant.world.sql(&job.target, sql).await;
    let verification = job.verify(export, copied, sample_above).await;
    assert_eq!(verification.is_good(), verification.differences.is_empty());
    verification.differences.into_iter().map(|Finding { object, message }| format!("{object}: {message}")).collect()
}

#[tokio::test]
async fn what_differs_is_found() {
    let world = World::new().await;
    let job = Job::new(&world).await;
    job.fill(SCHEMA).await;
    let (export, copied) = job.copy().await.unwrap();
    let none: [&str; 0] = [];
    assert_eq!(changed(&job, &export, &copied, "SELECT 1", 1 << 20).await, none);
    let admin = job.tenant.role(Tier::Admin);
    for (change, undo, found) in [
        (
            "DELETE FROM orders WHERE id = 500",
            "INSERT INTO orders VALUES (500, 'a', 'note 500')",
            "table \"public\".\"orders\": it has 1000 rows, and 999 in the copy",
        ),
        (
            "UPDATE orders SET note = 'note 5000' WHERE id = 500",
            "UPDATE orders SET note = 'note 500' WHERE id = 500",
            "table \"public\".\"orders\": some of its rows differ",
        ),
        (
            "UPDATE other SET x = 2 WHERE ctid = '(0,1)'",
            "UPDATE other SET x = 1 WHERE x = 2",
            "table \"public\".\"other\": some of its rows differ",
        ),
        (
            "DROP INDEX by_note",
            "CREATE INDEX by_note ON orders (note) WHERE state = 'a'",
            "index \"public\".\"by_note\": it is missing",
        ),
        ("CREATE INDEX more ON other (x)", "DROP INDEX more", "index \"public\".\"more\": it is in the copy alone"),
        (
            "SELECT setval('up', 1)",
            "SELECT setval('up', 7)",
            "sequence \"public\".\"up\": it is behind: at 2, and at 1 in the copy",
        ),
        (
            "SELECT setval('down', -1)",
            "SELECT setval('down', -2)",
            "sequence \"public\".\"down\": it is behind: at -2, and at -1 in the copy",
        ),
        (
            "SELECT setval('up', 2, false)",
            "SELECT setval('up', 3, false)",
            "sequence \"public\".\"up\": it is behind: at 2, and at 2, which it has not given yet in the copy",
        ),
        ("SELECT lo_unlink(1)", "SELECT lo_from_bytea(1, 'one')", "large objects: there are 2, and 1 in the copy"),
        ("SELECT lo_put(2, 1, 'W')", "SELECT lo_put(2, 1, 'w')", "large objects: some of their contents differ"),
        (
            "SELECT lo_put(2, 3, '!')",
            "SELECT lo_unlink(2), lo_from_bytea(2, 'two')",
            "large objects: they have 6 bytes, and 7 in the copy",
        ),
        (
            "CREATE OR REPLACE FUNCTION f(x int) RETURNS int LANGUAGE sql AS 'SELECT x + 2'",
            "CREATE OR REPLACE FUNCTION f(x int) RETURNS int LANGUAGE sql AS 'SELECT x + 1'",
            "function \"public\".\"f(integer)\": its definition differs: \"AS $_$SELECT x + 1$_$;\", and \"AS $_$SELECT x + 2$_$;\" in the copy",
        ),
        (
            "REVOKE SELECT ON orders FROM PUBLIC",
            "GRANT SELECT ON orders TO PUBLIC",
            "privileges on \"public\".\"TABLE orders\": the copy lacks: GRANT SELECT ON TABLE public.orders TO PUBLIC",
        ),
        (
            "COMMENT ON TABLE orders IS NULL",
            "COMMENT ON TABLE orders IS 'these'",
            "comment \"public\".\"TABLE orders\": it is missing",
        ),
    ] {
        let differences = changed(&job, &export, &copied, change, 1 << 20).await.join("\n");
        let plain = |text: &str| text.replace("$_$", "'").replace("$$", "'");
        assert_eq!(plain(&differences), plain(found), "{change}");
        world.sql(&job.target, &format!("SET ROLE \"{admin}\"; {undo}")).await;
    }
    assert_eq!(changed(&job, &export, &copied, "SELECT 1", 1 << 20).await, none);
    // With a sample, rows are still counted.
    let differences = changed(&job, &export, &copied, "DELETE FROM orders WHERE id = 3", 1).await;
    assert_eq!(differences, ["table \"public\".\"orders\": it has 1000 rows, and 999 in the copy"]);
}
