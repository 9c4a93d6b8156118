//! What is printed of it.

use std::fmt::Write as _;

use super::{Pass, Rotation};
use crate::bench::{ClaimSample, rate};
use crate::report::new_table;
use crate::stats::{median, quantile};
use crate::verdict::Verdict;

impl Rotation {
    /// Both halves of the floor.
    fn floor(&self) -> (usize, f64) {
        let claims = self.floor.iter().map(|half| half.claims).sum();
        (claims, self.floor.iter().map(|half| half.seconds).sum())
    }
}

fn ready(samples: &[ClaimSample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.ready).collect()
}

pub(crate) fn judge(rotation: &Rotation) -> Vec<Verdict> {
    let Rotation { unpaced, paced, pace, new_at_rest, new_in_first, new_in_paced, .. } = rotation;
    let (claims, seconds) = rotation.floor();
    let each = |claims: usize, seconds: f64| seconds / rate(claims, 1.0);
    let plain = |what: String, value: f64, pgtenant: String, floor: String| Verdict {
        what,
        value,
        shown: format!("{value:.2} ×"),
        aim: String::new(),
        met: true,
        pgtenant,
        floor,
    };
    let by_pace = pace / 1e3 * rate(paced.claims, 1.0);
    let at_rest = median(&ready(new_at_rest));
    let new = |when: &str, samples: &[ClaimSample]| {
        let meanwhile = median(&ready(samples));
        let shown = (format!("{meanwhile:.1} ms"), format!("at rest {at_rest:.1} ms"));
        plain(format!("new claim {when}, median"), meanwhile / at_rest, shown.0, shown.1)
    };
    vec![
        plain(
            format!("rotation of {} claims", unpaced.claims),
            each(unpaced.claims, unpaced.seconds) / each(claims, seconds),
            format!("{:.1} s, {:.1} /s", unpaced.seconds, unpaced.per_second()),
            format!("{:.1} /s", rate(claims, seconds)),
        ),
        plain(
            format!("rotation, a claim each {pace:.0} ms"),
            paced.seconds / by_pace,
            format!("{:.1} s", paced.seconds),
            format!("pace {by_pace:.1} s"),
        ),
        new("while it is as fast as it can be", new_in_first),
        new("at that pace", new_in_paced),
    ]
}

pub(crate) fn details(rotation: &Rotation) -> String {
    let Rotation { claims, grown_per_second, first, unpaced, paced, floor, pace, .. } = rotation;
    let mut text =
        format!("\nrotations of {claims} claims, grown at {grown_per_second:.1} /s; processor ms for each claim\n");
    let mut table =
        new_table(&["", "s", "/s", "core %", "pgtenant", "primary", "standby", "ledger", "benchmark", "together"]);
    let paced_name = format!("each {pace:.0} ms");
    let halves = [("floor, before", floor.first()), ("floor, after", floor.last())];
    let own = [("first", Some(first)), ("as fast as it can be", Some(unpaced)), (paced_name.as_str(), Some(paced))];
    for (what, pass) in own.into_iter().chain(halves) {
        let Some(pass) = pass else { continue };
        let Pass { seconds, cpu, .. } = pass;
        let costs = [cpu.pgtenant, cpu.primary, cpu.standby, cpu.ledger, cpu.bench];
        let costs = costs.into_iter().chain([costs.iter().sum()]);
        let all = [*seconds, pass.per_second(), pass.core()].into_iter().chain(costs).map(|n| format!("{n:.1}"));
        table.add_row(std::iter::once(what.to_owned()).chain(all));
    }
    let _ = writeln!(text, "{table}");
    text.push_str(&new_claims(rotation));
    text
}

fn new_claims(rotation: &Rotation) -> String {
    let mut table = new_table(&["new claims, ms", "count", "median", "p95", "most"]);
    let rows = [
        ("at rest", rotation.new_at_rest.as_slice()),
        ("during the first rotation", rotation.new_in_first.as_slice()),
        ("during the paced rotation", rotation.new_in_paced.as_slice()),
    ];
    for (what, samples) in rows {
        let times = ready(samples);
        let numbers = [0.5, 0.95, 1.0].map(|share| format!("{:.1}", quantile(&times, share)));
        table.add_row([what.to_owned(), samples.len().to_string()].into_iter().chain(numbers));
    }
    format!("{table}\n")
}
