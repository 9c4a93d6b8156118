//! The built binary.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The repository's top folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The `pgtenant` that lies beside the tests, or the one that `PGTENANT_TEST_BINARY` names. Panics where it is missing or older
/// than what it is built from.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("PGTENANT_TEST_BINARY") {
            return PathBuf::from(path);
        }
        let test = std::env::current_exe().expect("the path of this test");
        // target/debug/deps/blackbox-…
        let folder = test.ancestors().nth(2).expect("cargo's layout").to_path_buf();
        let path = folder.join("pgtenant");
        if let Err(problem) = check(&path) {
            panic!("{problem}; run `cargo build -p pgtenant` (make test does)");
        }
        path
    })
}

/// Cargo lists beside a binary what it was made from.
fn check(path: &Path) -> Result<(), String> {
    let built = modified(path).ok_or_else(|| format!("{} is not built", path.display()))?;
    let list = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    let sources = list.split_once(": ").map(|(_, sources)| sources).unwrap_or_default();
    let newer = sources.split_whitespace().find(|source| modified(Path::new(source)).is_some_and(|time| time > built));
    match newer {
        Some(source) => Err(format!("{} is older than {source}", path.display())),
        None => Ok(()),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
