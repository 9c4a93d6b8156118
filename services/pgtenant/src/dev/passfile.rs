//! A passfile for psql, kept in step with the stored credentials: only for a developer's machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use pgtenant_ledger::{EVENTS_CHANNEL, Ledger};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Result;
use super::folder::{Folder, write_private};

#[derive(Deserialize)]
struct Document {
    username: String,
    password: Zeroizing<String>,
    database: String,
}

/// Writes one line for each stored credential.
pub(super) fn write(folder: &Folder) -> Result<()> {
    let mut text = Zeroizing::new(String::new());
    collect(&folder.secrets(), &mut text)?;
    write_private(&folder.passfile(), text.as_bytes())
}

/// Writes the file again at every event.
pub(super) async fn follow(folder: &Folder, ledger: Ledger) {
    loop {
        if let Ok(mut events) = ledger.listen(&[EVENTS_CHANNEL]).await {
            loop {
                if let Err(error) = write(folder) {
                    tracing::warn!(%error, "the passfile was not written");
                }
                if events.recv().await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn collect(folder: &Path, text: &mut Zeroizing<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, text)?;
        } else if path.extension().is_some_and(|e| e == "json")
            && let Ok(bytes) = fs::read(&path).map(Zeroizing::new)
            && let Ok(Document { username, password, database }) = serde_json::from_slice(&bytes)
        {
            writeln!(text, "*:*:{database}:{username}:{}", password.as_str())?;
        }
    }
    Ok(())
}
