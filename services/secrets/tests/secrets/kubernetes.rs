//! Secrets of a real API server.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use pgtenant_model::Tier;
use pgtenant_secrets::{ExternalSecrets, Fault, Held, KubernetesSecrets, Removal, SecretStore as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{Entry, targets, tiers};

async fn config(kubeconfig: &Path) -> Config {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()
}

async fn client(kubeconfig: &Path) -> Client {
    Client::try_from(config(kubeconfig).await).unwrap()
}

/// A store, and the Secrets of a namespace of its own.
async fn place(kubeconfig: &Path) -> (KubernetesSecrets, Api<Secret>, String) {
    let client = client(kubeconfig).await;
    let name = pgtenant_testkit::unique("store");
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    (KubernetesSecrets::new(client.clone()), Api::namespaced(client, &name), name)
}

async fn shared() -> (KubernetesSecrets, Api<Secret>, String) {
    place(&pgtenant_testkit::kubernetes().await.kubeconfig()).await
}

async fn change(secrets: &Api<Secret>, name: &str, patch: Value) {
    secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn held(store: &KubernetesSecrets, entry: &Entry) -> Held {
    store.get(&entry.0, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_at_once_one_has_written_all_of_it() {
    let (store, secrets, namespace) = shared().await;
    let passwords: Vec<String> = (0..12).map(|number| format!("password-{number}")).collect();
    let writes = passwords.iter().map(|password| {
        let (store, entries) = (store.clone(), tiers(&namespace, "db", password));
        async move { store.put_many(&entries).await }
    });
    // Who is always late may give up, and says so.
    let written = join_all(writes).await;
    assert!(written.iter().any(Result::is_ok));
    for error in written.iter().filter_map(|result| result.as_ref().err()) {
        assert!(error.fault.to_string().contains("somebody else"), "{error:?}");
    }
    for entry in tiers(&namespace, "db", "any") {
        let Held::Credential(found) = held(&store, &entry).await else { panic!("no credential") };
        let password = found.password.expose_secret().to_owned();
        assert!(passwords.contains(&password) && found.uri.expose_secret().contains(&password));
    }
    // The same again changes nothing.
    let entries = tiers(&namespace, "db", "last");
    store.put_many(&entries).await.unwrap();
    let version = async || {
        let all = secrets.list(&kube::api::ListParams::default()).await.unwrap();
        all.items.iter().map(|one| one.metadata.resource_version.clone()).collect::<Vec<_>>()
    };
    let before = version().await;
    store.put_many(&entries).await.unwrap();
    assert_eq!(version().await, before);
    store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
    store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
    assert_eq!(version().await, Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_neither_read_nor_written_nor_deleted() {
    let (store, secrets, namespace) = shared().await;
    let entries = tiers(&namespace, "db", "ours");
    let name = entries[0].0.role();
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let theirs = Secret { metadata, ..Secret::default() };
    let made = secrets.create(&PostParams::default(), &theirs).await.unwrap();
    let error = store.put_many(&entries).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Foreign(_)), "{error:?}");
    assert!(matches!(store.get(&entries[0].0, None).await.unwrap_err().fault, Fault::Foreign(_)));
    store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
    assert_eq!(secrets.get(&name).await.unwrap().metadata.resource_version, made.metadata.resource_version);
    assert!(secrets.get_opt(&entries[1].0.role()).await.unwrap().is_none(), "the others are deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_did_to_ours_is_seen_and_put_right() {
    let (store, secrets, namespace) = shared().await;
    let entries = tiers(&namespace, "db", "ours");
    let entry = &entries[0];
    let name = entry.0.role();
    store.put_many(&entries).await.unwrap();
    assert!(matches!(held(&store, entry).await, Held::Credential(_)));

    // The password can be told: it stays.
    let labels = json!({"app.kubernetes.io/managed-by": null, "pgtenant.io/claim": null, "pgtenant.io/tier": null});
    for patch in [
        json!({"metadata": {"labels": labels}}),
        json!({"metadata": {"annotations": {"reloader.stakater.com/match": null}}}),
        json!({"data": {"uri": null, "port": null}}),
        json!({"data": {"port": "bm9uZQ=="}}),
        json!({"immutable": true}),
    ] {
        change(&secrets, &name, patch.clone()).await;
        let Held::Blemished(found) = held(&store, entry).await else { panic!("{patch} is not seen") };
        assert_eq!(found.password.expose_secret(), "ours");
        store.put_many(&entries).await.unwrap();
        assert!(matches!(held(&store, entry).await, Held::Credential(_)), "after {patch}");
    }
    // It can not.
    for patch in [json!({"data": {"password": null}}), json!({"data": {"password": "/w=="}})] {
        change(&secrets, &name, patch.clone()).await;
        let Held::Broken(why) = held(&store, entry).await else { panic!("{patch} is not seen") };
        assert!(why.contains("password"), "{why}");
        store.put_many(&entries).await.unwrap();
    }
    secrets.delete(&name, &DeleteParams::default()).await.unwrap();
    assert!(matches!(held(&store, entry).await, Held::Missing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_does_not_answer_is_given_up_in_time() {
    let kubernetes = pgtenant_testkit::own_kubernetes().await;
    let (store, _, namespace) = place(&kubernetes.kubeconfig()).await;
    let entries = tiers(&namespace, "db", "ours");
    store.put_many(&entries).await.unwrap();
    kubernetes.pause_api_server().await.expect("it pauses");
    let begun = Instant::now();
    let written = store.put_many(&entries).await.unwrap_err();
    let read = store.get(&entries[0].0, None).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for error in [written, read] {
        assert!(error.fault.to_string().contains("did not answer within 8 s"), "{error:?}");
        assert!(error.advice().contains("when the API server answers"), "{}", error.advice());
    }
    kubernetes.resume_api_server();
    store.put_many(&entries).await.unwrap();
    assert_eq!(entries[2].0.tier, Tier::Admin);
    assert!(matches!(held(&store, &entries[2]).await, Held::Credential(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_asks_what_is_allowed_and_writes_nothing() {
    let kubeconfig = pgtenant_testkit::kubernetes().await.kubeconfig();
    let (store, ..) = shared().await;
    let works = store.try_out().await.unwrap();
    assert_eq!(works, "RBAC allows to get, create, patch, delete secrets in every namespace");

    // Somebody without any role may ask, too.
    let mut nobody = config(&kubeconfig).await;
    nobody.headers.push(("impersonate-user".parse().unwrap(), "nobody".parse().unwrap()));
    let client = Client::try_from(nobody).unwrap();
    let error = KubernetesSecrets::new(client.clone()).try_out().await.unwrap_err();
    assert_eq!(
        error.explain(),
        "store \"kubernetes\" can not write secrets in every namespace: RBAC does not allow to get, create, patch, delete; \
         give pgtenant's ServiceAccount the chart's ClusterRole"
    );
    // What is not installed can not be written, whatever is allowed.
    let external = ExternalSecrets::new(client, serde_json::from_value(json!({})).unwrap());
    let text = external.try_out().await.unwrap_err().explain();
    assert!(text.contains("externalsecrets.external-secrets.io") && text.contains("install the External"), "{text}");
}
