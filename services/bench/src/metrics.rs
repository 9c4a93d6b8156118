//! Prometheus' text format, as far as it is needed: sums of series.

use std::collections::BTreeMap;

/// Counters and sums at one moment.
#[derive(Debug, Default)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

/// One step of the way of a claim, as pgtenant itself measures it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Step {
    pub(crate) step: String,
    pub(crate) count: f64,
    pub(crate) mean_ms: f64,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// The sum over all labels.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let of_name = |series: &&String| series.split('{').next() == Some(name);
        self.0.keys().filter(of_name).map(|series| self.0[series]).sum()
    }

    /// Every histogram with a label `step`, and what was added to it since `before`.
    pub(crate) fn steps_since(&self, before: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (series, count) in &self.0 {
            let Some((name, labels)) = series.split_once('{') else { continue };
            let (Some(name), Some(step)) = (name.strip_suffix("_count"), label(labels, "step")) else { continue };
            let sum = format!("{name}_sum{{{labels}");
            let grown = |series: &str, now: f64| now - before.0.get(series).copied().unwrap_or_default();
            let count = grown(series, *count);
            let sum = grown(&sum, self.0.get(&sum).copied().unwrap_or_default());
            if count > 0.0 {
                steps.push(Step { step: step.to_owned(), count, mean_ms: sum / count * 1e3 });
            }
        }
        steps.sort_by(|a, b| b.mean_ms.total_cmp(&a.mean_ms));
        steps
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_steps_found() {
        let before = Scrape::parse(
            "looks_total{result=\"clean\"} 4\nstep_seconds_sum{step=\"prove\"} 1\nstep_seconds_count{step=\"prove\"} 10\n",
        );
        let text = "# HELP looks_total x\nlooks_total{result=\"clean\"} 5\nlooks_total{result=\"drift\"} 2\nlooks_total_other 9\n\
                    step_seconds_bucket{step=\"prove\",le=\"1\"} 20\nstep_seconds_sum{step=\"prove\"} 1.5\n\
                    step_seconds_count{step=\"prove\"} 20\n";
        let after = Scrape::parse(text);
        assert_eq!(after.total("looks_total"), 7.0);
        assert_eq!(after.steps_since(&before), [Step { step: "prove".to_owned(), count: 10.0, mean_ms: 50.0 }]);
    }
}
