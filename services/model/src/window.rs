//! When daily work is done: once a day, in a window of the local clock.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use jiff::civil::{Date, DateTime as Civil, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

/// The one in the program: what a machine has installed does not move a window.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const PATTERN: &str = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]( [A-Za-z][A-Za-z0-9_+/-]{0,63})?$";
/// Local days that do not exist follow one another nowhere; the day before may still have its window before it.
const DAYS: usize = 5;

/// A window of the local clock, each day: `02:00-04:00 Europe/Copenhagen`; without a zone in UTC. One that ends before it begins
/// ends the day after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
#[schemars(inline, extend("pattern" = PATTERN))]
pub struct BackupWindow {
    begin: Time,
    end: Time,
    zone: TimeZone,
}

impl BackupWindow {
    /// The next start after an instant: one for each local day, at a moment of the window that follows from `seed` alone, so that
    /// those of many seeds are spread over the window and none moves when the program starts again. Where the clocks go forward
    /// over the window, or a part of it, what is left of it counts; where an hour comes twice, the first.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>, seed: &str) -> DateTime<Utc> {
        let start = self.starts(after, seed).find(|start| *start > after);
        // Only at the ends of the calendar.
        start.unwrap_or_else(|| after + chrono::TimeDelta::days(1))
    }

    /// The start of the window that an instant is in, if that was before it.
    #[must_use]
    pub fn begun(&self, now: DateTime<Utc>, seed: &str) -> Option<DateTime<Utc>> {
        let start = self.starts(now, seed).take_while(|start| *start <= now).last()?;
        let today = Timestamp::from_second(start.timestamp()).ok()?.to_zoned(self.zone.clone()).date();
        let (_, end) = [today, today.yesterday().ok()?]
            .into_iter()
            .filter_map(|day| self.on(day))
            .find(|(begin, end)| (begin.as_second()..end.as_second()).contains(&start.timestamp()))?;
        (now.timestamp() < end.as_second()).then_some(start)
    }

    /// Starts from the local day before an instant on, in their order.
    fn starts(&self, from: DateTime<Utc>, seed: &str) -> impl Iterator<Item = DateTime<Utc>> {
        let part = spread(seed);
        let today = Timestamp::from_second(from.timestamp()).map(|now| now.to_zoned(self.zone.clone()).date());
        let days = today.and_then(Date::yesterday).into_iter().flat_map(|day| day.series(1.day()).take(DAYS));
        days.filter_map(move |day| {
            let (begin, end) = self.on(day)?;
            let length = u64::try_from(end.as_second() - begin.as_second()).ok()?;
            let start = begin.as_second() + i64::try_from((u128::from(part) * u128::from(length)) >> 64).ok()?;
            DateTime::from_timestamp(start, 0)
        })
    }

    /// The window that begins on a local day; none where there is no such day.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let last = if self.begin < self.end { day } else { day.tomorrow().ok()? };
        let begin = self.instant(day.to_datetime(self.begin))?;
        let end = self.instant(last.to_datetime(self.end))?;
        (self.zone.to_datetime(begin).date() == day).then_some((begin, end))
    }

    /// The first instant at which the local clock shows a time, or has gone over it.
    fn instant(&self, civil: Civil) -> Option<Timestamp> {
        let offset = match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Fold { before, .. } => before,
            AmbiguousOffset::Gap { before, .. } => {
                let beyond = before.to_timestamp(civil).ok()?.checked_add(1.second()).ok()?;
                return self.zone.preceding(beyond).next().map(|change| change.timestamp());
            }
        };
        offset.to_timestamp(civil).ok()
    }
}

/// An even number of a seed, the same for ever: FNV-1a, and the end of SplitMix64, without which the upper digits of like seeds
/// are alike.
fn spread(seed: &str) -> u64 {
    let hash = seed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl Default for BackupWindow {
    /// 02:00 to 04:00 in UTC.
    fn default() -> Self {
        Self { begin: Time::constant(2, 0, 0, 0), end: Time::constant(4, 0, 0, 0), zone: TimeZone::UTC }
    }
}

impl fmt::Display for BackupWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begin, end, zone } = self;
        let zone = zone.iana_name().unwrap_or("UTC");
        write!(f, "{:02}:{:02}-{:02}:{:02} {zone}", begin.hour(), begin.minute(), end.hour(), end.minute())
    }
}

impl FromStr for BackupWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not two times of day and a zone, as 02:00-04:00 Europe/Copenhagen; without a zone it is in UTC"
            )
        };
        let (times, zone) = text.split_once(' ').unwrap_or((text, "UTC"));
        let (begin, end) = times.split_once('-').ok_or_else(wrong)?;
        let (begin, end) = (time(begin).ok_or_else(wrong)?, time(end).ok_or_else(wrong)?);
        if begin == end {
            return Err(format!("{text:?} ends when it begins: name a later end"));
        }
        let known =
            || format!("{zone:?} is no time zone: use UTC or a name of the IANA database, as Europe/Copenhagen");
        if zone == "UTC" {
            return Ok(Self { begin, end, zone: TimeZone::UTC });
        }
        let zone = ZONES.get(zone).map_err(|_| known())?;
        // What has no name could not be written again.
        zone.iana_name().ok_or_else(known)?;
        Ok(Self { begin, end, zone })
    }
}

/// `HH:MM`.
fn time(text: &str) -> Option<Time> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (hour, minute) = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2)?;
    Time::new(digits(hour)?, digits(minute)?, 0, 0).ok()
}

impl TryFrom<Cow<'_, str>> for BackupWindow {
    type Error = String;

    fn try_from(text: Cow<'_, str>) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BackupWindow> for String {
    fn from(window: BackupWindow) -> Self {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(text: &str) -> BackupWindow {
        text.parse().unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// When it begins and ends, at its next start.
    fn bounds(text: &str, after: &str) -> String {
        let window = window(text);
        let seconds = at(after).timestamp();
        let today = Timestamp::from_second(seconds).unwrap().to_zoned(window.zone.clone()).date();
        let days = today.yesterday().unwrap().series(1.day()).take(DAYS);
        let (begin, end) =
            days.filter_map(|day| window.on(day)).find(|(begin, _)| begin.as_second() > seconds).unwrap();
        format!("{begin} {end}")
    }

    #[test]
    fn windows_are_read_and_written() {
        for (text, written) in [
            ("02:00-04:00 Europe/Copenhagen", "02:00-04:00 Europe/Copenhagen"),
            ("02:00-04:00", "02:00-04:00 UTC"),
            ("23:00-01:00 America/Argentina/Buenos_Aires", "23:00-01:00 America/Argentina/Buenos_Aires"),
            ("02:00-04:00 UTC", "02:00-04:00 UTC"),
            ("00:00-23:59 Etc/GMT+5", "00:00-23:59 Etc/GMT+5"),
        ] {
            assert_eq!(window(text).to_string(), written);
            assert_eq!(window(written), window(text));
            let json = serde_json::to_string(&window(text)).unwrap();
            assert_eq!(serde_json::from_str::<BackupWindow>(&json).unwrap(), window(text));
        }
        assert_eq!(BackupWindow::default(), window("02:00-04:00"));
        for (text, why) in [
            ("", "is not two times of day"),
            ("02:00", "is not two times of day"),
            ("2:00-4:00", "is not two times of day"),
            ("24:00-04:00", "is not two times of day"),
            ("02:60-04:00", "is not two times of day"),
            ("+2:00-04:00", "is not two times of day"),
            ("02:00 - 04:00", "is not two times of day"),
            ("02:00-04:00Z", "is not two times of day"),
            ("02:00-02:00 UTC", "ends when it begins"),
            ("02:00-04:00 Mars/Olympus", "IANA database, as Europe/Copenhagen"),
            ("02:00-04:00 ", "is no time zone"),
            ("02:00-04:00 UTC ", "is no time zone"),
            ("02:00-04:00 ../etc", "is no time zone"),
        ] {
            let error = text.parse::<BackupWindow>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn clocks_that_change_move_a_window_and_lose_none() {
        const COPENHAGEN: &str = "02:00-04:00 Europe/Copenhagen";
        assert_eq!(bounds(COPENHAGEN, "2026-07-01T12:00:00Z"), "2026-07-02T00:00:00Z 2026-07-02T02:00:00Z");
        // Forward on 2026-03-29 at 01:00 UTC: from 02:00 to 03:00.
        assert_eq!(bounds(COPENHAGEN, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z 2026-03-29T02:00:00Z");
        let inside = bounds("02:15-02:45 Europe/Copenhagen", "2026-03-28T12:00:00Z");
        assert_eq!(
            inside, "2026-03-29T01:00:00Z 2026-03-29T01:00:00Z",
            "all of it does not exist: when the clocks change"
        );
        let half = bounds("02:30-03:15 Europe/Copenhagen", "2026-03-28T12:00:00Z");
        assert_eq!(half, "2026-03-29T01:00:00Z 2026-03-29T01:15:00Z");
        // Back on 2026-10-25 at 01:00 UTC: 02:00 to 03:00 comes twice.
        assert_eq!(bounds(COPENHAGEN, "2026-10-24T12:00:00Z"), "2026-10-25T00:00:00Z 2026-10-25T03:00:00Z");
        let inside = bounds("02:15-02:45 Europe/Copenhagen", "2026-10-24T12:00:00Z");
        assert_eq!(inside, "2026-10-25T00:15:00Z 2026-10-25T00:45:00Z", "the first of the two");
        // Over midnight, where the clocks change at midnight: Cairo, 2026-04-24.
        let night = bounds("23:30-00:30 Africa/Cairo", "2026-04-23T12:00:00Z");
        assert_eq!(night, "2026-04-23T21:30:00Z 2026-04-23T22:00:00Z");
        // Samoa had no 2011-12-30.
        let skipped = bounds("02:00-04:00 Pacific/Apia", "2011-12-29T13:00:00Z");
        assert_eq!(skipped, "2011-12-30T12:00:00Z 2011-12-30T14:00:00Z");
    }

    #[test]
    fn a_seed_has_its_moment_for_ever() {
        let (window, after) = (window("02:00-04:00"), at("2026-11-22T12:00:00Z"));
        // Written down: another version of this would move every cluster's dumps.
        assert_eq!(window.next(after, "default/shop/orders"), at(MOMENT));
        let starts: Vec<i64> = (0..7200)
            .map(|number| {
                window.next(after, &format!("default/shop/db-{number}")).timestamp()
                    - at("2026-11-23T02:00:00Z").timestamp()
            })
            .collect();
        assert!(starts.iter().all(|start| (0..7200).contains(start)));
        for quarter in 0..8 {
            let there = starts.iter().filter(|start| (quarter * 900..(quarter + 1) * 900).contains(*start)).count();
            assert!((800..1000).contains(&there), "{there} of 7200 in part {quarter} of 8");
        }
    }

    const MOMENT: &str = "2026-11-23T02:10:50Z";

    const ZONES: [&str; 12] = [
        "UTC",
        "Europe/Copenhagen",
        "America/New_York",
        "America/Sao_Paulo",
        "America/Havana",
        "Africa/Cairo",
        "Africa/Casablanca",
        "Asia/Kolkata",
        "Asia/Tehran",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Auckland",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn each_local_day_has_one_start_inside_its_window(
            zone in prop::sample::select(&ZONES[..]),
            (begin, end) in (0_u32..1440, 0_u32..1440).prop_filter("a window", |(begin, end)| begin != end),
            first in 1_200_000_000_i64..1_900_000_000,
            seed in "[a-z/]{0,20}",
        ) {
            let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
            let window = window(&format!("{}-{} {zone}", clock(begin), clock(end)));
            let mut now = DateTime::from_timestamp(first, 0).unwrap();
            let mut day: Option<Date> = None;
            for _ in 0..750 {
                let start = window.next(now, &seed);
                prop_assert!(start > now);
                // From anywhere in between it is the same.
                let between = now + (start - now) / 3;
                prop_assert_eq!(window.next(between, &seed), start);
                let stamp = Timestamp::from_second(start.timestamp()).unwrap();
                let shown = stamp.to_zoned(window.zone.clone()).date();
                let (of, (from, to)) = [shown, shown.yesterday().unwrap()]
                    .into_iter()
                    .filter_map(|day| Some((day, window.on(day)?)))
                    .find(|(_, (from, to))| (*from..=*to).contains(&stamp))
                    .unwrap();
                prop_assert!(to >= from && to.as_second() - from.as_second() <= 86_400 + 3_600);
                if let Some(day) = day {
                    let mut next = day.tomorrow().unwrap();
                    if window.on(next).is_none() {
                        prop_assert!(zone == "Pacific/Apia", "{next} is missing in {zone}");
                        next = next.tomorrow().unwrap();
                    }
                    prop_assert_eq!(of, next);
                }
                day = Some(of);
                now = start;
            }
        }
    }
}
