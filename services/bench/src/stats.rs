//! Medians, percentiles, a line through points.

/// The value below which `share` (0 to 1) of the samples lie, between neighbours by their distance; NaN of nothing.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "samples are counted in thousands")]
    let place = share * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the samples")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// A straight line.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
}

impl Line {
    /// The line of least squares; level where the points have one x.
    pub(crate) fn through(points: &[(f64, f64)]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a handful of points")]
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let slope = if spread > 0.0 { points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread } else { 0.0 };
        Self { slope, intercept: y - slope * x }
    }

    pub(crate) fn at(self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// The largest growth of a counter within `window` seconds; points are `(seconds, value)` in their order.
pub(crate) fn steepest(points: &[(f64, f64)], window: f64) -> f64 {
    let mut from = 0;
    let mut most = 0.0_f64;
    for (index, point) in points.iter().enumerate() {
        while points[from].0 < point.0 - window {
            from += 1;
        }
        most = most.max(points[index].1 - points[from].1);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.95), 9.5);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line::through(&[(250.0, 25.0), (500.0, 30.0), (1000.0, 40.0)]);
        assert!((line.at(10_000.0) - 220.0).abs() < 1e-9, "{line:?}");
        assert_eq!(Line::through(&[(5.0, 3.0)]).at(100.0), 3.0);
    }

    #[test]
    fn the_steepest_second() {
        let points = [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0), (1.4, 3.0), (5.0, 4.0)];
        assert_eq!(steepest(&points, 1.0), 2.0);
        assert_eq!(steepest(&[], 1.0), 0.0);
    }
}
