//! What the kernel says of a process.

use std::fs;

/// Processor time so far, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) own: f64,
    /// Of children that have ended and were waited for: for a postmaster, its closed connections.
    pub(crate) children: f64,
}

/// Memory now and at most, in MB (10^6 bytes).
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) peak: f64,
}

/// Zero for a process that is gone.
pub(crate) fn cpu(pid: u32) -> Cpu {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_stat(&stat, ticks_per_second())
}

/// Of a process, its living children and those that it has waited for: for a postmaster, the whole server.
pub(crate) fn cpu_with_children(pid: u32) -> f64 {
    let Cpu { own, children } = cpu(pid);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks = ticks_per_second();
    let living = processes.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent == pid).then(|| parse_stat(&stat, ticks).own)
    });
    own + children + living.sum::<f64>()
}

pub(crate) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Memory { resident: megabytes(&status, "VmRSS:"), peak: megabytes(&status, "VmHWM:") }
}

/// Seconds of processor time that the host gave to others while this machine wanted it, of all processors together.
pub(crate) fn stolen() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<f64>().ok());
    steal.unwrap_or_default() / ticks_per_second()
}

#[expect(clippy::cast_precision_loss, reason = "it is 100")]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// Fields are counted after the program's name, which may hold anything.
fn parse_stat(stat: &str, ticks: f64) -> Cpu {
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
        .unwrap_or_default();
    // utime, stime, cutime, cstime: 14 to 17 of proc(5).
    let sum = |at: usize| fields.iter().skip(at).take(2).sum::<f64>() / ticks;
    Cpu { own: sum(11), children: sum(13) }
}

fn megabytes(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib: f64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    kib * 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let cpu = parse_stat("7 (a ) b) S 1 7 7 0 -1 4194560 9 8 7 6 150 50 30 10 20 0 9", 100.0);
        assert_eq!((cpu.own, cpu.children), (2.0, 0.4));
    }

    #[test]
    fn this_process_has_memory() {
        let memory = memory(std::process::id());
        assert!(memory.resident > 0.1 && memory.peak >= memory.resident, "{memory:?}");
    }
}
