//! Writing a secret: made where there is none, taken back where its deletion is scheduled, and put right.

use std::time::Instant;

use pgtenant_model::{Credential, CredentialTarget};
use secrecy::SecretString;

use super::calls::{EXISTS, INVALID_REQUEST, NOT_FOUND, New, action};
use super::fault::AwsFault;
use super::secret::{Secret, Seen};
use super::{Inner, PAUSES, id};
use crate::{Fault, document};

/// What is to be in a secret.
struct Entry<'a> {
    target: &'a CredentialTarget,
    name: String,
    version: String,
    text: SecretString,
}

impl Inner {
    /// Creates first where nothing is known: most often there is none yet, and then that is all.
    pub(super) async fn write(&self, target: &CredentialTarget, credential: &Credential) -> Result<(), Fault> {
        let text = document::encode(credential).map_err(Fault::Broken)?;
        let text = std::str::from_utf8(&text).map_err(|_| Fault::Broken("it is not text".to_owned()))?;
        let name = self.name(target);
        let entry = Entry { target, version: id(credential), text: SecretString::from(text), name };
        let mut there = self.listing.has(&entry.name);
        let mut last = AwsFault::unsettled(action::PUT);
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            match self.write_once(&entry, there).await {
                Ok(arn) => {
                    let seen = Seen::written(target, &entry.version, arn);
                    self.listing.note(&entry.name, Some(seen), Instant::now());
                    return Ok(());
                }
                // Somebody else was at it, or AWS does not show yet what was done before.
                Err(Fault::Aws(fault)) if [EXISTS, INVALID_REQUEST, NOT_FOUND].iter().any(|code| fault.is(code)) => {
                    there = !fault.is(NOT_FOUND);
                    last = fault;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(last.into())
    }

    /// Says what AWS calls it.
    async fn write_once(&self, entry: &Entry<'_>, there: bool) -> Result<Option<String>, Fault> {
        let mut refused = None;
        if !there {
            match self.create(entry).await {
                // Also where it was there with this very version: AWS then leaves all else as it is, and so it is looked at.
                Ok(()) => {}
                // AWS says the latter of a name that is scheduled for deletion.
                Err(fault) if fault.is(EXISTS) || fault.is(INVALID_REQUEST) => refused = Some(fault),
                Err(fault) => return Err(fault.into()),
            }
        }
        let found = match self.calls.describe(&entry.name).await {
            Err(fault) if fault.is(NOT_FOUND) => return Err(refused.unwrap_or(fault).into()),
            found => found?,
        };
        found.check_ours(entry.target)?;
        if found.scheduled_for_deletion {
            self.calls.restore(&entry.name).await?;
        }
        self.make_current(entry, &found).await?;
        if !self.settings.are_in(&found.tags) {
            self.settle(&entry.name, &found).await?;
        }
        Ok(found.arn)
    }

    async fn create(&self, entry: &Entry<'_>) -> Result<(), AwsFault> {
        let (target, settings) = (entry.target, &self.settings);
        let mut tags = settings.tags(target);
        // A resource policy is set by a call of its own: until then the settings are not in effect.
        if settings.policy().is_none() {
            tags.extend([settings.done()]);
        }
        let description = format!("PostgreSQL login {} of {}", target.role(), target.key);
        let name = &entry.name;
        self.calls.create(New { name, description, version: &entry.version, text: &entry.text, tags, settings }).await
    }

    /// A version that is there already is not written again: AWS would ignore that, and leave the other one current.
    async fn make_current(&self, entry: &Entry<'_>, found: &Secret) -> Result<(), AwsFault> {
        let Entry { name, version, text, .. } = entry;
        if found.current() == Some(version) {
            return Ok(());
        }
        if !found.has(version) && self.calls.put(name, version, text).await? {
            return Ok(());
        }
        // One without a stage is not described, but may be there.
        let found = self.calls.describe(name).await?;
        if found.current() == Some(version) {
            return Ok(());
        }
        self.calls.make_current(name, version, found.current()).await
    }

    /// Brings the settings into effect; the tag that says so is written last.
    async fn settle(&self, name: &str, found: &Secret) -> Result<(), Fault> {
        let settings = &self.settings;
        if !settings.is_key(found.kms_key.as_deref()) {
            self.calls.set_key(name, settings.kms_key_or_default()).await?;
        }
        let wanted = settings.copies();
        let is_wanted = |region: &&String| wanted.iter().any(|copy| copy.region == **region);
        let unwanted = found.copies.iter().filter(|region| !is_wanted(region));
        // One that failed is in the way of the next try.
        let unwanted: Vec<String> = unwanted.chain(&found.failed_copies).cloned().collect();
        if !unwanted.is_empty() {
            self.calls.remove_copies(name, unwanted).await?;
        }
        let missing: Vec<_> = wanted.iter().filter(|copy| !found.copies.contains(&copy.region)).collect();
        if !missing.is_empty() {
            let failed = self.calls.copy_to(name, &missing).await?;
            if !failed.is_empty() {
                return Err(Fault::Foreign(format!("it can not be copied to {}", failed.join("; "))));
            }
        }
        match settings.policy() {
            Some(policy) => self.calls.set_policy(name, policy.to_owned()).await?,
            None => self.calls.remove_policy(name).await?,
        }
        let left_over = settings.left_over(&found.tags);
        if !left_over.is_empty() {
            self.calls.untag(name, left_over).await?;
        }
        let further = settings.further().clone().into_iter();
        Ok(self.calls.tag(name, &further.chain([settings.done()]).collect()).await?)
    }
}
