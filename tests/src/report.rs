//! Lines for the person who reads the run, which a test runner would swallow.

use std::io::Write as _;

/// A number that was measured.
pub fn measured(text: &str) {
    line("measured", text);
}

/// What this machine does not allow to be tested.
pub fn skipped(text: &str) {
    line("SKIPPED", text);
}

fn line(kind: &str, text: &str) {
    // Not a print macro: the runner keeps those of tests that pass.
    writeln!(std::io::stderr(), "  {kind}: {text}").ok();
}
