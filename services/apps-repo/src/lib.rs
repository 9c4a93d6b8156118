//! The apps folder as a door: what `{namespace}/{application}/values.yaml` defines becomes claims in the ledger.
//!
//! [`scan`] reads the folder and says what is wrong with it, file by file and line by line. [`Syncer`] compares a scan
//! with the ledger and writes the difference; it removes only what is certainly gone. [`follow`] does both whenever the
//! folder changes.
//!
//! [`plan_migration`] is for files of older charts: it finds them, and says and writes what they are to be.

mod application;
mod choice;
mod difference;
mod file;
mod follow;
mod migrate;
mod migration;
mod plan;
mod problem;
mod reader;
mod replace;
mod scalar;
mod scan;
mod step;
mod sync;
mod tree;
mod values;
mod walk;
mod watch;

pub use difference::Guard;
pub use follow::{Settings, follow};
pub use migrate::{ChartVersion, InvalidChartVersion, Remark};
pub use migration::{FilePlan, FileState, Migration, WriteError, plan_migration};
pub use pgtenant_ledger::AppsProblem;
pub use plan::to_plan_request;
pub use problem::render_problems;
pub use scan::{Definition, Kept, Limits, Names, Scan, Scanner, scan};
pub use sync::{Synced, Syncer};

/// The tenant chart: applications of other charts are none of this door's business.
pub const CHART: &str = "idp-postgresql";
