//! Programs that the servers' user can run, wherever they are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};

/// The program, or else a copy of it in `dir`: where the servers' user may not go to it, or it has another name, by which its process would
/// not be known.
pub(crate) fn program(program: &Path, name: &str, account: Option<&Account>, dir: &Path) -> Result<PathBuf> {
    let named = program.file_name().is_some_and(|found| found == name);
    if named && !is_out_of_reach(program, account)? {
        return Ok(program.to_path_buf());
    }
    let copy = dir.join(name);
    let age = |file: &Path| fs::metadata(file).and_then(|data| Ok((data.len(), data.modified()?))).ok();
    let newer = match (age(program), age(&copy)) {
        (Some((size, made)), Some((copied, when))) => size != copied || made > when,
        _ => true,
    };
    if newer {
        // Beside it first: a program that runs can not be written to.
        let fresh = copy.with_extension("new");
        fs::copy(program, &fresh).map_err(Error::io("copy", program))?;
        fs::rename(&fresh, &copy).map_err(Error::io("put in place", &copy))?;
    }
    Ok(copy)
}

/// Whether the servers' user may not go to where this file is.
fn is_out_of_reach(file: &Path, account: Option<&Account>) -> Result<bool> {
    match (account, file.parent()) {
        (Some(account), Some(dir)) => Ok(account.blocked_on_the_way_to(dir)?.is_some()),
        _ => Ok(false),
    }
}
