//! Where data comes back from: a store of encrypted dumps.
//!
//! A *dump* is one claim's database at one time: named parts and a manifest, below `{cluster}/{namespace}/{name}/{id}/`.
//! A part is `{part}.zst.age`, a plain file of age with a plain zstd stream in it: `age -d -i KEY FILE | zstd -d` gives what was
//! stored, without pgtenant. `manifest.json` is written last, and never again: without it a dump does not exist, and what a
//! killed writer left is found by [`Dumps::unfinished`]. `verified.json` says when the dump was restored for a try.
//!
//! Nothing here knows SQL: parts are streams that others make and read. They go through in pieces, as fast as the slower end
//! takes them, and nothing of them is in clear on a disk. A part takes about 10 MiB of memory while it is written or read, and
//! in S3 up to three pieces of 8 MiB more (of 64 MiB, when the part is larger than 56 GiB).
//!
//! # What the encryption protects from
//!
//! Who can read the place, and holds no private key, sees manifests (names of tables, their rows and sizes) and no content. Who
//! can write there can always remove dumps; a bucket with versions or object lock helps against that, nothing here does.
//!
//! Anybody can encrypt to a public key, so age alone does not say who wrote a part. Two things do:
//!
//! - Each part begins, inside the encryption, with a *label*: cluster, claim, dump and part (a skippable frame, which zstd
//!   ignores). A part that was moved to another dump or tenant is refused at its first byte.
//! - A control plane that holds an identity *seals* the manifest: HMAC-SHA-256 over it, and with it over the SHA-256 of every
//!   part, with a key that HKDF derives from the identity. A restore with [`Trust::Sealed`] takes nothing that was not written
//!   by a holder of that identity.
//!
//! To change the key, put the new one into the identity file before the old one, and its public key into the recipients: what is
//! made then is for the new one and sealed by it, and the old one still opens what it sealed. Take it out when the last of those
//! has gone.
//!
//! A control plane with recipients alone can not seal. Whoever restores such a dump with [`Trust::Anybody`] believes whoever can
//! write to the place. `verified.json` is not sealed: it decides what is kept, never what is restored.

mod dumps;
mod error;
mod found;
mod id;
mod keys;
mod label;
mod manifest;
mod object;
mod pack;
mod patience;
pub mod pgbackrest;
mod pipe;
mod place;
mod private;
mod reader;
mod resume;
pub mod retention;
mod seal;
mod unpack;
mod writer;

pub use dumps::{Access, Dumps};
pub use error::SnapshotError;
pub use found::{BrokenDump, Dump, Listing, Opening, Unfinished};
pub use id::{DumpId, InvalidDumpId};
pub use keys::generate_identity;
pub use manifest::{DumpFacts, Manifest, PartEntry, Seal, TableEntry, Verified};
pub use patience::Patience;
pub use reader::{DumpReader, Trust};
pub use writer::DumpWriter;
