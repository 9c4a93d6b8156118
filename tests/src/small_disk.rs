//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted at the end.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `size`, as `mount` takes it, at a folder, which keeps its owner and what is in it. None: not as root.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let kept = at.with_extension("kept");
        copy(at, &kept);
        let options = format!("size={size},mode=700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        let mounted = status.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()));
        if mounted.is_some() {
            copy(&kept, at);
        }
        std::fs::remove_dir_all(kept).expect("removed");
        mounted
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount");
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["--archive", "--no-target-directory"]).args([from, to]).status().expect("cp");
    assert!(status.success());
}
