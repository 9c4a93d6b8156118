//! Dumps of every database, kept beside the rest.

use pgtenant_model::{BackupSpec, DumpPlace, DumpSpec, FolderPlace};

use super::Result;
use super::folder::Folder;

/// Daily, and at once for a database that has none.
pub(super) fn spec(folder: &Folder) -> Result<BackupSpec> {
    let (identity_file, recipient) = folder.backup_key()?;
    let to = DumpPlace::Folder(FolderPlace { directory: folder.backups() });
    let dumps = DumpSpec { first_at_once: true, ..DumpSpec::new(to, vec![recipient], Some(identity_file)) };
    Ok(BackupSpec { dumps: Some(dumps), ..BackupSpec::default() })
}
