//! What a stopped server's data folder tells of it.

use std::path::Path;

use crate::binaries::Binaries;
use crate::error::{Error, Result};
use crate::files;
use crate::process::Runner;

/// How far a node's history goes. After a promotion the promoted node's timeline is the higher one; nodes on one timeline are
/// told apart by how much they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct History {
    pub(crate) timeline: u32,
    pub(crate) position: u64,
}

/// Major version that made the folder; `None` where there is no data.
pub(crate) fn data_version(data: &Path) -> Result<Option<u32>> {
    let path = data.join("PG_VERSION");
    Ok(files::read_if_there(&path)?.and_then(|text| text.trim().parse().ok()))
}

/// Refuses data of another major version than the binaries'.
pub(crate) fn require_same_version(data: &Path, binaries: &Binaries) -> Result<()> {
    match data_version(data)? {
        Some(found) if found != binaries.major() => {
            Err(Error::VersionMismatch { dir: data.to_path_buf(), data: found, server: binaries.major() })
        }
        _ => Ok(()),
    }
}

/// Reads the control file with pg_controldata.
pub(crate) async fn history(runner: &Runner, binaries: &Binaries, data: &Path) -> Result<History> {
    let program = binaries.program("pg_controldata")?;
    let text = runner.run(&program, [data]).await?;
    parse(&text).ok_or_else(|| Error::Command { program: "pg_controldata".into(), output: text })
}

/// A promoted node has its new timeline as the one up to which it must recover, until its first checkpoint is done.
fn parse(text: &str) -> Option<History> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim())
    };
    let checkpoint: u32 = value("Latest checkpoint's TimeLineID")?.parse().ok()?;
    let recovery: u32 = value("Min recovery ending loc's timeline")?.parse().ok()?;
    let position = value("Latest checkpoint location").and_then(parse_lsn)?;
    let recovered = value("Minimum recovery ending location").and_then(parse_lsn)?;
    Some(History { timeline: checkpoint.max(recovery), position: position.max(recovered) })
}

/// `16/B374D848`
fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pg_control version number:            1300\n\
        Latest checkpoint location:           0/3000060\n\
        Latest checkpoint's REDO location:    0/3000028\n\
        Latest checkpoint's TimeLineID:       1\n\
        Minimum recovery ending location:     1/3000100\n\
        Min recovery ending loc's timeline:   2\n";

    #[test]
    fn a_fresh_promotion_shows_in_the_recovery_timeline() {
        assert_eq!(parse(TEXT), Some(History { timeline: 2, position: 0x1_0300_0100 }));
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn a_higher_timeline_beats_more_log() {
        let promoted = History { timeline: 2, position: 10 };
        let old = History { timeline: 1, position: 1000 };
        assert!(promoted > old);
    }
}
