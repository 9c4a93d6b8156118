//! What stops a primary, and starts it again.

use std::path::Path;

use pgtenant_lab::{Binaries, Lab, LabKind, Lifetime};
use pgtenant_model::{DrillMeans, HostPort};
use tokio::process::Command;

use super::DrillArgs;
use super::site::Site;
use crate::cli::error::{CliError, Result};
use crate::cli::output::note;
use crate::cli::server::explain;
use crate::dev::data_folder;

/// What stops a primary.
pub(super) enum Means {
    /// A lab, and the node that is the primary.
    Lab(Box<Lab>, String),
    /// The topology's own switchover.
    Switchover,
    /// Commands of whoever runs the drill.
    Commands { stop: String, start: Option<String>, at: HostPort },
}

impl Means {
    /// # Errors
    /// There is none.
    pub(super) fn find(args: &DrillArgs, site: &Site) -> Result<Self> {
        let at: HostPort = site.primary.parse().map_err(CliError::failed)?;
        if let Some(stop) = &args.stop_with {
            return Ok(Self::Commands { stop: stop.clone(), start: args.start_with.clone(), at });
        }
        if let Some((lab, node)) = lab(args.lab.as_deref(), &at)? {
            return Ok(Self::Lab(Box::new(lab), node));
        }
        if matches!(site.kind.as_str(), "patroni" | "pgAutoFailover") {
            return Ok(Self::Switchover);
        }
        Err(CliError::failed(format!("nothing here can stop {at}: topology {} has no switchover of its own", site.kind))
            .hint(
                "name the folder of its lab (--lab), or the commands that stop and start the server (--stop-with, --start-with)",
            ))
    }

    pub(super) fn is_lab(&self) -> bool {
        matches!(self, Self::Lab(..))
    }

    pub(super) fn kind(&self) -> DrillMeans {
        match self {
            Self::Lab(..) => DrillMeans::Kill,
            Self::Switchover => DrillMeans::Switchover,
            Self::Commands { .. } => DrillMeans::Command,
        }
    }

    /// What becomes of the primary.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Lab(..) => "be killed",
            Self::Switchover => "become a standby by a switchover",
            Self::Commands { .. } => "be stopped by your command",
        }
    }

    /// Stops the primary; says what else was done.
    pub(super) async fn stop(&mut self, site: &Site) -> Result<()> {
        match self {
            Self::Lab(lab, node) => lab.kill(node).await.map_err(|error| explain(&error)),
            Self::Switchover => site.switch_over().await,
            Self::Commands { stop, at, .. } => shell(stop, at).await,
        }
    }

    /// Does what a person does where nobody else promotes. None: somebody else does.
    pub(super) async fn promote(&mut self) -> Option<Result<String>> {
        let Self::Lab(lab, _) = self else { return None };
        if lab.kind() != LabKind::Streaming {
            return None;
        }
        let Some(next) = lab.most_advanced().await else {
            return Some(Err(CliError::failed("no standby answers")));
        };
        let promoted = lab.promote(&next, |_| {}).await;
        Some(promoted.map(|()| next).map_err(|error| explain(&error)))
    }

    /// Starts what was stopped. None: nothing was, or nobody knows how.
    pub(super) async fn start(&mut self) -> Option<Result<()>> {
        match self {
            Self::Lab(lab, node) => Some(lab.start(node, note).await.map_err(|error| explain(&error))),
            Self::Commands { start: Some(start), at, .. } => Some(shell(start, at).await),
            Self::Switchover | Self::Commands { .. } => None,
        }
    }
}

/// The lab that has the primary, and that node.
fn lab(folder: Option<&Path>, primary: &HostPort) -> Result<Option<(Lab, String)>> {
    let usual = match folder {
        Some(folder) => folder.to_path_buf(),
        None => data_folder("lab").map_err(|error| explain(&*error))?,
    };
    let wrong = |why: String| CliError::failed(why).hint("name the cluster's own lab with --lab");
    if !matches!(Lab::kind_of(&usual), Ok(Some(_))) {
        return match folder {
            Some(folder) => Err(wrong(format!("there is no lab in {}", folder.display()))),
            None => Ok(None),
        };
    }
    let binaries = Binaries::locate(None).map_err(|error| explain(&error))?;
    let lab = Lab::open(&usual, binaries, Lifetime::Detached).map_err(|error| explain(&error))?;
    let here = matches!(primary.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    let node = lab.nodes().into_iter().find(|(_, port)| here && *port == primary.port);
    match (node, folder) {
        (Some((node, _)), _) => Ok(Some((lab, node))),
        (None, Some(folder)) => Err(wrong(format!("{primary} is no node of the lab in {}", folder.display()))),
        (None, None) => Ok(None),
    }
}

async fn shell(command: &str, at: &HostPort) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", command])
        .env("PGTENANT_HOST", &at.host)
        .env("PGTENANT_PORT", at.port.to_string())
        .env_remove("PGTENANT_TOKEN")
        .status()
        .await
        .map_err(|error| CliError::failed(format!("can not start a shell: {error}")))?;
    if status.success() { Ok(()) } else { Err(CliError::failed(format!("`{command}` failed: {status}"))) }
}
