//! A length of time, as people write it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number and one of `s`, `m`, `h` and `d`: `30d`. Whole seconds, at most 100,000 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
#[schemars(inline, extend("pattern" = PATTERN))]
pub struct Span(Duration);

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
const MOST_SECONDS: u64 = 100_000 * 86_400;
const PATTERN: &str = "^[0-9]{1,10}[smhd]$";

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let unit = UNITS.into_iter().find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length));
        let (unit, length) = unit.unwrap_or(('s', 1));
        write!(f, "{}{unit}", seconds / length)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a number and one of s, m, h and d, as 30d");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let (_, length) = UNITS.into_iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
        let digits = &text[..text.len() - 1];
        let plain = digits.len() <= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        let seconds = number.checked_mul(length).filter(|seconds| *seconds <= MOST_SECONDS);
        seconds.map(Self::from_secs).ok_or_else(|| format!("{text:?} is longer than 100,000 days"))
    }
}

impl TryFrom<Cow<'_, str>> for Span {
    type Error = String;

    fn try_from(text: Cow<'_, str>) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, seconds, written) in [
            ("30d", 2_592_000, "30d"),
            ("90s", 90, "90s"),
            ("120s", 120, "2m"),
            ("0h", 0, "0s"),
            ("100000d", MOST_SECONDS, "100000d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.duration().as_secs(), span.to_string().as_str()), (seconds, written));
        }
        for text in ["", "d", "1", "1w", "-1s", "+1s", "1.5h", " 1s", "100001d", "99999999999s", "1é"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
