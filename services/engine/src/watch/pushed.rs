//! Looks at once, since somebody has told that the cluster is not what it was.

use std::time::Duration;

use metrics::{counter, gauge};
use pgtenant_topology::Pushes;
use rand::RngExt as _;

use crate::cluster::Cluster;

/// From a connection that was lost, or not made, to the next try, at first and at most: a monitor that starts is not to be stormed, and
/// meanwhile looks are made as of a cluster of which nobody tells anything.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Has looks made for as long as it is polled, where there is somebody who tells.
pub(super) async fn listen(cluster: &Cluster) {
    let (mut pause, mut told) = (AGAIN.0, false);
    loop {
        let why = match cluster.listen().await {
            Ok(None) => return,
            Ok(Some(pushes)) => {
                if told {
                    tracing::info!(cluster = cluster.name, "changes of the cluster are told again");
                }
                (pause, told) = (AGAIN.0, false);
                look_when_told(cluster, pushes).await
            }
            Err(why) => why,
        };
        note(cluster, false);
        if !told {
            tracing::warn!(
                cluster = cluster.name,
                "changes of the cluster are not told, and found by looks alone: {why}"
            );
            told = true;
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.5));
        tokio::time::sleep(jittered).await;
        pause = AGAIN.1.min(pause * 2);
    }
}

/// Says at the end why nothing is told any more.
async fn look_when_told(cluster: &Cluster, mut pushes: Pushes) -> String {
    let _heard = Heard::from_now_on(cluster);
    // Of what has changed before this, nobody was told.
    cluster.look.notify_one();
    loop {
        match pushes.next().await {
            Ok(()) => {
                counter!("pgtenant_cluster_pushes_total", "cluster" => cluster.name.clone()).increment(1);
                // All that come during a look ask for one more.
                cluster.look.notify_one();
            }
            Err(why) => return why,
        }
    }
}

/// The metric is 1 while this is there.
struct Heard<'a>(&'a Cluster);

impl<'a> Heard<'a> {
    fn from_now_on(cluster: &'a Cluster) -> Self {
        note(cluster, true);
        Self(cluster)
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        note(self.0, false);
    }
}

fn note(cluster: &Cluster, heard: bool) {
    gauge!("pgtenant_cluster_push_connected", "cluster" => cluster.name.clone()).set(u8::from(heard));
}
