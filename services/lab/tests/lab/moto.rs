//! moto, which plays Amazon.

use pgtenant_lab::{Moto, MotoProgram};

use crate::folder;

#[tokio::test]
async fn moto_comes_back_on_its_port_and_knows_nothing() {
    let dir = folder();
    let program = MotoProgram::locate_or_install(|_| {}).await.expect("Python 3 with venv and pip");
    let mut first = Moto::start(dir.path(), program.clone()).await.expect("moto");
    let url = first.url().to_owned();
    let ask = async |operation: &str, body: &str| {
        let request = reqwest::Client::new().post(&url).body(body.to_owned());
        let request = request.header("X-Amz-Target", format!("secretsmanager.{operation}"));
        let request = request.header("Content-Type", "application/x-amz-json-1.1");
        // moto knows the service by this; it checks no signature.
        let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=a";
        let request = request.header("Authorization", scope);
        request.send().await.expect("an answer").text().await.expect("a text")
    };
    rustls::crypto::ring::default_provider().install_default().ok();
    ask(
        "CreateSecret",
        r#"{"Name": "a", "SecretString": "b", "ClientRequestToken": "00000000-0000-0000-0000-000000000000"}"#,
    )
    .await;
    assert!(ask("ListSecrets", "{}").await.contains("\"Name\": \"a\""));
    first.stop().await.expect("an end");
    let second = Moto::start(dir.path(), program).await.expect("moto");
    assert_eq!(second.url(), url);
    assert!(!ask("ListSecrets", "{}").await.contains("\"Name\""));
}
