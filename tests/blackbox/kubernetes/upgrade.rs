//! From the charts that tenants have to today's: the same object, database, data and passwords.

use std::fs;
use std::path::PathBuf;

use pgtenant_tests::{
    Apps, Cli, Credential, Finished, Folder, Kube, TIERS, can, connect, databases, repository, try_sql,
};
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::shared;

/// What chart 0.4.1 can say of removal, and what that is today.
const POLICIES: [(&str, bool, &str, &str, &str); 5] = [
    ("plain", false, "Delete", "Delete", "standard"),
    ("roles", false, "Orphan", "Delete", "protected"),
    ("data", false, "Delete", "Orphan", "protected"),
    ("safe", true, "Delete", "Delete", "protected"),
    ("all", true, "Orphan", "Orphan", "protected"),
];
const PLACE: &str = "orders";

/// An application of a team, with its Helm release.
struct Team {
    kube: Kube,
    namespace: String,
    folder: Folder,
    apps: Apps,
}

impl Team {
    async fn new(prefix: &str) -> Self {
        let kube = shared::kubernetes().await.kube();
        let folder = Folder::new(prefix);
        let namespace = kube.namespace(prefix).await;
        Self { apps: Apps::new(folder.join("apps")), folder, namespace, kube }
    }

    fn place(&self) -> String {
        format!("{}/{PLACE}", self.namespace)
    }

    fn write(&self, chart_version: &str, values: &str) {
        let application = self.apps.root().join(self.place()).join("application.yaml");
        fs::create_dir_all(application.parent().unwrap()).unwrap();
        let text = format!(
            "apiVersion: v2\nname: orders\nversion: 0.1.0\nhelm:\n  chart: idp-postgresql\n  chartVersion: {chart_version}\n"
        );
        fs::write(&application, text).unwrap();
        self.apps.write(&self.place(), values);
    }

    async fn helm(&self, command: &[&str], chart: PathBuf) -> Finished {
        let (chart, values) = (chart.display().to_string(), self.apps.values_file(&self.place()).display().to_string());
        let rest = ["orders", &chart, "--namespace", &self.namespace, "--values", &values];
        self.kube.helm(&[command, &rest].concat()).await
    }

    async fn uninstall(&self) {
        self.kube.helm(&["uninstall", "orders", "--namespace", &self.namespace]).await.expect(0);
    }

    async fn credentials(&self, name: &str) -> Vec<Credential> {
        let mut all = Vec::new();
        for tier in TIERS {
            all.push(self.kube.credential(&self.namespace, name, tier).await);
        }
        all
    }

    /// Rewrites the values as a team does, and takes today's chart.
    async fn migrate(&self) {
        let apps = self.apps.root().display().to_string();
        let shown = Cli::new().run(&["migrate", "values", "-f", &apps]).await.expect(0);
        assert!(
            shown.stdout.contains("+postgresqlDatabases:") || shown.stdout.contains("+    mode: "),
            "{}",
            shown.stdout
        );
        Cli::new().run(&["migrate", "values", "-f", &apps, "--write"]).await.expect(0);
        let values = fs::read_to_string(self.apps.values_file(&self.place())).unwrap();
        for gone in ["tenantDatabases", "deletionProtection", "DeletionPolicy"] {
            assert!(!values.contains(gone), "{values}");
        }
        let upgraded = self.helm(&["upgrade"], today()).await.expect(0);
        assert!(!upgraded.stderr.contains("deprecated"), "{}", upgraded.stderr);
    }
}

fn old(version: &str) -> PathBuf {
    repository().join(format!("tests/charts/idp-postgresql-{version}"))
}

fn today() -> PathBuf {
    repository().join("charts/idp-postgresql")
}

fn values_0_4_1() -> String {
    let mut values = "# What customers have ordered\ntenantDatabases:\n".to_owned();
    for (name, protection, roles, database, _) in POLICIES {
        values += &format!(
            "  - name: {name}\n    deletionProtection: {protection}\n    roleDeletionPolicy: {roles}\n    \
             dbDeletionPolicy: {database}\n"
        );
    }
    values
}

/// A database as it was before an upgrade.
struct Before {
    name: &'static str,
    uid: Value,
    credentials: Vec<Credential>,
}

/// Waits for the database, and fills a table as a migration does.
async fn fill(team: &Team, name: &'static str) -> Before {
    let object = team.kube.is_ready(&team.namespace, name).await;
    let credentials = team.credentials(name).await;
    can(&credentials[2], "create table orders (id int primary key, item text); insert into orders values (1, 'kept')")
        .await;
    Before { name, uid: object["metadata"]["uid"].clone(), credentials }
}

async fn row(credential: &Credential) -> String {
    let mut connection = connect(credential).await.unwrap();
    let row = sqlx::query("select item from orders where id = 1").fetch_one(&mut connection).await.unwrap();
    row.get(0)
}

/// It is the same object, with the same data behind the same passwords, in this mode.
async fn is_kept(team: &Team, before: &Before, mode: &str) {
    let name = before.name;
    let object = team.kube.is_ready(&team.namespace, name).await;
    assert_eq!(object["metadata"]["uid"], before.uid, "{name}");
    assert_eq!(object["spec"], json!({"mode": mode, "cluster": "default"}), "{name}");
    assert_eq!(team.credentials(name).await, before.credentials, "{name}: no password has changed");
    assert_eq!(row(&before.credentials[0]).await, "kept", "{name}");
}

#[tokio::test]
async fn chart_0_4_1_becomes_chart_1_with_the_same_objects_data_and_passwords() {
    let team = Team::new("from041").await;
    team.write("0.4.1", &values_0_4_1());
    let installed = team.helm(&["install"], old("0.4.1")).await.expect(0);
    assert!(installed.stderr.contains("pgtenant.io/v1alpha1 PostgresqlDatabase is deprecated"), "{}", installed.stderr);
    let mut before = Vec::new();
    for (name, ..) in POLICIES {
        before.push(fill(&team, name).await);
    }
    // What is there already is not written again by an upgrade to the same.
    team.helm(&["upgrade"], old("0.4.1")).await.expect(0);

    team.migrate().await;
    for (database, (.., mode)) in before.iter().zip(POLICIES) {
        is_kept(&team, database, mode).await;
        let fields =
            team.kube.api().get(&format!("{}/{}", databases(&team.namespace), database.name)).await.expect(200);
        assert!(!fields.json["spec"].to_string().contains("Policy"), "{}", fields.text);
    }
    assert!(team.folder.path().exists());

    team.uninstall().await;
    for (database, (name, .., mode)) in before.iter().zip(POLICIES) {
        team.kube.is_gone(&team.namespace, name).await;
        let role = format!("{}-{name}-write", team.namespace);
        let secret = team.kube.secret(&team.namespace, &role).await;
        if mode == "standard" {
            assert!(secret.is_none(), "{name}");
            assert_eq!(try_sql(&database.credentials[1], "select 1").await, Err("28P01".to_owned()), "{name}");
        } else {
            assert!(secret.is_some(), "{name}");
            assert_eq!(row(&database.credentials[0]).await, "kept", "{name}");
            let api = shared::kubernetes().await.plane.api();
            let claim = api.get(&format!("/v1/namespaces/{}/databases/{name}", team.namespace)).await.expect(200).json;
            assert_eq!(claim["state"], "Retained", "{name}");
        }
    }

    team.helm(&["install"], today()).await.expect(0);
    for (database, (name, .., mode)) in before.iter().zip(POLICIES) {
        team.kube.is_ready(&team.namespace, name).await;
        let now = team.credentials(name).await;
        if mode == "standard" {
            assert_ne!(now, database.credentials, "{name} is a new one");
            assert_eq!(try_sql(&now[2], "select from orders").await, Err("42P01".to_owned()), "and empty");
        } else {
            assert_eq!(now, database.credentials, "{name} is taken back with its passwords");
            assert_eq!(row(&now[0]).await, "kept", "{name}");
        }
    }
}

#[tokio::test]
async fn chart_0_5_0_becomes_chart_1_with_the_same_objects_data_and_passwords() {
    let team = Team::new("from050").await;
    team.write("0.5.0", "postgresqlDatabases:\n  - name: plain\n  - name: safe\n    deletionProtection: true\n");
    let installed = team.helm(&["install"], old("0.5.0")).await.expect(0);
    assert!(installed.stderr.contains("pgtenant.io/v1beta1 PostgresqlDatabase is deprecated"), "{}", installed.stderr);
    let (plain, safe) = (fill(&team, "plain").await, fill(&team, "safe").await);
    team.migrate().await;
    is_kept(&team, &plain, "standard").await;
    is_kept(&team, &safe, "protected").await;

    // Back, and forth again: the object is the same one all the time.
    team.kube.helm(&["rollback", "orders", "1", "--namespace", &team.namespace]).await.expect(0);
    is_kept(&team, &plain, "standard").await;
    is_kept(&team, &safe, "protected").await;
    team.helm(&["upgrade"], today()).await.expect(0);
    is_kept(&team, &plain, "standard").await;
    is_kept(&team, &safe, "protected").await;
}

#[tokio::test]
async fn chart_0_4_1_becomes_chart_1_by_way_of_0_5_0() {
    let team = Team::new("byway").await;
    team.write("0.4.1", &values_0_4_1());
    team.helm(&["install"], old("0.4.1")).await.expect(0);
    let mut before = Vec::new();
    for (name, ..) in POLICIES {
        before.push(fill(&team, name).await);
    }
    let protect = |mode: &str| mode == "protected";
    let mut values = "postgresqlDatabases:\n".to_owned();
    for (name, .., mode) in POLICIES {
        values += &format!("  - name: {name}\n    deletionProtection: {}\n", protect(mode));
    }
    team.write("0.5.0", &values);
    team.helm(&["upgrade"], old("0.5.0")).await.expect(0);
    for (database, (.., mode)) in before.iter().zip(POLICIES) {
        is_kept(&team, database, mode).await;
    }
    team.migrate().await;
    for (database, (.., mode)) in before.iter().zip(POLICIES) {
        is_kept(&team, database, mode).await;
    }
}

#[tokio::test]
async fn the_chart_refuses_values_that_are_not_rewritten_and_nothing_is_touched() {
    let team = Team::new("unwritten").await;
    team.write("0.4.1", "tenantDatabases:\n  - name: db\n    roleDeletionPolicy: Orphan\n");
    team.helm(&["install"], old("0.4.1")).await.expect(0);
    let before = fill(&team, "db").await;
    let refused = team.helm(&["upgrade"], today()).await.expect(1);
    assert!(refused.stderr.contains("pgtenant migrate values"), "{}", refused.stderr);
    is_kept(&team, &before, "protected").await;
}
