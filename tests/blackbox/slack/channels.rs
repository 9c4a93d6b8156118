//! Which channel hears of a database.

use pgtenant_tests::{SiteOptions, eventually};
use serde_json::json;

use super::{BOB, ORDERS, PATIENCE, PLATFORM, SHOP, Workspace};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_names_a_channel_of_its_namespace_and_no_other() {
    let work = Workspace::open(SiteOptions::shared().await).await;
    let serve = work.serve("serve").await;
    let api = serve.api();
    let path = format!("/v1/namespaces/{}/databases", work.namespace);
    for (name, channel) in [("orders", Some("#orders")), ("carts", Some(PLATFORM)), ("stock", None)] {
        let made = api.post(&path, json!({"name": name, "slackChannel": channel})).await.expect(201).json;
        assert_eq!(made["slackChannel"].as_str(), channel);
    }
    let hears = async |channel: &str, all: &[&str]| {
        eventually(&format!("{all:?} in {channel}"), PATIENCE, || async {
            let said: String = work.slack.messages(channel).iter().map(|one| one.read()).collect();
            if all.iter().all(|one| said.contains(one)) { Ok(said) } else { Err(said) }
        })
        .await
    };
    let own = hears(ORDERS, &["/orders* is Ready"]).await;
    assert!(!own.contains("/carts") && !own.contains("/stock"), "{own}");
    let finding = format!("`{PLATFORM}` is not a channel that the platform team has linked to `{}`", work.namespace);
    let all = hears(SHOP, &["/carts* is Ready", "/stock* is Ready", &finding]).await;
    assert!(!all.contains("/orders"), "{all}");
    assert!(work.send(&api, &work.slack.command(BOB, SHOP, "status carts")).await.contains(&finding));
    assert_eq!(work.slack.messages(PLATFORM).len(), 0);
    work.settled().await;
    work.in_order(&[&serve]);
}
