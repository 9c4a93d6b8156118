//! Credentials in AWS Secrets Manager: on moto, and on a fake that answers as AWS documents it where moto does not.

use std::path::Path;

use pgtenant_testkit::{FakeSecretsManager, Trouble};
use pgtenant_tests::{Api, Credential, Dev, Folder, Site, SiteOptions, TIERS, can, soon, unique};
use serde_json::{Value, json};

use crate::shared::Plane;

/// Secrets Manager as anybody sees it who may.
struct SecretsManager(Api);

impl SecretsManager {
    async fn ask(&self, operation: &str, input: Value) -> Value {
        // moto knows service and region by this, and checks no signature.
        let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=a";
        let target = format!("secretsmanager.{operation}");
        let headers =
            [("x-amz-target", &*target), ("content-type", "application/x-amz-json-1.1"), ("authorization", scope)];
        self.0.send("POST", "/", &headers, Some(&input)).await.json
    }

    async fn credential(&self, namespace: &str, name: &str, tier: &str) -> Result<Credential, String> {
        let id = format!("customer/{namespace}/{namespace}-{name}-{tier}");
        let answer = self.ask("GetSecretValue", json!({ "SecretId": id })).await;
        Credential::parse(answer["SecretString"].as_str().ok_or_else(|| answer.to_string())?)
    }

    async fn is_scheduled_for_deletion(&self, namespace: &str, name: &str, tier: &str) -> bool {
        let id = format!("customer/{namespace}/{namespace}-{name}-{tier}");
        self.ask("DescribeSecret", json!({ "SecretId": id })).await["DeletedDate"].is_number()
    }

    /// Waits until all three are there, and logs in with each.
    async fn works(&self, namespace: &str, name: &str, files: &Path) {
        for tier in TIERS {
            let role = format!("{namespace}-{name}-{tier}");
            let found = soon(&format!("secret {role}"), || self.credential(namespace, name, tier)).await;
            assert_eq!(found, Credential::read(files, namespace, name, tier), "the stores agree");
            can(&found, "select 1").await;
        }
    }
}

#[tokio::test]
async fn with_dev_a_claim_has_three_secrets_which_come_back_by_themselves() {
    let folder = Folder::new("aws");
    let dir = folder.join("data");
    let mut dev = Dev::start_with(&dir, &["--aws"]).await;
    assert!(dev.greeting.contains("moto at http://127.0.0.1:"), "{}", dev.greeting);
    let amazon = SecretsManager(Api::new(&dev.variable("AWS_ENDPOINT_URL"), None));
    for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        assert!(!dev.variable(name).is_empty(), "{name}");
    }
    let made = dev.api().ready("shop", "orders").await;
    let stores = made["roles"]["read"]["stores"].to_string();
    assert!(stores.contains("awsSecretsManager") && stores.contains("customer/shop/shop-orders-read"), "{stores}");
    amazon.works("shop", "orders", &dev.secrets()).await;
    amazon.works("demo", "orders", &dev.secrets()).await;

    // Removed and wished for again, while the names are scheduled for deletion.
    dev.api().delete("/v1/namespaces/shop/databases/orders").await.expect(202);
    dev.api().is_gone("shop", "orders").await;
    for tier in TIERS {
        assert!(amazon.is_scheduled_for_deletion("shop", "orders", tier).await, "{tier}");
    }
    dev.api().ready("shop", "orders").await;
    amazon.works("shop", "orders", &dev.secrets()).await;
    let before = Credential::of(&dev.secrets(), "shop", "orders");

    // moto keeps nothing.
    dev.interrupt().await;
    let mut dev = Dev::start_with(&dir, &["--aws"]).await;
    let amazon = SecretsManager(Api::new(&dev.variable("AWS_ENDPOINT_URL"), None));
    dev.api().is_ready("shop", "orders").await;
    amazon.works("shop", "orders", &dev.secrets()).await;
    assert_eq!(Credential::of(&dev.secrets(), "shop", "orders"), before, "no password has changed");
    dev.interrupt().await;
}

/// A control plane whose only store is in Secrets Manager, or one beside files.
async fn plane(fake: &FakeSecretsManager, stores: &str) -> Plane {
    let stores = vec![("default".to_owned(), stores.to_owned())];
    let site = Site::new(SiteOptions { stores, ..SiteOptions::shared().await }).await;
    let env = [
        ("AWS_ENDPOINT_URL", fake.url()),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "a"),
    ];
    let serve = site.serve_with("serve", &env).await;
    serve.is_ready().await;
    Plane { site, serve }
}

fn condition(db: &Value) -> String {
    db["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready").map_or(
        String::new(),
        |ready| {
            format!(
                "{}: {}",
                ready["reason"].as_str().unwrap_or_default(),
                ready["message"].as_str().unwrap_or_default()
            )
        },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_secret_is_a_conflict_that_is_told_and_ends_when_it_goes() {
    let fake = FakeSecretsManager::start().await;
    let plane = plane(&fake, "[{ awsSecretsManager = {} }]").await;
    let namespace = unique("conflict");
    let name = format!("customer/{namespace}/{namespace}-data-write");
    fake.change(&name, |secret| secret.put(&"a".repeat(32), "theirs"));
    let theirs = fake.secret(&name);
    plane.api().create(&namespace, "data").await;
    let db =
        plane.api().comes_to(&namespace, "data", "a conflict", |db| condition(db).starts_with("StoreConflict")).await;
    for part in [&*name, "managed-by=pgtenant", "give it another name"] {
        assert!(condition(&db).contains(part), "no {part}: {}", condition(&db));
    }
    assert_eq!(fake.secret(&name), theirs);
    // Its owner removes it for good.
    fake.forget_secrets();
    plane.api().is_ready(&namespace, "data").await;
    assert!(fake.secret(&name).unwrap().text().unwrap().contains("password"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_rest_no_secret_is_read() {
    let fake = FakeSecretsManager::start().await;
    let plane = plane(&fake, "[{ awsSecretsManager = {} }]").await;
    let namespace = unique("idle");
    plane.api().ready(&namespace, "one").await;
    plane.api().ready(&namespace, "two").await;
    let looks = async || plane.serve.metric("pgtenant_looks_total").await;
    let settled = looks().await;
    let wait = async |more: f64| {
        soon("looks are taken", || async {
            let now = looks().await;
            if now >= settled + more { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    };
    wait(4.0).await;
    fake.forget_calls();
    wait(10.0).await;
    let calls = fake.calls();
    assert!(calls.iter().all(|call| call.operation == "ListSecrets") && calls.len() <= 1, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_with_the_action_and_work_goes_on_when_it_is_allowed() {
    let fake = FakeSecretsManager::start().await;
    let plane = plane(&fake, "[{ file = { directory = \"DIR\" } }, { awsSecretsManager = {} }]").await;
    let namespace = unique("denied");
    fake.order("CreateSecret", Trouble::Deny, 6);
    plane.api().create(&namespace, "data").await;
    let db = plane.api().comes_to(&namespace, "data", "a refusal", |db| condition(db).starts_with("Store")).await;
    for part in ["secretsmanager:CreateSecret", "AccessDenied", "pgtenant aws iam-policy"] {
        assert!(condition(&db).contains(part), "no {part}: {}", condition(&db));
    }
    plane.api().is_ready(&namespace, "data").await;
    for tier in TIERS {
        let secret = fake.secret(&format!("customer/{namespace}/{namespace}-data-{tier}")).unwrap();
        let stored = Credential::parse(secret.text().unwrap()).unwrap();
        assert_eq!(stored, Credential::read(&plane.site.secrets, &namespace, "data", tier));
        can(&stored, "select 1").await;
    }
}
