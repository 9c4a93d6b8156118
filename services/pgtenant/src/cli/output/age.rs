//! Times as people read them.

use chrono::{DateTime, SecondsFormat, Utc};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How long ago, as `45s`, `3m`, `5h`, `12d`, `2y`.
pub(crate) fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    short((now - then).num_seconds())
}

/// How long until then, as `in 45s`; `now` where it is past. A moment less than 90 days is `in 90d`.
pub(crate) fn until(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = ((then - now).num_milliseconds() + 999).div_euclid(1000);
    let unit = match seconds {
        ..120 => 1,
        s if s < 2 * HOUR => MINUTE,
        s if s < 2 * DAY => HOUR,
        _ => DAY,
    };
    if seconds <= 0 { "now".to_owned() } else { format!("in {}", short((seconds + unit / 2) / unit * unit)) }
}

/// A point in time, to the second, in UTC.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn short(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s if s < 2 * HOUR => format!("{}m", s / MINUTE),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 730 * DAY => format!("{}d", s / DAY),
        s => format!("{}y", s / (365 * DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (180, "3m"),
            (7199, "119m"),
            (7200, "2h"),
            (172_800, "2d"),
            (800 * DAY, "2y"),
        ] {
            assert_eq!(short(seconds), text);
        }
    }

    #[test]
    fn the_future_is_named() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        assert_eq!(until(now + chrono::TimeDelta::seconds(12), now), "in 12s");
        assert_eq!(until(now - chrono::TimeDelta::seconds(12), now), "now");
        assert_eq!(until(now + chrono::TimeDelta::milliseconds(90 * 86_400_000 - 40), now), "in 90d");
        assert_eq!(until(now + chrono::TimeDelta::milliseconds(300_000 - 400), now), "in 5m");
        assert_eq!(time(now), "1970-01-12T13:46:40Z");
    }
}
