//! The store: what is in it, what begins, what goes.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pgtenant_aws::Aws;
use pgtenant_model::{ClaimKey, DumpSpec, InvalidField};

use crate::found::{BrokenDump, Dump, Listing, Opening, Unfinished};
use crate::keys::Keys;
use crate::manifest::{FORMAT, MOST_BYTES};
use crate::object::{MANIFEST, ObjectPath, VERIFIED};
use crate::place::{self, Place, get_small};
use crate::{DumpId, DumpReader, DumpWriter, Manifest, Patience, SnapshotError, Trust, Verified, seal};

/// Small requests that are on the way at once.
const AT_ONCE: usize = 16;
/// The longest `verified.json`.
const MOST_VERIFIED: usize = 64 << 10;

/// How the outside is reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Amazon, for dumps in S3.
    pub aws: Aws,
    /// How often and how long something is tried.
    pub patience: Patience,
}

/// A store of dumps. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Dumps {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) place: Arc<dyn Place>,
    pub(crate) keys: Keys,
    pub(crate) patience: Patience,
}

impl Dumps {
    /// A store as a cluster's spec has it. Nothing is read or written, no private key either.
    ///
    /// # Errors
    /// A recipient is no public key, or the place can not be one.
    pub fn new(spec: &DumpSpec, access: &Access) -> Result<Self, InvalidField> {
        let DumpSpec { to, recipients, identity_file, try_every: _, first_at_once: _ } = spec;
        let keys = Keys::new(recipients, identity_file.clone())?;
        let inner = Inner { place: place::of(to, access)?, keys, patience: access.patience };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The whole dumps of a claim; what is not finished is none. One request for the list, two for each dump.
    ///
    /// # Errors
    /// The place does not answer. A manifest that is broken is no error of the list.
    pub async fn list(&self, cluster: &str, key: &ClaimKey) -> Result<Listing, SnapshotError> {
        let ids = self.ids(cluster, key).await?;
        let mut read =
            stream::iter(ids).map(|id| async move { (id, self.get(cluster, key, id).await) }).buffered(AT_ONCE);
        let mut listing = Listing::default();
        while let Some((id, dump)) = read.next().await {
            match dump {
                Ok(dump) => listing.dumps.push(dump),
                Err(error) => listing.broken.extend(broken(id, error)?),
            }
        }
        Ok(listing)
    }

    /// One dump.
    ///
    /// # Errors
    /// It does not exist, or its manifest is not one.
    pub async fn get(&self, cluster: &str, key: &ClaimKey, id: DumpId) -> Result<Dump, SnapshotError> {
        let manifest = self.manifest(cluster, key, id).await?;
        let folder = ObjectPath::dump(cluster, key, id)?;
        let (place, path) = (&*self.inner.place, folder.child(VERIFIED));
        let verified = self.inner.patience.retry(|| get_small(place, &path, MOST_VERIFIED)).await;
        let verified = verified.and_then(|bytes| Verified::decode(&bytes, &place.location(&path), id));
        let verified = match verified {
            Ok(verified) => Some(verified),
            Err(SnapshotError::NotThere { .. }) => None,
            // The dump is as good as it was.
            Err(error @ (SnapshotError::Corrupt { .. } | SnapshotError::Newer { .. })) => {
                tracing::warn!(error = error.explain(), "a dump counts as never restored for a try");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Dump { manifest, verified, location: place.location(&folder) })
    }

    async fn manifest(&self, cluster: &str, key: &ClaimKey, id: DumpId) -> Result<Manifest, SnapshotError> {
        let path = ObjectPath::dump(cluster, key, id)?.child(MANIFEST);
        let place = &*self.inner.place;
        let bytes = self.inner.patience.retry(|| get_small(place, &path, MOST_BYTES)).await?;
        Manifest::decode(&bytes, &place.location(&path), cluster, key, id)
    }

    /// Dumps of a claim that were begun before an instant and never finished. Choose an instant before which no writer can have
    /// begun that is still at work.
    ///
    /// # Errors
    /// The place does not answer.
    pub async fn unfinished(
        &self,
        cluster: &str,
        key: &ClaimKey,
        begun_before: DateTime<Utc>,
    ) -> Result<Vec<Unfinished>, SnapshotError> {
        let ids = self.ids(cluster, key).await?.into_iter().filter(|id| id.at() < begun_before);
        let looks = ids.map(|id| async move {
            let folder = ObjectPath::dump(cluster, key, id)?;
            let files = self.inner.place.list(&folder).await?;
            let whole = files.iter().any(|file| file.name == MANIFEST);
            let bytes = files.iter().filter_map(|file| file.bytes).sum();
            Ok::<_, SnapshotError>((!whole).then_some(Unfinished { id, bytes }))
        });
        stream::iter(looks).buffered(AT_ONCE).try_filter_map(|found| async move { Ok(found) }).try_collect().await
    }

    /// Begins a dump of `database`, as it is at the instant that a new `id` names. It is sealed if there is an identity file: one that can not be read is warned
    /// of, and the dump is made without a seal, since that is better than none.
    ///
    /// # Errors
    /// `cluster` is no name.
    pub async fn begin(
        &self,
        cluster: &str,
        key: &ClaimKey,
        database: &str,
        id: DumpId,
    ) -> Result<DumpWriter, SnapshotError> {
        let identities = match self.inner.keys.has_file() {
            true => self.inner.keys.identities().await,
            false => Err(SnapshotError::NoIdentity),
        };
        let identities = match identities {
            Ok(identities) => Some(identities),
            Err(SnapshotError::NoIdentity) => None,
            Err(error) => {
                tracing::warn!(error = error.explain(), %id, "a dump is not sealed");
                None
            }
        };
        DumpWriter::new(Arc::clone(&self.inner), (cluster, key, database), id, identities)
    }

    /// Opens a dump.
    ///
    /// # Errors
    /// It does not exist, is broken, is encrypted for others, or is not from whom dumps are taken.
    pub async fn open(
        &self,
        cluster: &str,
        key: &ClaimKey,
        id: DumpId,
        trust: Trust,
    ) -> Result<DumpReader, SnapshotError> {
        let identities = self.inner.keys.identities().await?;
        let folder = ObjectPath::dump(cluster, key, id)?;
        let manifest = self.manifest(cluster, key, id).await?;
        let location = self.inner.place.location(&folder);
        // A seal that is wrong is refused in any case.
        if !seal::check(&manifest, &identities, &location)? && trust == Trust::Sealed {
            return Err(SnapshotError::NotSealed { location });
        }
        if identities.of(&manifest.recipients).is_none() {
            let (wanted, held) = (manifest.recipients, identities.held());
            return Err(SnapshotError::WrongIdentity { location, wanted, held });
        }
        Ok(DumpReader::new(Arc::clone(&self.inner), key.clone(), folder, manifest, identities))
    }

    /// Removes a dump, finished or not. From its first step on it does not exist; done again, it is done.
    ///
    /// # Errors
    /// The place refuses or does not answer.
    pub async fn remove(&self, cluster: &str, key: &ClaimKey, id: DumpId) -> Result<(), SnapshotError> {
        let folder = ObjectPath::dump(cluster, key, id)?;
        self.inner.place.remove(&folder.child(MANIFEST)).await?;
        self.inner.place.remove_all(&folder).await
    }

    /// Removes every dump of a claim that was begun before an instant, finished or not, and says how many those were.
    ///
    /// # Errors
    /// The place refuses or does not answer.
    pub async fn remove_before(
        &self,
        cluster: &str,
        key: &ClaimKey,
        before: DateTime<Utc>,
    ) -> Result<usize, SnapshotError> {
        let mut ids = self.ids(cluster, key).await?;
        ids.retain(|id| id.at() < before);
        for id in &ids {
            self.remove(cluster, key, *id).await?;
        }
        Ok(ids.len())
    }

    /// Writes down that a dump was restored for a try, and found whole.
    ///
    /// # Errors
    /// There is no such dump, or the place refuses or does not answer.
    pub async fn mark_verified(
        &self,
        cluster: &str,
        key: &ClaimKey,
        id: DumpId,
        at: DateTime<Utc>,
        by: &str,
    ) -> Result<(), SnapshotError> {
        self.manifest(cluster, key, id).await?;
        let path = ObjectPath::dump(cluster, key, id)?.child(VERIFIED);
        let verified = Verified { format: FORMAT, id, at, by: by.to_owned() };
        let text = serde_json::to_vec_pretty(&verified).map_err(|error| SnapshotError::Unexpected {
            location: self.inner.place.location(&path),
            message: error.to_string(),
        })?;
        self.inner.place.put_small(&path, text.into()).await
    }

    /// Whether what is made now can be opened here.
    ///
    /// # Errors
    /// The identity file can not be used.
    pub async fn can_open(&self) -> Result<Opening, SnapshotError> {
        if !self.inner.keys.has_file() {
            return Ok(Opening::NoIdentity);
        }
        let identities = self.inner.keys.identities().await?;
        Ok(match identities.of(&self.inner.keys.recipient_texts()) {
            Some(identity) => Opening::With(identity.to_public().to_string()),
            None => Opening::NotARecipient { held: identities.held() },
        })
    }

    /// Tries what dumps will need of the place, in the name of a new `id`, and leaves no trace. Says where.
    ///
    /// # Errors
    /// What it can not do.
    pub async fn try_out(&self, cluster: &str, id: DumpId) -> Result<String, SnapshotError> {
        let place = &*self.inner.place;
        // No namespace is named like that.
        let folder = ObjectPath::cluster(cluster)?.child(&format!("_preflight-{id}"));
        let path = folder.child("trial");
        let text = Bytes::from_static(b"pgtenant tries whether it can write here\n");
        let tried = async {
            place.put_small(&path, text.clone()).await?;
            let read = self.inner.patience.retry(|| get_small(place, &path, MOST_VERIFIED)).await?;
            let listed = place.list(&folder).await?;
            match read == text && listed.len() == 1 {
                true => Ok(place.location(&ObjectPath::cluster(cluster)?)),
                false => Err(SnapshotError::corrupt(place.location(&path), "it is not what was written a moment ago")),
            }
        };
        let tried = tried.await;
        let removed = place.remove_all(&folder).await;
        tried.and_then(|location| removed.map(|()| location))
    }

    /// Names of dumps, whole or not, newest first.
    async fn ids(&self, cluster: &str, key: &ClaimKey) -> Result<Vec<DumpId>, SnapshotError> {
        let folders = self.folders(&ObjectPath::claim(cluster, key)?).await?;
        let mut ids: Vec<DumpId> = folders.into_iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_by_key(|id| Reverse(*id));
        Ok(ids)
    }

    async fn folders(&self, folder: &ObjectPath) -> Result<Vec<String>, SnapshotError> {
        let entries = self.inner.place.list(folder).await?;
        Ok(entries.into_iter().filter(|entry| entry.bytes.is_none()).map(|entry| entry.name).collect())
    }
}

/// What is said of a dump that could not be read: nothing of one that is not finished. Where the place does not answer, a list
/// would be wrong.
fn broken(id: DumpId, error: SnapshotError) -> Result<Option<BrokenDump>, SnapshotError> {
    match error {
        SnapshotError::NotThere { .. } => Ok(None),
        error @ (SnapshotError::Corrupt { .. } | SnapshotError::Newer { .. }) => Ok(Some(BrokenDump { id, error })),
        error => Err(error),
    }
}
