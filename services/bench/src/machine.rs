//! What was measured on: figures mean nothing without it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// Hardware, kernel, file system, versions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// GB (10^9 bytes).
    pub(crate) memory: f64,
    pub(crate) kernel: String,
    /// As `ext4 on /dev/vda`.
    pub(crate) filesystem: String,
    pub(crate) pgtenant: String,
    pub(crate) postgresql: String,
    pub(crate) rustc: String,
}

impl Machine {
    pub(crate) fn describe(place: &Path, pgtenant: String, postgresql: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo(&read("/proc/meminfo"), "MemTotal:") / 1e9,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(place, &read("/proc/self/mountinfo")).unwrap_or_else(|| "unknown".to_owned()),
            pgtenant,
            postgresql: postgresql.to_owned(),
            rustc: env!("BENCH_RUSTC").to_owned(),
        }
    }
}

/// Load averages of the last one, five and fifteen minutes: whether anybody else is at work here.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Bytes that may be written to `place`: in a file system in memory, no more than there is memory.
pub(crate) fn free_space(place: &Path) -> u64 {
    let Ok(stat) = rustix::fs::statvfs(place) else { return u64::MAX };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !filesystem(place, &mounts).is_some_and(|text| text.starts_with("tmpfs")) {
        return free;
    }
    let memory = meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of memory")]
    free.min(memory as u64)
}

fn meminfo(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    kib * 1024.0
}

/// The mount with the longest path above `place`; see proc_pid_mountinfo(5).
fn filesystem(place: &Path, mountinfo: &str) -> Option<String> {
    let place = fs::canonicalize(place).ok()?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let path = Path::new(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        place.starts_with(path).then_some((path.components().count(), right.next()?, right.next()?))
    });
    let (_, kind, source) = mounts.max_by_key(|(depth, ..)| *depth)?;
    Some(format!("{kind} on {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:26 / /tmp rw shared:4 - tmpfs tmpfs rw\n";
        assert_eq!(filesystem(Path::new("/tmp"), mounts).as_deref(), Some("tmpfs on tmpfs"));
        assert_eq!(filesystem(Path::new("/"), mounts).as_deref(), Some("ext4 on /dev/vda"));
    }
}
