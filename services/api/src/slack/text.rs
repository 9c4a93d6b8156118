//! Text as Slack shows it, of parts that nobody can turn into something else.

use std::fmt;

use chrono::{DateTime, Utc};
use pgtenant_model::RestoreProgress;

use super::settings::is_id;

/// Text of others within Slack's markup: it neither mentions anybody nor makes links
/// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
pub(crate) struct Esc<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Esc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                // A line of its own could look like one of ours; letters that change the direction could as well.
                '\n' | '\t' | '\u{2028}' | '\u{2029}' => f.write_str(" ")?,
                hidden if hidden.is_control() || is_direction(hidden) => {}
                other => fmt::Write::write_char(f, other)?,
            }
        }
        Ok(())
    }
}

fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Who did something: a mention of somebody in Slack, or the name as it is written down.
pub(crate) fn who(actor: &str) -> String {
    match actor.strip_prefix("slack:").filter(|user| is_id(user, "UW")) {
        Some(user) => format!("<@{user}>"),
        None => format!("`{}`", Esc(actor.replace('`', "'"))),
    }
}

/// An instant, in the time zone of whoever reads it.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    format!("<!date^{}^{{date_short_pretty}} {{time}}|{}>", at.timestamp(), plain_moment(at))
}

/// An instant where there is no markup.
pub(crate) fn plain_moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// As `1.2 GB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// Digits in groups of three.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 table`, `2 tables`.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A bar of ten parts with bytes, tables and when it will be done, as far as that is known.
pub(crate) fn bar(progress: &RestoreProgress) -> String {
    let RestoreProgress { bytes: done, bytes_total, tables, tables_total, estimated_end } = progress;
    let mut parts = Vec::new();
    if let Some(total) = bytes_total.filter(|total| *total > 0) {
        let tenths = usize::try_from(done.saturating_mul(10) / total).unwrap_or(10).min(10);
        let percent = (done.saturating_mul(100) / total).min(100);
        parts.push(format!("{}{} {percent} %", "▓".repeat(tenths), "░".repeat(10 - tenths)));
        parts.push(format!("{} of {}", bytes(*done), bytes(total)));
    } else if *done > 0 {
        parts.push(bytes(*done));
    }
    match tables_total {
        Some(total) => parts.push(format!("{tables} of {} tables", number(u64::from(*total)))),
        None if *tables > 0 => parts.push(count(u64::from(*tables), "table", "tables")),
        None => {}
    }
    parts.extend(estimated_end.map(|end| format!("done about {}", moment(end))));
    parts.join(" · ")
}

/// A text that has at most `most` letters, as Slack counts them: cut with `…`, and never within an entity of the markup.
pub(crate) fn cut(text: impl Into<String>, most: usize) -> String {
    let text = text.into();
    // Some of Slack counts UTF-16, some code points: no text has more of the latter.
    if text.len() <= most || text.encode_utf16().count() <= most {
        return text;
    }
    let mut kept = String::new();
    let mut length = 1;
    for letter in text.chars() {
        length += letter.len_utf16();
        if length > most {
            break;
        }
        kept.push(letter);
    }
    for (open, close) in [('&', ';'), ('<', '>')] {
        if let Some(at) = kept.rfind(open)
            && !kept[at..].contains(close)
        {
            kept.truncate(at);
        }
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_only_text() {
        assert_eq!(Esc("<!channel> & <@U1>").to_string(), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
        assert_eq!(Esc("a\nb\u{202e}c\u{7}\u{61c}").to_string(), "a bc");
        assert_eq!(Esc("a\u{2028}b\u{2029}c").to_string(), "a b c");
        assert_eq!(who("slack:U0ALICE"), "<@U0ALICE>");
        assert_eq!(who("slack:U0<!here>"), "`slack:U0&lt;!here&gt;`");
        assert_eq!(who("token:a`b"), "`token:a'b`");
    }

    #[test]
    fn what_is_cut_is_still_well_formed() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("ab&amp;cd", 6), "ab…");
        assert_eq!(cut("ab<@U0ALICE> and", 8), "ab…");
        assert_eq!(cut("&amp;&amp;x", 10), "&amp;…");
        for most in 1..12 {
            let cut = cut("😀😀😀😀😀😀", most);
            assert!(cut.encode_utf16().count() <= most, "{most}: {cut}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([number(0), number(999), number(1000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([bytes(999), bytes(1_200_000_000), bytes(u64::MAX)], ["999 B", "1.2 GB", "18446744.1 TB"]);
        let mut progress =
            RestoreProgress { bytes: 45, bytes_total: Some(100), tables: 2, ..RestoreProgress::default() };
        assert_eq!(bar(&progress), "▓▓▓▓░░░░░░ 45 % · 45 B of 100 B · 2 tables");
        progress = RestoreProgress { bytes: 900, bytes_total: Some(100), tables_total: Some(3), ..progress };
        assert_eq!(bar(&progress), "▓▓▓▓▓▓▓▓▓▓ 100 % · 900 B of 100 B · 2 of 3 tables");
        assert_eq!(bar(&RestoreProgress::default()), "");
    }
}
