//! Secrets that lie in files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroize as _;

/// A secret's file that can not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableSecret {
    /// It can not be opened or read.
    #[error("can not read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing on its first line.
    #[error("{} is empty; its first line must be the secret", .0.display())]
    Empty(PathBuf),
}

/// No password or token comes near it.
const MAX_BYTES: u64 = 64 * 1024;

/// The first line of a file.
///
/// # Errors
/// It can not be read, or the line is empty.
pub(crate) fn read(path: &Path) -> Result<SecretString, UnreadableSecret> {
    let fault = |source| UnreadableSecret::Io { path: path.to_owned(), source };
    let mut text = String::with_capacity(4096);
    std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)).map_err(fault)?;
    let line = text.lines().next().unwrap_or_default().trim();
    let secret = SecretString::from(line);
    let empty = line.is_empty();
    text.zeroize();
    if empty { Err(UnreadableSecret::Empty(path.to_owned())) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn the_first_line_is_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "pgt_abc\nsecond\n").unwrap();
        assert_eq!(read(&path).unwrap().expose_secret(), "pgt_abc");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read(&path), Err(UnreadableSecret::Empty(_))));
        assert!(matches!(read(&dir.path().join("none")), Err(UnreadableSecret::Io { .. })));
    }
}
