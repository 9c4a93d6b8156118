//! Kubernetes Events of databases and restores. Each has a name that follows from what happened, so that nothing is told twice, whichever
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
use kube::{Api, Resource, ResourceExt as _};
use pgtenant_ledger::{event_before, events_after, within_deadline};
use pgtenant_model::{ClaimKey, Event, EventKind};

use crate::context::{CONTROLLER, Context};
use crate::crd::{PostgresqlDatabase, PostgresqlRestore};
use crate::error::Result;
use crate::heard::{Freed, News, Told};
use crate::object::ask;
use crate::watch::Known;

/// What happened shortly before this replica began to lead is told by it, unless the former one has.
const BEFORE: Duration = Duration::from_secs(60);
const PAGE: i64 = 200;
/// Where restores are not to be read, as with roles of a former chart, databases are told of all the same.
const RESTORES_LISTED: Duration = Duration::from_secs(30);
/// Bytes of a note; the API server takes up to 1024.
const NOTE: usize = 1000;

/// The objects that are told of.
pub(crate) struct Audience {
    pub(crate) databases: Known<PostgresqlDatabase>,
    pub(crate) restores: Known<PostgresqlRestore>,
}

/// Tells of what happens to databases and restores that are known, whenever `news` says that something did.
pub(crate) async fn follow(context: Arc<Context>, audience: Audience, mut news: News) {
    // Before the first list nobody is known who could be told.
    audience.databases.listed.cancelled().await;
    tokio::time::timeout(RESTORES_LISTED, audience.restores.listed.cancelled()).await.ok();
    let mut last = None;
    loop {
        if let Err(error) = tell(&context, &audience, &news.told, &mut last).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "Events were not written");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if news.events.next().await.is_none() {
            return;
        }
    }
}

async fn tell(context: &Context, audience: &Audience, told: &Told, last: &mut Option<i64>) -> Result<()> {
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
            wake(event, told).await;
            tell_database(event, audience, context).await?;
            tell_restore(event, audience, context).await?;
            *last = Some(event.id);
        }
        if events.len() < usize::try_from(PAGE).unwrap_or_default() {
            return Ok(());
        }
    }
}

/// Those whom the end of something lets go on.
async fn wake(event: &Event, told: &Told) {
    let Some(Ok(key)) = event.namespace.as_ref().map(|namespace| ClaimKey::new(namespace, &event.name)) else { return };
    match event.kind {
        EventKind::RestoreEnded => _ = told.freed.send(Freed::Turn).await,
        EventKind::Created | EventKind::Updated | EventKind::Adopted | EventKind::Ready => {
            told.freed.send(Freed::Claim(key)).await.ok();
        }
        EventKind::Deleted => _ = told.ended.send(key).await,
        _ => {}
    }
}

async fn tell_database(event: &Event, audience: &Audience, context: &Context) -> Result<()> {
    let Some((kind, reason)) = told(event.kind) else { return Ok(()) };
    let object = event.namespace.as_deref().and_then(|namespace| audience.databases.find(namespace, &event.name));
    // The end of a former claim is not told of an object that has its name now.
    let object = object.filter(|object| !is_end(event.kind) || object.meta().deletion_timestamp.is_some());
    let Some(object) = object else { return Ok(()) };
    publish(&*object, &format!("{:x}", event.id), kind, reason, &event.message, context).await
}

/// A restore's own object is told of each phase by the phase's name.
async fn tell_restore(event: &Event, audience: &Audience, context: &Context) -> Result<()> {
    let Some(uid) = event.detail["object"].as_str() else { return Ok(()) };
    let found = audience.restores.store.find(|object| object.metadata.uid.as_deref() == Some(uid));
    let (Some(object), Some(phase)) = (found, event.detail["phase"].as_str()) else { return Ok(()) };
    let (kind, reason) = match (event.kind, phase) {
        (EventKind::RestoreRequested, "Succeeded") => ("Normal", "UndoRequested"),
        (_, "Failed") => ("Warning", "Failed"),
        (_, phase) => ("Normal", phase),
    };
    publish(&*object, &format!("{:x}", event.id), kind, reason, &event.message, context).await
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
        EventKind::BackupFailed => Some(("Warning", "BackupFailed")),
        EventKind::RestoreRequested => Some(("Normal", "RestoreRequested")),
        EventKind::RestoreApproved => Some(("Normal", "RestoreApproved")),
        EventKind::RestoreProgressed => Some(("Normal", "RestoreProgressed")),
        EventKind::RestoreEnded => Some(("Normal", "RestoreEnded")),
        // The object itself says that it was made.
        EventKind::Created | EventKind::ClusterChanged => None,
    }
}

/// Tells why an object's wish was not written down, once for each generation and reason.
pub(crate) async fn refused<K>(object: &K, reason: &str, message: &str, context: &Context)
where
    K: Resource<DynamicType = ()> + Sync,
{
    let mut hasher = DefaultHasher::new();
    (object.uid(), object.meta().generation, reason, message).hash(&mut hasher);
    let id = format!("{:016x}", hasher.finish());
    if let Err(error) = publish(object, &id, "Warning", reason, message, context).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "an Event was not written");
    }
}

async fn publish<K>(object: &K, id: &str, kind: &str, reason: &str, message: &str, context: &Context) -> Result<()>
where
    K: Resource<DynamicType = ()> + Sync,
{
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
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: object.meta().name.clone(),
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
