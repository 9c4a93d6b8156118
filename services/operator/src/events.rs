//! Kubernetes Events of databases. Each has a name that follows from what happened, so that nothing is told twice, whichever
//! replica tells it and however often it starts anew.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubernetesEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use kube::{Api, Resource as _, ResourceExt as _};
use pgtenant_ledger::{event_before, events_after, within_deadline};
use pgtenant_model::{ClaimKey, EventKind};
use tokio::sync::mpsc::Sender;

use crate::context::{CONTROLLER, Context};
use crate::crd::PostgresqlDatabase;
use crate::database::{Known, find};
use crate::error::Result;
use crate::heard::News;
use crate::object::ask;

/// What happened shortly before this replica began to lead is told by it, unless the former one has.
const BEFORE: Duration = Duration::from_secs(60);
const PAGE: i64 = 200;
/// Bytes of a note; the API server takes up to 1024.
const NOTE: usize = 1000;

/// Tells of what happens to databases that are known, whenever `news` says that something did.
pub(crate) async fn follow(context: Arc<Context>, Known { store, listed }: Known, mut news: News) {
    // Before the first list nobody is known who could be told.
    listed.cancelled().await;
    let mut last = None;
    loop {
        if let Err(error) = tell(&context, &store, &news.ended, &mut last).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "Events were not written");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if news.events.next().await.is_none() {
            return;
        }
    }
}

async fn tell(
    context: &Context,
    store: &Store<PostgresqlDatabase>,
    ended: &Sender<ClaimKey>,
    last: &mut Option<i64>,
) -> Result<()> {
    loop {
        let events = within_deadline(async {
            let mut db = context.ledger.acquire().await?;
            let after = match *last {
                Some(id) => id,
                None => *last.insert(event_before(&mut db, BEFORE).await?),
            };
            events_after(&mut db, after, None, PAGE).await
        })
        .await?;
        for event in &events {
            if let (EventKind::Deleted, Some(namespace)) = (event.kind, &event.namespace)
                && let Ok(key) = ClaimKey::new(namespace, &event.name)
            {
                ended.send(key).await.ok();
            }
            let object = event.namespace.as_deref().and_then(|namespace| find(store, namespace, &event.name));
            // The end of a former claim is not told of an object that has its name now.
            let object = object.filter(|object| !is_end(event.kind) || object.meta().deletion_timestamp.is_some());
            if let (Some(object), Some((kind, reason))) = (object, told(event.kind)) {
                let id = format!("{:x}", event.id);
                publish(&object, &id, kind, reason, &event.message, context).await?;
            }
            *last = Some(event.id);
        }
        if events.len() < usize::try_from(PAGE).unwrap_or_default() {
            return Ok(());
        }
    }
}

fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::Deleting | EventKind::Deleted)
}

/// What a team wants to be told, and how loud.
fn told(kind: EventKind) -> Option<(&'static str, &'static str)> {
    match kind {
        EventKind::Ready => Some(("Normal", "Ready")),
        EventKind::Updated => Some(("Normal", "Updated")),
        EventKind::Adopted => Some(("Normal", "Adopted")),
        EventKind::Deleting => Some(("Normal", "Deleting")),
        EventKind::Deleted => Some(("Normal", "Deleted")),
        EventKind::Retained => Some(("Normal", "Retained")),
        EventKind::CredentialRotated => Some(("Normal", "CredentialRotated")),
        EventKind::DriftRepaired => Some(("Warning", "DriftRepaired")),
        EventKind::Failed => Some(("Warning", "Failed")),
        // The object itself says that it was made.
        EventKind::Created | EventKind::ClusterChanged => None,
    }
}

/// Tells why an object's wish was not written down, once for each generation and reason.
pub(crate) async fn refused(object: &PostgresqlDatabase, reason: &str, message: &str, context: &Context) {
    let mut hasher = DefaultHasher::new();
    (object.uid(), object.meta().generation, reason, message).hash(&mut hasher);
    let id = format!("{:016x}", hasher.finish());
    if let Err(error) = publish(object, &id, "Warning", reason, message, context).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "an Event was not written");
    }
}

async fn publish(
    object: &PostgresqlDatabase,
    id: &str,
    kind: &str,
    reason: &str,
    message: &str,
    context: &Context,
) -> Result<()> {
    let namespace = object.namespace().unwrap_or_default();
    let event = KubernetesEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{id}", object.name_any())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        action: Some("Reconcile".to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(message[..message.floor_char_boundary(NOTE)].to_owned()),
        type_: Some(kind.to_owned()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(context.identity.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(PostgresqlDatabase::api_version(&()).into_owned()),
            kind: Some(PostgresqlDatabase::kind(&()).into_owned()),
            name: object.metadata.name.clone(),
            namespace: Some(namespace.clone()),
            uid: object.uid(),
            resource_version: object.resource_version(),
            field_path: None,
        }),
        ..KubernetesEvent::default()
    };
    let api: Api<KubernetesEvent> = Api::namespaced(context.client.clone(), &namespace);
    match ask(api.create(&PostParams::default(), &event)).await {
        // Told already; or the namespace is going, or a policy there lets none in. What one does not want is no reason to tell
        // nobody else.
        Err(error) if error.code().is_some_and(|code| (400..500).contains(&code) && code != 429) => {
            tracing::debug!(
                object = object.name_any(),
                error = &error as &dyn std::error::Error,
                "an Event is not told"
            );
            Ok(())
        }
        other => other.map(drop),
    }
}
