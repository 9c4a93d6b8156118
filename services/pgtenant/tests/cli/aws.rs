//! `aws iam-policy`.

use serde_json::Value;

use crate::run::{bare, end};

fn policy(args: &[&str]) -> Value {
    let args: Vec<&str> = ["aws", "iam-policy"].iter().chain(args).copied().collect();
    end(bare(&args).env_remove("AWS_REGION")).expect(0).json()
}

fn write(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    (dir, file.to_str().unwrap().to_owned())
}

const SETTINGS: &str = r#"
[ledger]
url = "postgresql://u@db/l"

[clusters.one]
topology = { streaming = { hosts = ["a:1"] } }
provisioner = { username = "p", passwordFile = "/x" }
stores = [{ awsSecretsManager = { region = "eu-west-1" } }]

[clusters.two]
topology = { streaming = { hosts = ["a:1"] } }
provisioner = { username = "p", passwordFile = "/x" }
stores = [{ kubernetes = {} }]
formerStores = [{ awsSecretsManager = { name = "old/{role}", region = "eu-west-1" } }]
"#;

#[test]
fn a_policy_is_made_of_the_settings() {
    let (_dir, file) = write("pgtenant.toml", SETTINGS);
    let all = policy(&["--config", &file, "--account", "123456789012"]);
    let statements = all["Statement"].as_array().unwrap();
    let sids: Vec<&str> = statements.iter().map(|one| one["Sid"].as_str().unwrap()).collect();
    assert_eq!(sids, ["List", "Describe", "Create", "Change", "Describe2", "Create2", "Change2"]);
    let text = all.to_string();
    for arn in
        ["customer/*", "old/*"].map(|name| format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}"))
    {
        assert!(text.contains(&arn), "no {arn} in {text}");
    }
    let one = policy(&["--config", &file, "--cluster", "one", "--for", "external-secrets"]);
    assert_eq!(one["Statement"].as_array().unwrap().len(), 1);
    assert_eq!(one["Statement"][0]["Resource"][0], "arn:aws:secretsmanager:eu-west-1:*:secret:customer/*");
}

#[test]
fn a_policy_is_made_of_a_cluster_in_a_file() {
    let (_dir, file) = write(
        "cluster.yaml",
        "apiVersion: pgtenant.io/v1\nkind: PostgresqlCluster\nmetadata: {name: a}\nspec:\n  topology: {streaming: {hosts: [\"a:1\"]}}
  provisioner: {secretRef: {name: p, namespace: n}}\n  stores: [{awsSecretsManager: {name: \"db/{role}\"}}]\n",
    );
    let found = policy(&["-f", &file, "--region", "us-gov-west-1"]).to_string();
    assert!(found.contains("arn:aws-us-gov:secretsmanager:us-gov-west-1:*:secret:db/*"), "{found}");
}

#[test]
fn a_cluster_of_aurora_needs_rds_and_its_login() {
    let (_dir, file) = write(
        "cluster.yaml",
        "topology: {aurora: {region: eu-west-1, clusterIdentifier: shared, create: {minAcu: 0.5, maxAcu: 4}}}
provisioner: {awsSecret: {name: pgtenant/shared, region: eu-west-1}}
backups: {rds: {ensure: true}}
stores: [{file: {directory: /x}}]\n",
    );
    let found = policy(&["-f", &file, "--account", "123456789012"]);
    let statements = found["Statement"].as_array().unwrap();
    let sids: Vec<&str> = statements.iter().map(|one| one["Sid"].as_str().unwrap()).collect();
    assert_eq!(
        sids,
        ["ReplaceLogin", "MakeLogin", "Login", "Rds", "RdsRestore", "RdsCopyInstance", "RdsCopy", "RdsSnapshot"]
    );
    let secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:";
    let read = [format!("{secret}pgtenant/shared-??????"), format!("{secret}rds!cluster-*")];
    assert_eq!(statements[2]["Resource"], serde_json::json!(read));
    let replace = (&statements[0]["Action"], &statements[0]["Resource"]);
    assert_eq!(replace, (&serde_json::json!(["secretsmanager:PutSecretValue"]), &serde_json::json!(read[0])));
    let text = statements[3]["Action"].to_string();
    assert!(text.contains("rds:CreateDBCluster") && !text.contains("Delete"), "{text}");
    // What is deleted was made for a restore, or taken, by pgtenant: its name says so.
    let rds = "arn:aws:rds:eu-west-1:123456789012:";
    let copy = [format!("{rds}cluster:pgtenant-restore-*"), format!("{rds}db:pgtenant-restore-*")];
    assert_eq!(statements[6]["Resource"], serde_json::json!(copy));
    assert!(statements[6]["Action"].to_string().contains("rds:DeleteDBCluster"), "{}", statements[6]);
    let taken = [format!("{rds}cluster:shared"), format!("{rds}cluster-snapshot:pgtenant-snapshot-*")];
    assert_eq!(statements[7]["Resource"], serde_json::json!(taken));
    end(bare(&["aws", "iam-policy", "-f", &file, "--for", "external-secrets"]).env_remove("AWS_REGION")).expect(1);
}

#[test]
fn what_can_not_be_meant_is_said() {
    let (_dir, file) = write("pgtenant.toml", SETTINGS);
    for (args, status, said) in [
        (&["--config", &file, "--account", "12"][..], 2, "is not a number of 12 digits"),
        (&["--config", &file, "--region", "\"*"], 2, "is not a region"),
        (&["--config", &file, "--cluster", "three"], 1, "have no cluster \"three\""),
        (&["--config", &file, "--set", "clusters.two.formerStores=[]", "--cluster", "two"], 1, "hint: a cluster keeps"),
        (&["-f", &file], 1, "pgtenant.toml"),
    ] {
        let args: Vec<&str> = ["aws", "iam-policy"].iter().chain(args).copied().collect();
        let ended = end(&mut bare(&args)).expect(status);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
}
