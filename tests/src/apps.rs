//! An apps folder that a team writes to.

use std::fs;
use std::path::{Path, PathBuf};

/// An `application.yaml` of the tenant chart.
pub const APPLICATION: &str =
    "apiVersion: v2\nname: app\nversion: 0.1.0\nhelm:\n  chart: idp-postgresql\n  chartVersion: 1.0.0\n";

/// The folder, as `DIR/apps`.
#[derive(Debug, Clone)]
pub struct Apps {
    root: PathBuf,
}

impl Apps {
    /// Of a folder that is there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `{place}/values.yaml`.
    pub fn values_file(&self, place: &str) -> PathBuf {
        self.root.join(place).join("values.yaml")
    }

    /// Writes an application at `place`, as `namespace/app`, with this `values.yaml`.
    pub fn write(&self, place: &str, values: &str) {
        let folder = self.root.join(place);
        fs::create_dir_all(&folder).expect("a folder");
        // The values come first: an application without them would be a fault.
        replace(&folder.join("values.yaml"), values);
        if !folder.join("application.yaml").exists() {
            replace(&folder.join("application.yaml"), APPLICATION);
        }
    }

    /// Writes an application with these standard databases.
    pub fn define(&self, place: &str, names: &[&str]) {
        self.write(place, &databases(names));
    }

    /// Writes to the file in place, as an editor that truncates does.
    pub fn overwrite(&self, place: &str, values: &str) {
        fs::write(self.values_file(place), values).expect("a file");
    }

    /// Removes an application.
    pub fn remove(&self, place: &str) {
        fs::remove_dir_all(self.root.join(place)).expect("a folder");
    }
}

fn databases(names: &[&str]) -> String {
    if names.is_empty() {
        return "postgresqlDatabases: []\n".to_owned();
    }
    let entries: Vec<String> = names.iter().map(|name| format!("  - name: {name}\n")).collect();
    format!("postgresqlDatabases:\n{}", entries.concat())
}

/// As careful editors and Git do it: a new file in place of the old one.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).expect("a file");
    fs::rename(&temporary, path).expect("a file");
}
