//! What black-box tests of `pgtenant` share: the binary, processes, HTTP, folders, logins.
//!
//! Nothing here links the product: tests see what users see. What goes wrong here panics, since a test can do nothing
//! about it; each panic says what was waited for and what was last seen.

mod api;
mod apps;
mod binary;
mod cli;
mod credential;
mod dev;
mod folder;
mod kube;
mod login;
mod own;
mod pgbouncer;
mod proc;
mod process;
mod relay;
mod report;
mod serve;
mod site;
mod small_disk;
mod sse;
mod wait;

pub use api::{Answer, Api};
pub use apps::{APPLICATION, Apps};
pub use binary::{binary, repository};
pub use cli::{Cli, Finished, run, run_within};
pub use credential::{Credential, TIERS, files_below};
pub use dev::Dev;
pub use folder::Folder;
pub use kube::{Kube, condition, database, databases, restore, restores};
pub use login::{
    can, connect, rows, run_script, sqlstate, superuser_sql, try_as_an_application, try_sql, works_for_an_application,
};
pub use own::Own;
pub use pgbouncer::PgBouncer;
pub use pgtenant_testkit::{free_port, unique};
pub use proc::{listens, processes_in, read_proc, user_of};
pub use process::Running;
pub use relay::Relay;
pub use report::{measured, skipped};
pub use serve::Serve;
pub use site::{Place, Site, SiteOptions};
pub use small_disk::SmallDisk;
pub use sse::Stream;
pub use wait::{eventually, never, soon};
