//! Copies one database whole: into streams that somebody stores, or straight into another database.
//!
//! Definitions go by `pg_dump` and `pg_restore`; rows by COPY over several sessions that share one exported snapshot.
//!
//! Whoever connects is a login made for the occasion that has the rights of the claim's tiers and no others: what a tenant's
//! own functions do in a copy, the tenant could have done.

mod acl;
mod archive;
mod canonical;
mod catalog;
mod compare;
mod connect;
mod copy;
mod error;
mod export;
mod flow;
mod import;
mod inventory;
mod large_objects;
mod lexer;
mod memory;
mod part;
mod process;
mod restore_log;
mod selection;
mod sql;
mod toc;
mod tools;
mod write;

pub use acl::RoleMap;
pub use archive::{Archive, Object};
pub(crate) use catalog::target::OCCUPANT;
pub use compare::{Side, compare};
pub use copy::{Copied, copy_all, copy_part};
pub use error::TransferError;
pub use export::{Export, ExportOptions, PartStream};
pub use flow::{Flow, Progress};
pub use import::{Import, ImportOptions};
pub use inventory::Scrutiny;
pub use part::{Blocks, LargeObject, LargeObjectGrant, Part, PartKind, Relation, Rows};
pub use tools::{Tools, Toolset};
