//! The charts, against the real API server.

use std::fs;
use std::process::Command;

use pgtenant_tests::{Folder, Kube, can, databases, repository, run};
use serde_json::Value;

use crate::shared;

/// Their definitions are somebody else's, and not here.
const ELSEWHERE: [&str; 5] = ["HTTPRoute", "ServiceMonitor", "PrometheusRule", "Certificate", "Issuer"];

/// `helm template`, in one file, without what this API server does not know.
async fn rendered(kube: &Kube, folder: &Folder, args: &[&str]) -> String {
    let text = kube.helm(&[&["template", "test"], args].concat()).await.expect(0).stdout;
    let known: Vec<_> = text
        .split("\n---\n")
        .filter(|document| !ELSEWHERE.iter().any(|kind| document.contains(&format!("\nkind: {kind}\n"))))
        .collect();
    let file = folder.join(format!("{}.yaml", pgtenant_tests::unique("rendered")));
    fs::write(&file, known.join("\n---\n")).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn what_the_charts_render_is_taken_by_the_api_server_to_the_letter() {
    // Nothing of the charts is here yet, and no control plane that would write into it.
    let lab = pgtenant_testkit::own_kubernetes().await;
    let kube = Kube::new(&lab.kubeconfig());
    let folder = Folder::new("rendered");
    for namespace in ["shop", "monitoring"] {
        kube.kubectl(&["create", "namespace", namespace]).await.expect(0);
    }
    let repository = repository();
    let values = |name: &str| repository.join(format!("tests/charts/values/{name}.yaml")).display().to_string();
    let chart = |name: &str| repository.join("charts").join(name).display().to_string();
    let crds = repository.join("crds").display().to_string();
    let strictly = ["apply", "--dry-run=server", "--validate=strict", "--filename"];
    for (name, file) in [
        ("pgtenant", "pgtenant-small"),
        ("pgtenant", "pgtenant-full"),
        ("idp-postgresql", "idp-postgresql-documents"),
        ("idp-postgresql", "idp-postgresql-full"),
    ] {
        if name == "idp-postgresql" {
            kube.kubectl(&["apply", "--server-side", "--filename", &crds]).await.expect(0);
        }
        let args = [&*chart(name), "--namespace", "shop", "--kube-version", "1.36.0", "--values", &*values(file)];
        let file = rendered(&kube, &folder, &args).await;
        let done = kube.kubectl(&[&strictly[..], &[&file]].concat()).await.expect(0);
        assert_eq!(done.stderr, "", "no warning either");
        assert!(done.stdout.contains("(server dry run)"), "{}", done.stdout);
    }
}

/// The four lines of the tenants' documents.
const VALUES: &str = "# As in the tenants' documents.\npostgresqlDatabases:\n  - name: my-db\n    mode: standard\n";

#[tokio::test]
async fn four_lines_of_values_end_with_an_application_that_writes_over_verified_tls() {
    let kube = shared::kubernetes().await.kube();
    let namespace = kube.namespace("idp-dev").await;
    let folder = Folder::new("four-lines");
    let (values, ca) = (folder.join("values.yaml"), folder.join("ca.crt"));
    fs::write(&values, VALUES).unwrap();
    let file = repository().join("tests/charts/values/idp-postgresql-documents.yaml");
    assert_eq!(fs::read_to_string(file).unwrap(), VALUES);
    let chart = repository().join("charts/idp-postgresql").display().to_string();
    let release = ["app", &chart, "--namespace", &namespace, "--values", &values.display().to_string()];
    kube.helm(&[&["install"], &release[..]].concat()).await.expect(0);
    let wait = ["--namespace", &namespace, "wait", "pgdb/my-db", "--for=condition=Ready", "--timeout=60s"];
    kube.kubectl(&wait).await.expect(0);

    let admin = kube.credential(&namespace, "my-db", "admin").await;
    can(&admin, "create table orders (item text)").await;
    // As a Pod: variables from the Secret's keys, the authority mounted as a file, and nothing else.
    let secret = kube.secret(&namespace, &format!("{namespace}-my-db-write")).await.expect("the Secret");
    let value = |key: &str| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    fs::write(&ca, value("ca.crt")).unwrap();
    let mut psql = Command::new("psql");
    psql.env_clear().env("PATH", "/usr/bin:/bin").env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &ca);
    for (variable, key) in
        [("PGUSER", "username"), ("PGPASSWORD", "password"), ("PGHOST", "endpoint"), ("PGPORT", "port")]
    {
        psql.env(variable, value(key));
    }
    psql.env("PGDATABASE", format!("{namespace}-my-db"));
    let sql = "insert into orders values ('first') returning item, (select ssl from pg_stat_ssl where pid = pg_backend_pid())";
    psql.args(["-qAtc", sql]);
    assert_eq!(run(psql).await.expect(0).stdout.trim(), "first|t");

    tells_the_story(&kube, &namespace).await;
    nothing_is_left_to_change(&kube, &namespace, &folder, &release).await;
}

/// `kubectl get`, as people see it.
async fn tells_the_story(kube: &Kube, namespace: &str) {
    let get = async |args: &[&str]| {
        let args = [&["--namespace", namespace, "get"], args].concat();
        kube.kubectl(&args).await.expect(0).stdout
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let narrow = get(&["pgdb"]).await;
    let lines: Vec<_> = narrow.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "MODE", "DATABASE", "STATE", "AGE"], "{narrow}");
    assert_eq!(lines[1][..4], ["my-db", "standard", &*format!("{namespace}-my-db"), "Ready"], "{narrow}");
    let wide = get(&["pgdb", "--output", "wide"]).await;
    let lines: Vec<_> = wide.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "MODE", "DATABASE", "STATE", "ENDPOINT", "CLUSTER", "REASON", "AGE"], "{wide}");
    assert_eq!(lines[1][3..7], ["Ready", "localhost", "default", "Provisioned"], "{wide}");
    for former in ["v1beta1", "v1alpha1"] {
        let kind = format!("postgresqldatabases.{former}.pgtenant.io");
        let table = get(&[&kind]).await;
        assert_eq!(words(table.lines().next().unwrap()), ["NAME", "PROTECTED", "DATABASE", "STATE", "AGE"], "{table}");
    }
    assert!(get(&["pgtenant"]).await.contains("my-db"), "the category has it");
}

/// What is live is what is in Git: nobody who compares them finds a difference, now or ever.
async fn nothing_is_left_to_change(kube: &Kube, namespace: &str, folder: &Folder, release: &[&str]) {
    let path = format!("{}/my-db", databases(namespace));
    let version = async || {
        let object: Value = kube.api().get(&path).await.expect(200).json;
        (object["metadata"]["generation"].clone(), object["metadata"]["resourceVersion"].clone())
    };
    let manifest = kube.helm(&["get", "manifest", "app", "--namespace", namespace]).await.expect(0).stdout;
    let file = folder.join("manifest.yaml");
    fs::write(&file, manifest).unwrap();
    let file = file.display().to_string();
    for how in
        [&["diff"][..], &["diff", "--server-side"], &["diff", "--server-side", "--field-manager=argocd-controller"]]
    {
        let args = [how, &["--namespace", namespace, "--filename", &file]].concat();
        let done = kube.kubectl(&args).await;
        assert!(done.status == 0, "{how:?}: {}{}", done.stdout, done.stderr);
    }
    let before = version().await;
    kube.helm(&[&["upgrade"], release].concat()).await.expect(0);
    assert_eq!(version().await, before, "an upgrade to the same writes nothing");
}
