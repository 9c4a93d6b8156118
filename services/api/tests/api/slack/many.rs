//! More than Slack shows.

use std::time::Duration;

use serde_json::json;

use super::{ALICE, BOB, Door, PLATFORM, SHOP, snapshot};

const MANY: &str = "insert into claims (id, namespace, name, cluster, mode, source, database, state, conditions)
    select gen_random_uuid(), 'shop', 'db-' || n, 'default', 'standard', 'api', 'shop-db-' || n, 'Failed',
           jsonb_build_array(jsonb_build_object('type', 'Ready', 'status', 'False', 'reason', 'X',
               'message', repeat('<why> & ', 100), 'lastTransitionTime', now()))
    from generate_series(1, 1000) n";

#[tokio::test]
async fn a_thousand_databases_are_looked_for_by_typing() {
    let door = Door::new().await;
    door.world.execute(MANY).await;
    let list = door.types(BOB, SHOP, "list").await;
    assert!(list.text.contains("shop/db-1") && list.text.contains("These are the first 200"), "{}", list.text.len());
    let status = door.types(BOB, SHOP, "status").await.text;
    for said in ["1,000 Failed", "3 Pending", "and 995 more Failed"] {
        assert!(status.contains(said), "{said}: {status}");
    }
    assert!(!status.contains("*shop*"), "the only namespace needs no line: {status}");
    let status = door.types(ALICE, PLATFORM, "status").await.text;
    for said in
        [":white_circle: 4 Pending", "*shop*: :white_circle: 3 Pending   :red_circle: 1,000 Failed", "*other*: "]
    {
        assert!(status.contains(said), "{said}: {status}");
    }
    let view = door.opens(BOB, SHOP, "db-777").await;
    assert!(view.view.to_string().contains("external_select"));
    let options = async |typed: &str| {
        let reply = door.send(&door.slack.suggest(BOB, &view.id, "database", typed)).await.expect(200).json;
        let all = reply["options"].as_array().unwrap().clone();
        all.iter().map(|one| one["value"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(options("").await.len(), 100);
    assert_eq!(options("DB-77").await.len(), 11);
    assert_eq!(options("other").await, Vec::<String>::new());
    assert_eq!(options("%").await, Vec::<String>::new());
    assert_eq!(options("shop/db-999").await, ["shop/db-999"]);
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await;
    assert_eq!(reply.json, json!({"response_action": "clear"}));
    assert_eq!(door.newest().await.unwrap().view.name, "db-777");
    door.in_order();
}

#[tokio::test]
async fn a_channel_of_hundreds_of_namespaces_has_a_short_and_true_answer() {
    let door = Door::new().await;
    let sql = "insert into claims (id, namespace, name, cluster, mode, source, database, state)
        select gen_random_uuid(), 'team-' || n % 400, 'db-' || n, 'default', 'standard', 'api', 'db-' || n,
               case when n = 4242 then 'Degraded' else 'Ready' end
        from generate_series(1, 20000) n";
    door.world.execute(sql).await;
    let status = door.types(ALICE, PLATFORM, "status").await.text;
    for said in ["19,999 Ready", "1 Degraded", "*team-242*: :large_green_circle: 49 Ready", "team-242/db-4242"] {
        assert!(status.contains(said), "{said}: {status}");
    }
    let lines = status.matches("*team-").count() + status.matches("*shop*").count() + status.matches("*other*").count();
    assert!(lines < 60 && status.contains(&format!("and {} more", 402 - lines)), "{lines} lines: {status}");
    assert!(status.len() < 6000, "{}", status.len());
    door.in_order();
}

#[tokio::test]
async fn the_newest_of_many_snapshots_are_shown() {
    let door = Door::new().await;
    let mut all: Vec<_> = (1..=500).rev().map(snapshot).collect();
    all[5].id = format!("rds:{}", "x".repeat(200)).parse().unwrap();
    door.knows(Some(all), Duration::ZERO);
    let view = door.opens(BOB, SHOP, "orders").await;
    let text = view.view.to_string();
    assert!(text.contains("99 of 500 snapshots are shown"), "{text}");
    assert!(text.contains("dump:202611000500") && !text.contains("dump:202611000001"), "the newest: {text}");
    assert!(door.types(BOB, SHOP, "snapshots orders").await.text.contains(" more"));
    door.knows(Some(Vec::new()), Duration::ZERO);
    assert!(door.opens(BOB, SHOP, "carts").await.view.to_string().contains("There is no snapshot of it"));
    assert!(door.types(BOB, SHOP, "snapshots orders").await.text.contains("There is no snapshot"));
    door.in_order();
}
