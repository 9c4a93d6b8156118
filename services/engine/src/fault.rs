//! Fault points, for tests that kill or stall the control plane at a named step.
//!
//! `PGTENANT_FAULT=kill@before:roles` kills the process with SIGKILL the first time that it comes to that point;
//! `stall=30s@after:stored` holds that one claim there. Without the variable a point costs one comparison.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgtenant_model::InvalidField;

/// What happens at which point.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Option<Planned>,
}

#[derive(Debug)]
struct Planned {
    point: String,
    stall: Option<Duration>,
    spent: AtomicBool,
}

impl Faults {
    /// Reads `kill@POINT` or `stall=SECONDSs@POINT`; an empty text plans nothing.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let fault = || InvalidField::new("PGTENANT_FAULT", "use kill@POINT or stall=SECONDSs@POINT");
        let (what, point) = text.split_once('@').ok_or_else(fault)?;
        let stall = match what.strip_prefix("stall=").and_then(|s| s.strip_suffix('s')) {
            Some(seconds) => {
                let seconds = seconds.parse().map_err(|_| fault())?;
                Some(Duration::try_from_secs_f64(seconds).map_err(|_| fault())?)
            }
            None if what == "kill" => None,
            None => return Err(fault()),
        };
        let planned = Planned { point: point.to_owned(), stall, spent: AtomicBool::new(false) };
        Ok(Self { planned: Some(planned) })
    }

    /// Comes to a point.
    pub(crate) async fn reach(&self, point: &str) {
        match self.due(point) {
            None => {}
            Some(Some(time)) => tokio::time::sleep(time).await,
            Some(None) => die(),
        }
    }

    /// Comes to a point within a step; a stall holds the thread.
    pub(crate) fn reach_now(&self, point: &str) {
        match self.due(point) {
            None => {}
            Some(Some(time)) => std::thread::sleep(time),
            Some(None) => die(),
        }
    }

    /// What is planned here, once: a stall of some time, or the end.
    fn due(&self, point: &str) -> Option<Option<Duration>> {
        let planned = self.planned.as_ref().filter(|planned| planned.point == point)?;
        if planned.spent.swap(true, Ordering::Relaxed) {
            return None;
        }
        tracing::warn!(point, "fault point");
        Some(planned.stall)
    }
}

fn die() {
    use rustix::process::{Signal, getpid, kill_process};
    // SIGKILL to oneself can not be refused, and nothing runs after it.
    let _sent = kill_process(getpid(), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        assert!(Faults::parse("").unwrap().planned.is_none());
        let stall = Faults::parse("stall=1.5s@after:stored").unwrap().planned.unwrap();
        assert_eq!(stall.stall, Some(Duration::from_millis(1500)));
        assert_eq!(stall.point, "after:stored");
        assert_eq!(Faults::parse("kill@x").unwrap().planned.unwrap().stall, None);
        for text in ["kill", "explode@x", "stall=s@x", "stall=-1s@x"] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
    }
}
