//! How the engine paces itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::Faults;

/// Bounds, each with its reason.
#[derive(Debug)]
pub struct EngineSettings {
    /// Claims of one cluster under work at once in this replica. Four keep a cluster's eight connections busy.
    pub concurrency: usize,
    /// A claim is looked at again after this time, if the pace allows.
    pub look_interval: Duration,
    /// Looks a second and cluster in this replica: bounds what idle claims cost, and spreads them.
    pub looks_per_second: f64,
    /// How often each cluster's members are asked who is the primary while nothing else happens.
    pub watch_interval: Duration,
    /// How long a claim stays with a replica that has died.
    pub lease: Duration,
    /// How long the claims under work may take when the process is asked to stop.
    pub grace: Duration,
    /// Folders in which `pg_dump` and `pg_restore` are looked for first.
    pub tools: Vec<PathBuf>,
    /// For tests.
    pub faults: Faults,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            look_interval: Duration::from_secs(300),
            looks_per_second: 1.0,
            watch_interval: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            tools: Vec::new(),
            faults: Faults::default(),
        }
    }
}
