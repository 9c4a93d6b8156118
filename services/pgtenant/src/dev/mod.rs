//! `pgtenant dev`: everything on this machine, from nothing, in one folder.

mod aws;
mod backups;
mod folder;
mod kubernetes;
mod passfile;
mod servers;
mod shared;
mod welcome;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pgtenant_api::ApiSettings;
use pgtenant_aws::Aws;
use pgtenant_engine::EngineSettings;
use pgtenant_model::{AwsSecretsManagerStore, ClusterSpec, KubernetesStore, StoreSpec};
use tokio::net::TcpListener;

use crate::cli::server_args::DevArgs;
use crate::compose::ControlPlane;
use crate::telemetry;

use folder::Folder;
pub(crate) use folder::{data_folder, make_passable};
use servers::Servers;
use shared::Wanted;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Claims are few on a developer's machine, so each is looked at often.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// A control plane that was killed comes back at once here, so a claim under work waits no longer than this.
const LEASE: Duration = Duration::from_secs(6);
/// How long the start waits for the claims of the apps folder before it says `ready` all the same.
const FIRST_CLAIMS: Duration = Duration::from_secs(20);

/// Runs until Ctrl-C or SIGTERM.
pub(crate) async fn run(args: DevArgs) -> Result<()> {
    let begun = Instant::now();
    let stop = crate::signals::on_stop();
    let slack = crate::config::slack_of(std::env::vars_os())?.settings()?;
    let folder = Folder::open(args.dir)?;
    telemetry::to_file(&folder.log_file())?;
    let listener = listen(args.listen).await?;
    let address = listener.local_addr()?;
    say(begun, &format!("everything is kept in {}", folder.root().display()));

    let start = async {
        let kubernetes = async {
            if !args.kubernetes {
                return Ok(None);
            }
            kubernetes::start(&folder, |text: &str| say(begun, text)).await.map(Some)
        };
        let aws = async {
            if !args.aws {
                return Ok(None);
            }
            aws::start(&folder, |text: &str| say(begun, text)).await.map(Some)
        };
        let wanted = Wanted { kind: args.topology, pgbouncer: args.pgbouncer };
        let servers = Servers::start(&folder, wanted, |text: &str| say(begun, text));
        let (servers, kubernetes, aws) = tokio::try_join!(servers, kubernetes, aws)?;
        let token = welcome::token(&folder, &servers.ledger).await?;
        Ok::<_, Box<dyn std::error::Error>>((servers, kubernetes, aws, token))
    };
    let (mut servers, kubernetes, aws, token) = tokio::select! {
        started = start => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let (lab, door) = kubernetes.unzip();
    let kubeconfig = lab.as_ref().map(pgtenant_lab::Kubernetes::kubeconfig);
    let (moto, stand_in) = aws.unzip();
    let mut further: Vec<_> = stand_in.iter().flat_map(aws::variables).collect();
    further.extend(kubeconfig.as_ref().map(|file| ("KUBECONFIG", file.display().to_string())));
    folder.write_env(address, &token, &servers.ca_file, &further)?;
    let example = folder.write_example()?;

    let beside = door.as_ref().map(|_| StoreSpec::Kubernetes(KubernetesStore {}));
    let beside = beside
        .into_iter()
        .chain(moto.as_ref().map(|_| StoreSpec::AwsSecretsManager(AwsSecretsManagerStore::default())));
    let backups = args.backups.then(|| backups::spec(&folder)).transpose()?;
    let client = door.as_ref().map(|door| door.client.clone());
    let plane = ControlPlane {
        ledger: servers.ledger.clone(),
        clusters: vec![("default".to_owned(), ClusterSpec { backups, ..servers.spec(&folder, beside) })],
        engine: EngineSettings {
            look_interval: LOOK_INTERVAL,
            lease: LEASE,
            faults: crate::faults()?,
            ..EngineSettings::default()
        },
        api: ApiSettings { slack, ..ApiSettings::default() },
        apps: Some((folder.apps(), pgtenant_apps_repo::Settings::default())),
        kubernetes: door,
        aws: stand_in.map_or_else(Aws::default, Aws::stand_in),
        listener,
    };
    let greeting = async {
        say(begun, "making the databases of the apps folder");
        let first = welcome::first_ready(&servers.ledger, FIRST_CLAIMS).await;
        passfile::write(&folder).ok();
        print(&welcome::message(&folder, address, &servers, first.as_ref(), example, &further));
        passfile::follow(&folder, servers.ledger.clone()).await;
    };
    let namespaces = async {
        if let Some(client) = client {
            kubernetes::follow_namespaces(client, servers.ledger.clone()).await;
        }
    };
    let besides = stop.run_until_cancelled(async { tokio::join!(greeting, namespaces) });
    let (result, _) = tokio::join!(plane.run(stop.clone()), besides);
    say(begun, "stopping the servers");
    if let Some(mut lab) = lab {
        lab.stop().await?;
    }
    if let Some(mut moto) = moto {
        moto.stop().await?;
    }
    servers.stop().await?;
    Ok(result?)
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program has this port; stop it, or choose another with --listen 127.0.0.1:PORT (0: any)"
            }
            _ => "choose another with --listen HOST:PORT",
        };
        format!("can not listen on {address}: {error}\nhint: {advice}").into()
    })
}

/// Progress goes to standard error, so that standard output has the result alone.
fn say(begun: Instant, text: &str) {
    let mut err = std::io::stderr().lock();
    let (dim, plain) = if err.is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    // Nobody may be reading: that is no reason to stop.
    writeln!(err, "{dim}{:6.1} s{plain}  {text}", begun.elapsed().as_secs_f64()).ok();
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
