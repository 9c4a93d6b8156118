//! Who sees and does what, whatever they send.

use pgtenant_api::{SlackUnlisted, SlackUser};
use pgtenant_ledger::{NewToken, TokenRole, create_token};
use pgtenant_model::RestorePhase;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{ALICE, BOB, CAROL, Door, OTHER, PLATFORM, QUIET, SHOP, VERA, claim};
use crate::world::eventually;

#[tokio::test]
async fn strangers_are_told_whom_to_ask_and_nothing_else() {
    let door = Door::new().await;
    let id = door.asks(BOB, "orders").await.view.id;
    for (user, channel) in
        [(BOB, "C0NOWHERE"), (ALICE, "C0NOWHERE"), (BOB, PLATFORM), (VERA, OTHER), ("", ""), (ALICE, "D0X")]
    {
        for typed in ["list", "status", "restore orders", "status shop/orders", "snapshots orders", "help"] {
            let reply = door.types(user, channel, typed).await;
            assert!(reply.text.contains("Please ask the platform team in <#C0PLATFORM>"), "{user} {typed}: {reply:?}");
            assert!(!reply.text.contains("orders"), "{reply:?}");
        }
    }
    door.send(&door.slack.press_forged(BOB, PLATFORM, "restore_approve", &id.to_string())).await.expect(200);
    assert!(door.told(1).await.contains("Please ask the platform team"));
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    door.in_order();
}

#[tokio::test]
async fn another_tenants_databases_are_not_there() {
    let door = Door::new().await;
    let mut answers = Vec::new();
    for name in ["other/secret", "other/nothing", "secret", "nothing"] {
        for verb in ["status", "snapshots", "restore"] {
            let reply = door.types(BOB, SHOP, &format!("{verb} {name}")).await;
            answers.push(reply.text.replace(name, "X"));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "what is not there can not be told from what is another's: {answers:#?}");
    assert!(answers[0].contains("There is no database"));
    assert!(door.slack.views().is_empty());
    // A person of the platform team in a tenant's channel: everybody reads along there.
    assert!(door.types(ALICE, SHOP, "status other/secret").await.text.contains("There is no database"));
    door.in_order();
}

#[tokio::test]
async fn what_comes_back_from_slack_is_not_believed() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    let reason = ("reason", json!("x"));
    let refused = async |request, why: &str| {
        let reply = door.send(&request).await.expect(200);
        assert!(reply.text.contains(why), "{reply:?}");
        assert!(door.newest().await.is_none());
    };
    let foreign = [reason.clone(), ("database", json!("other/secret"))];
    refused(door.slack.submit(BOB, &view.id, &foreign), "There is no database other/secret").await;
    let missing = [reason.clone(), ("database", json!("other/nothing"))];
    refused(door.slack.submit(BOB, &view.id, &missing), "There is no database other/nothing").await;
    let odd = [reason.clone(), ("database", json!("shop/../other"))];
    refused(door.slack.submit(BOB, &view.id, &odd), "Choose a database").await;
    // Another channel, another person, nothing at all.
    for forged in ["C0OTHER U0BOB", "", "x"] {
        let request = door.slack.submit_forged(BOB, &view.id, &foreign, |payload| {
            payload["view"]["private_metadata"] = json!(forged);
        });
        refused(request, "You may not ask for this here").await;
    }
    let moved = door.slack.submit_forged(BOB, &view.id, &foreign, |payload| {
        let old = payload["view"]["private_metadata"].as_str().unwrap().replace("C0SHOP", "C0OTHER");
        payload["view"]["private_metadata"] = json!(old);
    });
    refused(moved, "You may not ask for this here").await;
    refused(door.slack.submit(ALICE, &view.id, &foreign), "You may not ask for this here").await;
    // A choice in the window.
    let edits = door.slack.views()[0].edits;
    door.send(&door.slack.choose(BOB, &view.id, "database", "other/secret")).await.expect(200);
    let options = door.send(&door.slack.suggest(BOB, &view.id, "database", "secret")).await.expect(200).json;
    assert_eq!(options, json!({"options": []}));
    assert_eq!(door.slack.views()[0].edits, edits);
    door.in_order();
}

#[tokio::test]
async fn another_tenants_restore_can_not_be_touched() {
    let door = Door::new().await;
    let id = door.asks(BOB, "orders").await.view.id;
    for (count, action) in ["restore_cancel", "restore_reject", "restore_approve", "restore_undo"].iter().enumerate() {
        door.send(&door.slack.press_forged("U0MALLORY", OTHER, action, &id.to_string())).await.expect(200);
        assert!(door.told(count + 1).await.contains("there is no restore"));
    }
    door.send(&door.slack.press_forged(BOB, SHOP, "restore_cancel", "' or 1=1")).await.expect(200);
    assert!(door.told(5).await.contains("there is no restore"));
    door.send(&door.slack.press_forged(VERA, SHOP, "restore_cancel", &id.to_string())).await.expect(200);
    assert!(door.told(6).await.contains("may only read"));
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    assert!(door.slack.messages(OTHER).is_empty());
    door.in_order();
}

#[tokio::test]
async fn who_may_only_look_does_not_ask() {
    let door = Door::new().await;
    assert!(door.types(VERA, SHOP, "list").await.text.contains("shop/orders"));
    assert!(door.types(VERA, SHOP, "restore orders").await.text.contains("not ask for a restore"));
    assert!(door.slack.views().is_empty());
    door.in_order();
}

#[tokio::test]
async fn a_database_that_is_managed_no_more_is_not_restored() {
    let door = Door::new().await;
    let view = door.opens(BOB, SHOP, "orders").await;
    door.world.execute("update claims set wish = 'retained' where name = 'orders'").await;
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await;
    assert!(reply.text.contains("Retained"), "{reply:?}");
    assert!(door.newest().await.is_none());
    door.in_order();
}

/// Alice by a token of hers, beside the people whom the settings give a role.
async fn with_alices_token(role: TokenRole, namespaces: &[&str]) -> (Door, String) {
    let door = Door::with(|settings| {
        settings.users.retain(|user| user.id != ALICE);
        let token = Some("alice".to_owned());
        settings.users.push(SlackUser { id: ALICE.to_owned(), role: None, namespaces: Vec::new(), token });
    })
    .await;
    let secret = add_token(&door, role, namespaces).await;
    (door, secret)
}

async fn add_token(door: &Door, role: TokenRole, namespaces: &[&str]) -> String {
    let namespaces = namespaces.iter().map(ToString::to_string).collect();
    let new = NewToken { name: "alice".to_owned(), role, namespaces, expires_at: None };
    let mut db = door.world.ledger.acquire().await.unwrap();
    create_token(&mut db, new).await.unwrap().1.expose_secret().to_owned()
}

#[tokio::test]
async fn who_has_asked_with_a_token_does_not_approve_in_slack() {
    let (door, token) = with_alices_token(TokenRole::Platform, &[]).await;
    let path = "/v1/namespaces/shop/databases/orders/restores";
    let asked = door.world.post(&token, path, json!({"from": {"latest": true}})).await.expect(202).json;
    let id = asked["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(asked["requestedBy"], "token:alice");
    door.presses(ALICE, PLATFORM, id, "restore_approve").await;
    assert!(door.told(1).await.contains("who asks for a restore on this cluster does not approve it"));
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    // And the other way round.
    door.presses(CAROL, PLATFORM, id, "restore_reject").await;
    let id = door.asks(ALICE, "carts").await.view.id;
    let refused = door.world.post(&token, &format!("/v1/restores/{id}/approve"), json!({})).await;
    assert!(refused.expect_problem(403, "forbidden").text.contains("does not approve it"));
    assert_eq!(door.newest().await.unwrap().view.requested_by, "token:alice");
    door.in_order();
}

#[tokio::test]
async fn a_token_that_is_over_is_over_in_slack() {
    let (door, _) = with_alices_token(TokenRole::Tenant, &["shop"]).await;
    assert!(door.types(ALICE, PLATFORM, "list").await.text.contains("shop/orders"));
    assert!(!door.types(ALICE, PLATFORM, "list").await.text.contains("other/secret"), "where the token may");
    let view = door.opens(ALICE, SHOP, "orders").await;
    door.world.execute("update tokens set expires_at = now() where name = 'alice'").await;
    let reply = door.send(&door.slack.submit(ALICE, &view.id, &[("reason", json!("x"))])).await;
    assert!(reply.text.contains("You may not ask for this here"), "{reply:?}");
    assert!(door.types(ALICE, SHOP, "list").await.text.contains("Please ask the platform team"));
    assert!(door.newest().await.is_none());
    add_token(&door, TokenRole::Viewer, &["shop"]).await;
    assert!(door.types(ALICE, SHOP, "list").await.text.contains("shop/orders"), "a new one of this name");
    add_token(&door, TokenRole::Platform, &[]).await;
    assert!(door.types(ALICE, SHOP, "list").await.text.contains("Please ask the platform team"), "which of two?");
    door.in_order();
}

#[tokio::test]
async fn people_whom_nobody_has_named_look_and_do_nothing() {
    let door = Door::with(|settings| settings.unlisted = SlackUnlisted::default()).await;
    for typed in ["list", "status", "status orders", "snapshots orders"] {
        assert!(!door.types(BOB, SHOP, typed).await.text.contains("Please ask"), "{typed}");
    }
    let told = door.types(BOB, SHOP, "restore orders").await;
    assert!(told.text.contains("not ask for a restore") && told.text.contains("<#C0PLATFORM>"), "{told:?}");
    assert!(door.slack.views().is_empty());
    let id = door.asks(ALICE, "play").await.view.id;
    for (count, action) in ["restore_approve", "restore_reject", "restore_cancel", "restore_undo"].iter().enumerate() {
        door.send(&door.slack.press_forged(BOB, SHOP, action, &id.to_string())).await.expect(200);
        assert!(door.told(count + 1).await.contains("may only read"), "{action}");
    }
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    let (shut, _running) = door.another_with(|settings| settings.unlisted = SlackUnlisted::Nothing);
    let reply = door.send_to(&shut, &door.slack.command(BOB, SHOP, "list")).await;
    assert!(reply.text.contains("Please ask the platform team"), "{reply:?}");
    door.in_order();
}

#[tokio::test]
async fn people_of_another_workspace_are_strangers_in_a_shared_channel() {
    let door = Door::with(|settings| settings.team = Some("T0TEAM".to_owned())).await;
    let view = door.opens(ALICE, SHOP, "orders").await;
    let id = door.asks(BOB, "play").await.view.id;
    let foreign = |payload: &mut serde_json::Value| payload["user"]["team_id"] = json!("T0THEIRS");
    let sent = door.slack.submit_forged(ALICE, &view.id, &[("reason", json!("x"))], foreign);
    assert!(door.send(&sent).await.expect(200).text.contains("You may not ask for this here"));
    let (theirs, _running) = door.another_with(|settings| settings.team = Some("T0THEIRS".to_owned()));
    let reply = door.send_to(&theirs, &door.slack.command(ALICE, SHOP, "list")).await;
    assert!(reply.text.contains("Please ask the platform team"), "{reply:?}");
    door.send_to(&theirs, &door.slack.press_forged(ALICE, SHOP, "restore_approve", &id.to_string())).await.expect(200);
    assert!(door.told(1).await.contains("Please ask the platform team"));
    assert_eq!(door.phase(id).await, RestorePhase::Requested);
    door.in_order();
}

#[tokio::test]
async fn a_channel_that_is_linked_to_somebody_else_now_is_told_nothing_more() {
    let door = Door::new().await;
    let view = door.opens(BOB, QUIET, "orders").await;
    door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await.expect(200);
    let id = door.newest().await.unwrap().view.id;
    door.sees(QUIET, id, |_| true).await;
    door.settles().await;
    door.kill();
    let (_other, running) = door.another_with(|settings| settings.channels[2].namespaces = vec!["other".to_owned()]);
    door.world.post(&door.world.platform, &format!("/v1/restores/{id}/cancel"), json!({})).await.expect(200);
    door.sees(SHOP, id, |one| one.read().contains("*Cancelled*")).await;
    door.settles().await;
    let told = door.slack.messages(QUIET);
    assert!(told.len() == 1 && told[0].edits == 0, "{told:#?}");
    running.abort();
    door.in_order();
}

#[tokio::test]
async fn a_name_in_several_namespaces_has_to_be_told_apart() {
    let door = Door::with(|settings| settings.channels[0].namespaces.push("shop-dev".to_owned())).await;
    claim(&door.world.ledger, "shop-dev", "orders", "dev").await;
    let reply = door.types(BOB, SHOP, "status orders").await;
    assert!(reply.text.contains("`shop/orders`") && reply.text.contains("`shop-dev/orders`"), "{reply:?}");
    assert!(door.types(BOB, SHOP, "status shop-dev/orders").await.text.contains("on cluster dev"));
    door.in_order();
}

#[tokio::test]
async fn hostile_text_is_only_text() {
    let door = Door::new().await;
    for typed in
        ["status <!channel>", "status <@U1|x>", "restore `*_~&amp;", "snapshots '; drop table claims", "list \u{202e}"]
    {
        door.types(BOB, SHOP, typed).await;
    }
    let view = door.opens(BOB, SHOP, "orders").await;
    let reason = format!("<!here> <https://evil.example|click> & `x` \u{202e}{}", "é<".repeat(200));
    door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!(reason))])).await.expect(200);
    let id = door.newest().await.unwrap().view.id;
    let shown = door.sees(SHOP, id, |_| true).await;
    assert!(shown.read().contains("&lt;!here&gt;") && !shown.read().contains('\u{202e}'), "{}", shown.read());
    let view = door.opens(BOB, SHOP, "carts").await;
    let long = json!("ü".repeat(600));
    let reply = door.send(&door.slack.submit(BOB, &view.id, &[("reason", long)])).await;
    assert!(reply.text.contains("at most 1000 bytes"), "{reply:?}");
    eventually("messages", || async { door.slack.messages(PLATFORM).len() == 1 }).await;
    door.in_order();
}

#[tokio::test]
async fn without_a_channel_of_the_platform_team_its_people_approve_where_it_was_asked_for() {
    let door = Door::with(|settings| settings.platform_channel = None).await;
    let view = door.opens(BOB, SHOP, "orders").await;
    door.send(&door.slack.submit(BOB, &view.id, &[("reason", json!("x"))])).await.expect(200);
    let id = door.newest().await.unwrap().view.id;
    door.presses("U0EVE", SHOP, id, "restore_approve").await;
    assert!(door.told(1).await.contains("approved by the platform team"));
    door.presses(ALICE, SHOP, id, "restore_approve").await;
    assert_eq!(door.phase(id).await, RestorePhase::Approved);
    assert!(door.types(BOB, "C0NOWHERE", "list").await.text.contains("Please ask the platform team."));
    door.in_order();
}
