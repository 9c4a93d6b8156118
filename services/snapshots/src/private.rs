//! Files with a key or a password: for pgtenant alone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::SnapshotError;

const MOST: u64 = 64 << 10;
/// Anything for others, and writing for the group. Reading for the group is how Kubernetes mounts a Secret for a user.
const TOO_MUCH: u32 = 0o027;

/// The text of a file, which others can not read. Links are followed, since Kubernetes mounts Secrets as such.
pub(crate) fn read(file: &Path) -> Result<Zeroizing<String>, SnapshotError> {
    let unusable = |why: String| SnapshotError::KeyFile { file: file.display().to_string(), why };
    let opened = File::open(file).map_err(|error| unusable(error.to_string()))?;
    let metadata = opened.metadata().map_err(|error| unusable(error.to_string()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if !metadata.is_file() {
        return Err(unusable("it is not a regular file".to_owned()));
    }
    if mode & TOO_MUCH != 0 {
        return Err(unusable(format!("its mode is {mode:04o}, which lets others at it")));
    }
    // All at once: a buffer that grows would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    opened.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| unusable(error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(unusable(format!("it has more than {MOST} bytes")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(unusable("it is not text".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn a_file_for_everybody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "text").unwrap();
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o440, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&file).is_ok(), fine, "{mode:o}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, vec![b'a'; 70_000]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("more than 65536 bytes"));
        assert!(read(dir.path()).unwrap_err().to_string().contains("not a regular file"));
        assert!(read(&dir.path().join("none")).is_err());
    }
}
