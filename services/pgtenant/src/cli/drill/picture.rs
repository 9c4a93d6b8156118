//! A drill as a picture (SVG 1.1): when clients were answered, and what happened.

use std::fmt::Write as _;
use std::time::Duration;

use pgtenant_model::Drill;
use pgtenant_postgres::Record;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const ROW: f64 = 34.0;
const TOP: f64 = 48.0;
const LINE: f64 = 18.0;
/// An answer is said to be missing after this time.
const MISSING: Duration = Duration::from_millis(250);

/// What is drawn.
pub(super) struct Picture<'a> {
    pub(super) drill: &'a Drill,
    /// When the primary was stopped, and when the drill was over, since its beginning.
    pub(super) stopped: Duration,
    pub(super) end: Duration,
    pub(super) writes: &'a Record,
    pub(super) reads: &'a Record,
}

impl Picture<'_> {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let events = &self.drill.events;
        let axis = TOP + 2.0 * ROW;
        let height = axis + 40.0 + LINE * events.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        let verdict = if self.drill.passed { "passed" } else { "failed" };
        let title = format!(
            "{} was stopped at {}: {verdict}",
            self.drill.former_primary,
            self.drill.stopped_at.format("%Y-%m-%d %H:%M:%S UTC")
        );
        text(&mut svg, LEFT, 24.0, "#000", &title);
        for (index, (name, record)) in [("writes", self.writes), ("reads", self.reads)].into_iter().enumerate() {
            self.row(&mut svg, TOP + ROW * index as f64, name, record);
        }
        for second in self.ticks() {
            let x = self.x(self.stopped.as_secs_f64() + second);
            line(&mut svg, x, axis, 4.0, "#666");
            text(&mut svg, x - 8.0, axis + 18.0, "#666", &format!("{second} s"));
        }
        for (index, event) in events.iter().enumerate() {
            let at = event.at_ms as f64 / 1000.0;
            line(&mut svg, self.x(self.stopped.as_secs_f64() + at), TOP - 6.0, 2.0 * ROW + 6.0, "#00000055");
            let words = format!("{at:+.1} s  {}", event.what);
            text(&mut svg, LEFT, axis + 40.0 + LINE * index as f64, "#333", &words);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn row(&self, svg: &mut String, y: f64, name: &str, record: &Record) {
        text(svg, 10.0, y + 15.0, "#000", name);
        let begin = record.acknowledged.first().map_or(self.end, |(_, at)| *at);
        bar(svg, self.x(begin.as_secs_f64()), self.x(self.end.as_secs_f64()), y, "#2a9d5c");
        for (began, gap) in record.gaps(MISSING, self.end) {
            bar(svg, self.x(began.as_secs_f64()), self.x((began + gap).as_secs_f64()), y, "#d1495b");
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.end.as_secs_f64().max(0.001)).clamp(0.0, 1.0)
    }

    /// Seconds from the stop, at most a dozen.
    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let last = self.end.saturating_sub(self.stopped).as_secs_f64();
        let step = (last / 10.0).ceil().max(1.0);
        (0_u32..12).map(move |n| f64::from(n) * step).take_while(move |at| *at <= last)
    }
}

fn bar(svg: &mut String, from: f64, to: f64, y: f64, color: &str) {
    let width = (to - from).max(1.0);
    let _ = writeln!(svg, "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"22\" fill=\"{color}\"/>");
}

fn line(svg: &mut String, x: f64, y: f64, height: f64, color: &str) {
    let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{y}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"{color}\"/>", y + height);
}

fn text(svg: &mut String, x: f64, y: f64, color: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\">{words}</text>");
}
