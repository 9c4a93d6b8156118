//! What stores cost: claims whose credentials go into files, into Secrets of Kubernetes, into Secrets Manager, and into all
//! three. Stores are written at the same time, so that all of them together should take little longer than the slowest.
//!
//! One control plane has a cluster for each, on the same servers, and they take turns claim by claim: whatever else the
//! machine does hits them alike. Secrets Manager is the tests' own, in this process: it answers within a millisecond, where
//! AWS takes ten and more, so that nothing of another store's work hides behind its answers. (moto would take 10 ms of a core
//! for a call, in Python, which AWS does not take of this machine.)

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pgtenant_lab::{Kubernetes as Server, KubernetesBinaries, KubernetesOptions};
use pgtenant_testkit::FakeSecretsManager;
use serde::Serialize;

use crate::api::Claim;
use crate::args::{Args, Sizes};
use crate::bench::{Bench, ClaimSample, CpuTimes};
use crate::error::{BenchError, Result};
use crate::kubernetes;
use crate::lab::{Described, Lab, Store};
use crate::process;
use crate::report::new_table;
use crate::run;
use crate::stats::{median, quantile};
use crate::verdict::Verdict;

/// Of all stores together, in times of the slowest alone.
const AIM: f64 = 1.3;
/// Two of four claims make three secrets each, and pgtenant makes at most 25 a second: a turn of all four takes at least so long.
const TURN: Duration = Duration::from_millis(300);

const KINDS: [(&str, &[Store]); 4] = [
    ("files", &[Store::Files]),
    ("kubernetes", &[Store::Kubernetes]),
    ("secrets-manager", &[Store::SecretsManager]),
    ("together", &[Store::Files, Store::Kubernetes, Store::SecretsManager]),
];

/// Raw samples of every cluster: the last one has all the stores.
#[derive(Debug, Serialize)]
pub(crate) struct Stores(Vec<Side>);

/// A cluster's.
#[derive(Debug, Default, Serialize)]
struct Side {
    cluster: &'static str,
    claims: Vec<ClaimSample>,
    /// Processor milliseconds for each claim; Secrets Manager is in the benchmark's.
    cpu: CpuTimes,
    /// Processor milliseconds of the API server and etcd for each claim.
    kubernetes: f64,
}

pub(crate) async fn measure(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    say: &(impl Fn(&str) + Sync),
) -> Result<Stores> {
    let binaries = KubernetesBinaries::locate()?;
    let options = KubernetesOptions::new(folder.join("kubernetes"), binaries);
    let mut server = Server::open_or_create(options, say).await?;
    let section = kubernetes::prepare(&server).await?;
    let secrets_manager = FakeSecretsManager::start().await;
    let described = Described {
        kubernetes: Some(section),
        secrets_manager: Some(secrets_manager.url().to_owned()),
        dumps: false,
        clusters: KINDS.map(|(name, stores)| (name, stores.to_vec())).to_vec(),
    };
    let lab = Lab::start(folder, described, say).await?;
    let result = run::on(args, binary, lab, say, async |bench| on(bench, sizes, &server).await).await;
    server.stop().await?;
    result
}

async fn on(bench: &Bench<'_>, sizes: &Sizes, server: &Server) -> Result<Stores> {
    let [etcd, api_server, ..] = server.pids()[..] else {
        return Err(BenchError::Serve("the API server has ended".to_owned()));
    };
    let of = |cluster: &str, number: usize| Claim::of(&format!("{}-", &cluster[..1]), number);
    let all = sizes.warm_up + sizes.stores;
    let each = KINDS.iter().flat_map(|(cluster, _)| (0..all).map(|number| of(cluster, number)));
    kubernetes::ApiServer::new(server)?.make_namespaces(&each.collect::<Vec<_>>()).await?;
    let mut sides = KINDS.map(|(cluster, _)| Side { cluster, ..Side::default() });
    bench.quiet().await?;
    bench.say(&format!("stores: {} claims of each of {} clusters, in turn", sizes.stores, KINDS.len()));
    for number in 0..all {
        let turn = Instant::now();
        for place in 0..KINDS.len() {
            // Whoever comes first finds the machine otherwise than who comes second.
            let side = &mut sides[(number + place) % KINDS.len()];
            let kubernetes = || (process::cpu(api_server).own + process::cpu(etcd).own) * 1e3;
            let before = (bench.processes.cpu(), kubernetes());
            let sample = bench.claim_on(side.cluster, &of(side.cluster, number)).await?;
            if number >= sizes.warm_up {
                side.cpu = side.cpu.plus(bench.processes.cpu().since(before.0, sizes.stores));
                side.kubernetes += (kubernetes() - before.1) / crate::bench::rate(sizes.stores, 1.0);
                side.claims.push(sample);
            }
        }
        tokio::time::sleep(TURN.saturating_sub(turn.elapsed())).await;
    }
    Ok(Stores(sides.into()))
}

impl Side {
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.claims.iter().map(|sample| sample.ready).collect::<Vec<_>>(), share)
    }
}

pub(crate) fn judge(Stores(sides): &Stores) -> Vec<Verdict> {
    let Some((together, alone)) = sides.split_last() else { return Vec::new() };
    let row = |what: &str, share: f64, aim: f64| {
        let slowest = alone.iter().max_by(|a, b| a.quantile(share).total_cmp(&b.quantile(share)))?;
        let (all, one) = (together.quantile(share), slowest.quantile(share));
        Some(Verdict {
            what: format!("claim to Ready, three stores, {what}"),
            value: all / one,
            shown: format!("{:.2} ×", all / one),
            aim: if aim.is_finite() { format!("≤ {aim} ×") } else { String::new() },
            met: all / one <= aim,
            pgtenant: format!("{all:.1} ms"),
            floor: format!("{} {one:.1} ms", slowest.cluster),
        })
    };
    [row("median", 0.5, AIM), row("p95", 0.95, f64::INFINITY)].into_iter().flatten().collect()
}

pub(crate) fn details(Stores(sides): &Stores) -> String {
    let mut text = String::from(
        "\nclaim to Ready by store, ms; processor ms for each claim. Secrets Manager is played by the benchmark itself, and\n\
         answers at once\n",
    );
    let mut table = new_table(&[
        "",
        "POST median",
        "median",
        "p95",
        "pgtenant",
        "primary",
        "standby",
        "ledger",
        "Kubernetes",
        "benchmark",
    ]);
    for side in sides {
        let Side { cluster, claims, cpu, kubernetes } = side;
        let posted = median(&claims.iter().map(|sample| sample.posted).collect::<Vec<_>>());
        let numbers = [posted, side.quantile(0.5), side.quantile(0.95)];
        let costs = [cpu.pgtenant, cpu.primary, cpu.standby, cpu.ledger, *kubernetes, cpu.bench];
        let all = numbers.into_iter().chain(costs).map(|number| format!("{number:.1}"));
        table.add_row(std::iter::once((*cluster).to_owned()).chain(all));
    }
    let _ = writeln!(text, "{table}");
    text
}
