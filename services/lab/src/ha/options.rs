//! What a lab is asked to be.

use std::path::PathBuf;

use crate::binaries::Binaries;
use crate::ha::kind::LabKind;
use crate::ha::site::Lifetime;

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// All is kept under it. The caller makes the folders above it such that all may pass (0711), or else the data lies elsewhere:
    /// see [`Lab::relocated`].
    pub dir: PathBuf,
    /// An existing lab keeps its own.
    pub kind: LabKind,
    /// How many nodes; none: as before, or what is usual for the kind.
    pub nodes: Option<u16>,
    /// The programs of PostgreSQL.
    pub binaries: Binaries,
    /// How long the servers go on.
    pub lifetime: Lifetime,
    /// `false`: faster, and a crash of the machine may lose the data. An existing lab keeps its own.
    pub fsync: bool,
    /// pgtenant's own program, which serves `health` on each node where HAProxy asks for that.
    pub health_program: Option<PathBuf>,
    /// PgBouncer in front. `false`: as before.
    pub pgbouncer: bool,
    /// Two HAProxies behind an address that Keepalived moves, in network namespaces: for [`LabKind::Haproxy`], as root, from its beginning.
    /// `false`: as before.
    pub keepalived: bool,
}

impl LabOptions {
    /// As many nodes as are usual, detached, with fsync.
    pub fn new(dir: impl Into<PathBuf>, kind: LabKind, binaries: Binaries) -> Self {
        let (nodes, lifetime, fsync, health_program) = (None, Lifetime::Detached, true, None);
        Self {
            dir: dir.into(),
            kind,
            nodes,
            binaries,
            lifetime,
            fsync,
            health_program,
            pgbouncer: false,
            keepalived: false,
        }
    }
}
