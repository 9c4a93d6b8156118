//! When RDS makes the daily snapshot: 02:00 to 04:00 in Copenhagen, which RDS wants in UTC.

use chrono::{DateTime, Utc};
use jiff::civil::Time;
use jiff::tz::{TimeZone, get};
use jiff::{Timestamp, ToSpan as _, Zoned};

static COPENHAGEN: TimeZone = get!("Europe/Copenhagen");
const BEGIN: Time = Time::constant(2, 0, 0, 0);
const HOURS: i64 = 2;

/// The weekly window for maintenance, in UTC: outside the backup window in summer and in winter, as RDS demands.
pub(crate) const MAINTENANCE: &str = "sun:03:30-sun:04:30";

/// The window of the next snapshot after `now`, in UTC as RDS writes it: `00:00-02:00` in summer, `01:00-03:00` in winter. On the
/// night in which the clocks go forward there is no 02:00: it begins when they do.
#[must_use]
pub fn backup_window(now: DateTime<Utc>) -> String {
    const SUMMER: &str = "00:00-02:00";
    let begin = next_begin(now).map(|zoned| zoned.with_time_zone(TimeZone::UTC));
    let window = begin.and_then(|begin| {
        let end = begin.checked_add(HOURS.hours()).ok()?;
        Some(format!("{}-{}", begin.strftime("%H:%M"), end.strftime("%H:%M")))
    });
    // Only for years that the calendar does not have.
    window.unwrap_or_else(|| SUMMER.to_owned())
}

fn next_begin(now: DateTime<Utc>) -> Option<Zoned> {
    let now = Timestamp::from_second(now.timestamp()).ok()?.to_zoned(COPENHAGEN.clone());
    let today = now.date();
    let days = [today, today.tomorrow().ok()?];
    let mut begins = days.into_iter().filter_map(|day| day.to_datetime(BEGIN).to_zoned(COPENHAGEN.clone()).ok());
    begins.find(|begin| *begin > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        backup_window(text.parse().unwrap())
    }

    #[test]
    fn the_window_is_at_two_in_copenhagen() {
        assert_eq!(at("2026-07-01T12:00:00Z"), "00:00-02:00");
        assert_eq!(at("2026-12-01T12:00:00Z"), "01:00-03:00");
    }

    #[test]
    fn it_moves_between_two_nights() {
        // The clocks go forward on 2026-03-29 at 01:00 UTC, and back on 2026-10-25 at 01:00 UTC.
        assert_eq!(at("2026-03-28T12:00:00Z"), "01:00-03:00", "there is no 02:00 in that night");
        assert_eq!(at("2026-03-29T00:59:59Z"), "01:00-03:00");
        assert_eq!(at("2026-03-29T01:00:00Z"), "00:00-02:00", "it has begun: this is the next one");
        assert_eq!(at("2026-10-24T12:00:00Z"), "00:00-02:00", "02:00 comes twice: the first");
        assert_eq!(at("2026-10-25T00:00:00Z"), "01:00-03:00");
        assert_eq!(at("2026-10-26T12:00:00Z"), "01:00-03:00");
    }

    #[test]
    fn maintenance_is_never_in_it() {
        assert!(MAINTENANCE.starts_with("sun:03:30-"), "after 03:00, when the later of the two windows ends");
    }
}
