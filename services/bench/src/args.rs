//! What can be chosen.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures pgtenant against the same SQL by hand, in one run, on servers of its own.
#[derive(Debug, Clone, Parser)]
#[command(name = "pgtenant-bench", version)]
pub(crate) struct Args {
    /// A smoke run of less than a minute; its figures are no measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only this section; may be repeated
    #[arg(long, value_enum)]
    section: Vec<Section>,
    /// Where the raw samples go
    #[arg(long, default_value = "target/bench.json", value_name = "FILE")]
    pub(crate) json: PathBuf,
    /// A folder on the disk to measure on [default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Measure in memory (/dev/shm)
    #[arg(long, conflicts_with = "disk")]
    tmpfs: bool,
    /// Claims of each side in the latency section [default: 60], of each cluster in the section of stores [default: 100], in the
    /// section of rotations [default: 1000]
    #[arg(long, value_name = "N")]
    claims: Option<usize>,
    /// Claims at once in the burst section [default: 200], and in the Kubernetes section [default: 500]
    #[arg(long, value_name = "N")]
    burst: Option<usize>,
    /// Bursts of each side [default: 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Claims at rest in the idle section [default: 250,500,1000], objects in the Kubernetes section [default:
    /// 1,1000,10000]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    sizes: Vec<usize>,
    /// The size of the database in the section of restores, in MiB [default: 3072]
    #[arg(long, value_name = "N")]
    mib: Option<usize>,
    /// Seconds over which each size is measured at rest [default: 60]
    #[arg(long, value_name = "SECONDS")]
    window: Option<u64>,
    /// Seconds that each size is given to come to rest [default: 75]
    #[arg(long, value_name = "SECONDS")]
    settle: Option<u64>,
    /// The control plane to measure [default: `pgtenant` beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) pgtenant: Option<PathBuf>,
    /// Further settings of the control plane, as `look.interval=5m`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Keep the control plane's log there
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// One claim after the other
    Latency,
    /// Many claims at once
    Burst,
    /// What claims cost at rest
    Idle,
    /// Claims as objects of Kubernetes against claims over REST, and what objects cost at rest
    Kubernetes,
    /// Claims with each store alone against claims with all of them
    Stores,
    /// New passwords for a whole cluster, as fast as they can be and at a pace
    Rotation,
    /// A database of some GB, dumped and restored
    Restores,
}

/// Sizes of a run.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) warm_up: usize,
    pub(crate) claims: usize,
    /// Each so many claims, one is used by its tenant.
    pub(crate) first_use_every: usize,
    pub(crate) burst: usize,
    pub(crate) rounds: usize,
    pub(crate) idle: Vec<usize>,
    /// Claims at once, each as an object and over REST.
    pub(crate) applied: usize,
    /// Objects at rest.
    pub(crate) objects: Vec<usize>,
    /// Claims of each cluster with other stores.
    pub(crate) stores: usize,
    /// Claims of a cluster that is rotated.
    pub(crate) rotated: usize,
    /// The database that is dumped and restored.
    pub(crate) restored_mib: usize,
    /// New claims while nothing is rotated.
    pub(crate) probes: usize,
    pub(crate) window: Duration,
    pub(crate) settle: Duration,
    /// How long the file system is given before a burst to forget files that were deleted. ext4 gives out no inode again
    /// for 5 to 40 s after its deletion (`recently_deleted` in `fs/ext4/ialloc.c`), and searches past all of them for
    /// each new file: what is measured first after a removal would pay for it.
    pub(crate) forget: Duration,
}

impl Args {
    pub(crate) fn wants(&self, section: Section) -> bool {
        self.section.is_empty() || self.section.contains(&section)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let pick = |quick: usize, full: usize| if self.quick { quick } else { full };
        let idle = match (self.sizes.is_empty(), self.quick) {
            (false, _) => self.sizes.clone(),
            (true, true) => vec![20, 40],
            (true, false) => vec![250, 500, 1000],
        };
        let objects = match (self.sizes.is_empty(), self.quick) {
            (false, _) => self.sizes.clone(),
            (true, true) => vec![1, 50],
            (true, false) => vec![1, 1000, 10_000],
        };
        let seconds = |given: Option<u64>, quick, full| {
            Duration::from_secs(given.unwrap_or(if self.quick { quick } else { full }))
        };
        Sizes {
            warm_up: pick(2, 5),
            claims: self.claims.unwrap_or(pick(8, 60)).max(1),
            first_use_every: pick(2, 5),
            burst: self.burst.unwrap_or(pick(20, 200)).max(1),
            rounds: self.rounds.unwrap_or(pick(1, 3)).max(1),
            idle,
            applied: self.burst.unwrap_or(pick(20, 500)).max(1),
            objects,
            stores: self.claims.unwrap_or(pick(4, 100)).max(1),
            rotated: self.claims.unwrap_or(pick(20, 1000)).max(1),
            restored_mib: self.mib.unwrap_or(pick(64, 3072)).max(1),
            probes: pick(3, 30),
            window: seconds(self.window, 4, 60),
            settle: seconds(self.settle, 2, 75),
            forget: Duration::from_secs(if self.quick || self.tmpfs { 0 } else { 40 }),
        }
    }

    /// A folder of a file system that is a disk, unless memory is asked for: `/tmp` is in memory on many machines.
    pub(crate) fn place(&self) -> PathBuf {
        match &self.disk {
            Some(dir) => dir.clone(),
            None if self.tmpfs => PathBuf::from("/dev/shm"),
            None => PathBuf::from("/var/tmp"),
        }
    }
}
