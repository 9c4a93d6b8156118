//! The built binary against a control plane that is played: shapes, exit statuses, what goes to stdout and to stderr.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod aws;
mod change;
mod connect;
mod documents;
mod errors;
mod lists;
mod migrate_values;
mod plan;
mod run;
mod server;
mod settings;
mod terminal;
mod wait;
