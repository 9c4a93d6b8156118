//! What every kind of cluster can be asked, and what some can be told.

use std::fmt::Debug;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use pgtenant_model::HostPort;

use crate::aurora::Depth;
use crate::{Observation, ProbeOptions, Pushes};

/// One kind of cluster. What a kind can not do it says.
pub(crate) trait Kind: Debug + Send + Sync {
    /// Every host that takes connections of tenants who want to write: what a connection URI lists.
    fn hosts(&self) -> Vec<HostPort>;

    /// The address that leads to whichever is the primary, where something in front of the servers has one.
    fn endpoint(&self) -> Option<HostPort> {
        None
    }

    /// The one host for whoever wants to read, where there is such a host.
    fn read_host(&self) -> Option<HostPort> {
        None
    }

    /// Members that were known before; of use where a tool names them.
    fn remember(&self, _members: &[HostPort]) {}

    /// Members, role, timeline, lag, sync state, and who says so.
    fn observe<'a>(&'a self, options: &'a ProbeOptions, depth: Depth) -> BoxFuture<'a, Observation>;

    /// Asks to be told of changes, where there is somebody who tells. None: nobody does, and looks have to find out.
    fn listen<'a>(&'a self, _options: &'a ProbeOptions) -> BoxFuture<'a, Result<Option<Pushes>, String>> {
        ready(Ok(None)).boxed()
    }

    /// Asks whoever decides for another primary. Looks tell whether there is one.
    fn switch_over<'a>(
        &'a self,
        _options: &'a ProbeOptions,
        _wish: &'a SwitchoverWish,
    ) -> BoxFuture<'a, Result<(), NotSwitched>> {
        async { Err(NotSwitched("nobody can be asked to switch this cluster over".to_owned())) }.boxed()
    }
}

/// Another primary is wished for. Members are named as in an [`Observation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchoverWish {
    /// The primary.
    pub from: String,
    /// The standby that is to take its place; none: whichever is the best.
    pub to: Option<String>,
}

/// Why nobody was asked to switch over, or who refused: everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotSwitched(pub(crate) String);

impl From<String> for NotSwitched {
    fn from(why: String) -> Self {
        Self(why)
    }
}
