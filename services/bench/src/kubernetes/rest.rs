//! Objects at rest, nearly all of them Retained, so that no disk is needed.
//!
//! One is claimed and released for real. The others are what that left, under other names: the object with its finalizer, the
//! row of the ledger with the object's uid and generation, the three Secrets. Their statuses are the control plane's own: it
//! runs once before it is measured.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pgtenant_lab::free_port;
use serde::Serialize;
use serde_json::{Value, json};

use super::Place;
use super::server::{FINALIZER, Made, Requests, Seen, all};
use crate::api::{Api, Claim};
use crate::args::Sizes;
use crate::bench::{CLIENTS, PATIENCE, rate};
use crate::error::{BenchError, Result};
use crate::metrics::Scrape;
use crate::process::{self, Memory};
use crate::serve::Serve;

/// Objects that share a namespace.
const SHARE: usize = 100;
const TIERS: [&str; 3] = ["read", "write", "admin"];
/// How often processor time is looked at while it starts.
const LOOK: Duration = Duration::from_millis(100);
/// It has caught up when it uses less than a twentieth of a core for this long.
const QUIET: Duration = Duration::from_secs(2);
const BUSY: f64 = 0.05;
/// Caches of the API server and connections come to rest.
const SETTLE: Duration = Duration::from_secs(20);

/// One number of objects at rest.
#[derive(Debug, Serialize)]
pub(crate) struct Rest {
    pub(crate) objects: usize,
    pub(crate) start: Start,
    pub(crate) window: f64,
    pub(crate) leader: Replica,
    /// The one that does not lead.
    pub(crate) other: Replica,
    /// To the API server, by anybody, in the window.
    pub(crate) requests: f64,
}

/// From the start of the process until it has seen to all objects.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    pub(crate) seconds: f64,
    /// Seconds of processor time.
    pub(crate) cpu: f64,
    pub(crate) memory: Memory,
    /// Requests to the API server, and transactions of the ledger.
    pub(crate) requests: f64,
    pub(crate) transactions: f64,
}

/// Percent of one core, and memory at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    pub(crate) cpu: f64,
    pub(crate) memory: Memory,
}

/// The `number`th object at rest; the first is the real one.
fn at_rest(number: usize) -> Claim {
    Claim { namespace: format!("bench-o{:03}", number / SHARE), name: format!("c{number:05}") }
}

/// Waits until the replica leads.
pub(super) async fn leads(api: &Api) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while Scrape::parse(&api.metrics().await?).total("pgtenant_kubernetes_leader") < 1.0 {
        if Instant::now() > until {
            return Err(BenchError::Serve("does not take the lead".to_owned()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Claims the first object, and releases it.
pub(super) async fn template(place: &Place<'_>) -> Result<()> {
    let first = [at_rest(0)];
    place.server.make_namespaces(&first).await?;
    let mut watch = place.server.watch().await?;
    place.server.apply(&first[0], "protected", &[]).await?;
    watch.until(Seen::Ready, &first).await?;
    place.bench.api.release(&first[0]).await?;
    watch.until(Seen::Released, &first).await.map(drop)
}

pub(super) async fn measure(place: &Place<'_>, sizes: &Sizes, binary: &Path, set: &[String]) -> Result<Vec<Rest>> {
    let mut measured = Vec::new();
    let mut there = 1;
    for wanted in sizes.objects.iter().map(|size| *size.max(&1)) {
        if wanted > there {
            place.bench.say(&format!("kubernetes: growing to {wanted} objects at rest"));
            grow(place, there..wanted).await?;
            there = wanted;
            let first = start(place, binary, set).await?.0;
            first.stop().await?;
        }
        measured.push(one(place, sizes, there, binary, set).await?);
    }
    Ok(measured)
}

/// Objects first, since the rows name their uids; the control plane does not run meanwhile, or else it would claim them.
async fn grow(place: &Place<'_>, numbers: std::ops::Range<usize>) -> Result<()> {
    let server = &place.server;
    let claims: Vec<Claim> = numbers.map(at_rest).collect();
    server.make_namespaces(&claims).await?;
    let objects = stream::iter(&claims).map(|claim| async move {
        let made = server.apply(claim, "protected", &[FINALIZER]).await?;
        Ok::<_, BenchError>((claim, made))
    });
    let made: Vec<_> = objects.buffer_unordered(CLIENTS).try_collect().await?;
    rows(place, &made).await?;
    let from = at_rest(0);
    for tier in TIERS {
        let role = format!("{}-{tier}", from.database());
        let secret = server.get(&format!("/api/v1/namespaces/{}/secrets/{role}", from.namespace)).await?;
        let copies = stream::iter(&claims).map(|claim| {
            let secret = copy(&secret, claim, tier);
            // Whoever else had written it would be somebody who has changed it.
            let path = format!("/api/v1/namespaces/{}/secrets?fieldManager=pgtenant", claim.namespace);
            async move { server.post(&path, secret).await.map(drop) }
        });
        copies.buffer_unordered(CLIENTS).try_collect::<()>().await?;
    }
    Ok(())
}

fn copy(secret: &Value, claim: &Claim, tier: &str) -> Value {
    let mut metadata = json!({
        "name": format!("{}-{tier}", claim.database()),
        "labels": secret["metadata"]["labels"], "annotations": secret["metadata"]["annotations"],
    });
    metadata["labels"]["pgtenant.io/claim"] = json!(claim.name);
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": secret["type"], "data": secret["data"],
    })
}

async fn rows(place: &Place<'_>, made: &[(&Claim, Made)]) -> Result<()> {
    const SQL: &str = "
        insert into claims
        select copy.* from claims t,
            unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as new (namespace, name, uid, generation),
            lateral (select new.namespace || '-' || new.name as database) as named,
            lateral jsonb_populate_record(t, jsonb_build_object(
                'id', gen_random_uuid(), 'namespace', new.namespace, 'name', new.name, 'database', named.database,
                'source_ref', new.uid, 'source_generation', new.generation,
                'conditions', replace(t.conditions::text, t.database, named.database)::jsonb,
                'roles', replace(replace(t.roles::text, t.database, named.database), t.namespace || '/',
                                 new.namespace || '/')::jsonb)) as copy
        where t.namespace = $5 and t.name = $6";
    let lab = place.bench.lab;
    let session = lab.ledger.connect(&lab.ledger_superuser, "pgtenant").await?;
    let (namespaces, names): (Vec<&str>, Vec<&str>) =
        made.iter().map(|(claim, _)| (claim.namespace.as_str(), claim.name.as_str())).unzip();
    let (uids, generations): (Vec<&str>, Vec<i64>) =
        made.iter().map(|(_, made)| (made.uid.as_str(), made.generation)).unzip();
    let from = at_rest(0);
    let written = session
        .client()
        .execute(SQL, &[&namespaces, &names, &uids, &generations, &from.namespace, &from.name])
        .await
        .map_err(BenchError::postgres("copy a released claim"))?;
    session.close().await;
    if usize::try_from(written) == Ok(made.len()) {
        return Ok(());
    }
    let message = format!("{written} of {} rows were copied", made.len());
    Err(BenchError::Claim { claim: from.to_string(), message })
}

async fn one(place: &Place<'_>, sizes: &Sizes, objects: usize, binary: &Path, set: &[String]) -> Result<Rest> {
    place.bench.say(&format!("kubernetes: {objects} objects at rest; {} s to measure", sizes.window.as_secs()));
    let (leader, start) = start(place, binary, set).await?;
    let other_set = [set, &[format!("kubernetes.webhook_listen=127.0.0.1:{}", free_port())]].concat();
    let other = Serve::start_on(free_port(), binary, place.bench.lab, &other_set).await?;
    tokio::time::sleep(SETTLE.min(sizes.settle)).await;
    let cpu = || [leader.pid(), other.pid()].map(|pid| process::cpu(pid).own);
    let requests = place.server.requests().await?;
    let (begun, before) = (Instant::now(), cpu());
    tokio::time::sleep(sizes.window).await;
    let (after, window) = (cpu(), begun.elapsed().as_secs_f64());
    let requests = all(&requests, &place.server.requests().await?);
    let replica = |serve: &Serve, index: usize| Replica {
        cpu: (after[index] - before[index]) / window * 100.0,
        memory: process::memory(serve.pid()),
    };
    let (first, second) = (replica(&leader, 0), replica(&other, 1));
    other.stop().await?;
    leader.stop().await?;
    Ok(Rest { objects, start, window, leader: first, other: second, requests })
}

/// Starts it, and waits until it leads and has nothing left to do.
async fn start(place: &Place<'_>, binary: &Path, set: &[String]) -> Result<(Serve, Start)> {
    let before = counters(place).await?;
    let begun = Instant::now();
    let serve = Serve::start(binary, place.bench.lab, set).await?;
    leads(&place.bench.api).await?;
    let mut samples = vec![(begun.elapsed().as_secs_f64(), process::cpu(serve.pid()).own)];
    let (seconds, cpu) = loop {
        tokio::time::sleep(LOOK).await;
        samples.push((begun.elapsed().as_secs_f64(), process::cpu(serve.pid()).own));
        if let Some(quiet) = quiet(&samples) {
            break quiet;
        }
        if begun.elapsed() > PATIENCE {
            return Err(BenchError::Serve("does not come to rest".to_owned()));
        }
    };
    let memory = process::memory(serve.pid());
    let after = counters(place).await?;
    let (requests, transactions) = (all(&before.0, &after.0), after.1 - before.1);
    Ok((serve, Start { seconds, cpu, memory, requests, transactions }))
}

/// Since when it has used hardly anything, and what it had used until then.
fn quiet(samples: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (now, used) = *samples.last()?;
    let (since, then) = *samples.iter().rfind(|sample| sample.0 <= now - QUIET.as_secs_f64())?;
    (used - then < BUSY * (now - since)).then_some((since, then))
}

/// Requests to the API server and transactions of the ledger, ever.
async fn counters(place: &Place<'_>) -> Result<(Requests, f64)> {
    const SQL: &str = "select xact_commit from pg_stat_database where datname = 'pgtenant'";
    let lab = place.bench.lab;
    let session = lab.ledger.connect(&lab.ledger_superuser, "postgres").await?;
    let row = session.client().query_one(SQL, &[]).await.map_err(BenchError::postgres("count transactions"))?;
    session.close().await;
    let transactions = usize::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    Ok((place.server.requests().await?, rate(transactions, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_after_the_last_work() {
        let busy = [(0.0, 0.0), (1.0, 0.9), (2.0, 1.8)];
        assert_eq!(quiet(&busy), None);
        let rested = [&busy[..], &[(3.0, 1.81), (4.0, 1.82)]].concat();
        assert_eq!(quiet(&rested), Some((2.0, 1.8)));
        assert_eq!(quiet(&busy[..1]), None, "not watched for long enough");
    }
}
