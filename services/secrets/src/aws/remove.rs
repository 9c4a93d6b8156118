//! Removing a secret: so that it can be had back for some days, or for good.

use std::time::Instant;

use pgtenant_model::CredentialTarget;

use super::calls::{INVALID_PARAMETER, INVALID_REQUEST, NOT_FOUND, Window, action};
use super::fault::AwsFault;
use super::secret::Seen;
use super::{Inner, PAUSES};
use crate::{Fault, Removal};

impl Inner {
    /// Never touches one that is not ours, nor minds it.
    pub(super) async fn remove(&self, target: &CredentialTarget, removal: Removal) -> Result<(), Fault> {
        let name = self.name(target);
        // One that was made a moment ago may not be shown yet.
        let known = self.listing.has(&name);
        let mut last = AwsFault::unsettled(action::DELETE);
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            match self.remove_once(target, &name, removal).await {
                Err(Fault::Aws(fault)) if fault.is(NOT_FOUND) => {
                    if !known {
                        return Ok(());
                    }
                    last = fault;
                }
                // It was removed in this moment, or its copies are still there.
                Err(Fault::Aws(fault)) if fault.is(INVALID_REQUEST) || fault.is(INVALID_PARAMETER) => last = fault,
                Err(Fault::Foreign(_)) => return Ok(()),
                done => return done,
            }
        }
        if last.is(NOT_FOUND) {
            self.listing.note(&name, None, Instant::now());
            return Ok(());
        }
        Err(last.into())
    }

    async fn remove_once(&self, target: &CredentialTarget, name: &str, removal: Removal) -> Result<(), Fault> {
        let mut found = self.calls.describe(name).await?;
        found.check_ours(target)?;
        let window = match removal {
            Removal::Usual => Window::Days(self.spec.recovery_window_days),
            Removal::Final => Window::None,
        };
        let left = match window {
            Window::Days(_) => {
                let scheduled = found.scheduled_for_deletion;
                found.scheduled_for_deletion = true;
                let left = Some(Seen::of(&found, &self.settings));
                if scheduled {
                    self.listing.note(name, left, Instant::now());
                    return Ok(());
                }
                left
            }
            Window::None => None,
        };
        // AWS deletes no secret that has copies, and there are none of one that is scheduled for deletion.
        found.copies.append(&mut found.failed_copies);
        if !found.copies.is_empty() {
            self.calls.remove_copies(name, found.copies).await?;
        }
        self.calls.delete(name, window).await?;
        self.listing.note(name, left, Instant::now());
        Ok(())
    }
}
