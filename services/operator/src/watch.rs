//! The objects of a kind that are there, kept in memory as small as they are needed.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::core::object::HasStatus;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Predicate as _, WatchStreamExt as _, predicates, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// The objects that are there, for others than their controller.
#[derive(Clone)]
pub(crate) struct Known<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub(crate) store: Store<K>,
    /// Cancelled once the store has all of them. Its own `wait_until_ready` wakes only one of several tasks.
    pub(crate) listed: CancellationToken,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Known<K> {
    /// The store, which `Writer` fills.
    pub(crate) fn new() -> (Self, Writer<K>) {
        let writer = Writer::default();
        (Self { store: writer.as_reader(), listed: CancellationToken::new() }, writer)
    }

    /// The object of this name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }
}

/// Objects whose wish or status has changed: a status that somebody else writes is put right. What is kept in memory is small:
/// nobody here reads annotations or labels, or needs to know who wrote which field.
pub(crate) fn watched<K>(
    context: &Context,
    writer: Writer<K>,
    listed: CancellationToken,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()>
        + HasStatus<Status: Serialize>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = Api::all(context.client.clone());
    watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| {
            let metadata = object.meta_mut();
            metadata.managed_fields = None;
            metadata.annotations = None;
            metadata.labels = None;
        })
        .reflect(writer)
        .inspect(move |event| {
            if matches!(event, Ok(watcher::Event::InitDone)) {
                listed.cancel();
            }
        })
        .touched_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers).combine(said), Default::default())
}

/// What the status says, as a predicate.
fn said<K: HasStatus<Status: Serialize>>(object: &K) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&object.status()).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}
