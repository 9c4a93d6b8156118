//! Promises to users, kept by the running binary: over HTTP, the command line, files and psql.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

mod adopt;
mod apps;
mod apps_guard;
mod aurora;
mod aws;
mod cli;
mod connect;
mod credentials;
mod dev_refuses;
mod dev_start;
mod documents;
mod documents_complete;
mod drift;
mod events;
mod failover;
mod kills;
mod kubernetes;
mod leak;
mod modes;
mod names;
mod observe;
mod outages;
mod preflight;
mod provisioner;
mod replicas;
mod rest_around;
mod rest_database;
mod rest_slow;
mod rotation;
mod shared;
mod stage;
mod steps;
mod stores;
