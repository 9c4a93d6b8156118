//! How often claims are looked at, as the control plane itself says.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::error::{BenchError, Result};
use crate::lab::Lab;

/// The settings `look.*`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Pace {
    /// Seconds between two looks at a claim.
    pub(crate) interval: f64,
    /// Looks a second at most.
    pub(crate) per_second: f64,
}

#[derive(Deserialize)]
struct Checked {
    settings: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    key: String,
    value: Option<String>,
}

impl Pace {
    /// Asks `pgtenant config check`.
    pub(crate) async fn of(binary: &Path, lab: &Lab, set: &[String]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["config", "check", "--output", "json", "--config"]).arg(lab.settings_file());
        for setting in set {
            command.args(["--set", setting]);
        }
        let output = command.output().await.map_err(BenchError::io("run", binary))?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        Self::parse(&output.stdout).ok_or_else(|| BenchError::Serve(format!("config check: {}", said())))
    }

    /// Seconds for one look at each of `claims`.
    pub(crate) fn full_look(self, claims: f64) -> f64 {
        self.interval.max(claims / self.per_second)
    }

    fn parse(json: &[u8]) -> Option<Self> {
        let checked: Checked = serde_json::from_slice(json).ok()?;
        let value = |key: &str| checked.settings.iter().find(|setting| setting.key == key)?.value.clone();
        let interval = humantime::parse_duration(&value("look.interval")?).ok()?.as_secs_f64();
        Some(Self { interval, per_second: value("look.max_per_second")?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_read_from_the_settings() {
        let json = br#"{"file": null, "ok": true, "settings": [
            {"key": "look.interval", "value": "5m", "source": "default"},
            {"key": "look.max_per_second", "value": "0.5", "source": "default"},
            {"key": "ledger.password", "value": null, "source": ""}]}"#;
        let pace = Pace::parse(json).unwrap();
        assert_eq!(pace, Pace { interval: 300.0, per_second: 0.5 });
        assert_eq!((pace.full_look(10.0), pace.full_look(1000.0)), (300.0, 2000.0));
    }
}
