//! Reading the values of settings.

use std::net::SocketAddr;
use std::time::Duration;

use config::{Value, ValueKind};

use super::field::Kind;

/// Turns what was given into what a setting of this kind keeps; see [`super::field::Field::accept`].
pub(crate) fn accept(kind: Kind, given: ValueKind, text: bool) -> Result<ValueKind, String> {
    match kind {
        Kind::Channels => return list::<pgtenant_api::SlackChannel>(kind, given),
        Kind::Users => return list::<pgtenant_api::SlackUser>(kind, given),
        _ => {}
    }
    if let ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil = given {
        return Err(format!("must be {}", describe(kind)));
    }
    let typed = if text { from_text(kind, given) } else { given };
    if is_right(kind, &typed) {
        return Ok(typed);
    }
    match kind {
        // Whatever stands here may be a password.
        Kind::Secret | Kind::LedgerUrl => Err(format!("must be {}", describe(kind))),
        _ => match typed {
            ValueKind::String(text) => Err(format!("{text:?} must be {}", describe(kind))),
            other => Err(format!("{other} must be {}", describe(kind))),
        },
    }
}

/// A list of tables, each of which is a `T`; from a variable or a flag as JSON.
fn list<T: serde::de::DeserializeOwned>(kind: Kind, given: ValueKind) -> Result<ValueKind, String> {
    let wrong = || format!("must be {}", describe(kind));
    let value = match given {
        ValueKind::String(text) => {
            let json = serde_json::from_str(&text).map_err(|_| wrong())?;
            super::layer::from_json(json, "")
        }
        other => Value::new(None, other),
    };
    if !matches!(value.kind, ValueKind::Array(_)) {
        return Err(wrong());
    }
    serde_path_to_error::deserialize::<_, Vec<T>>(super::to_json(&value))
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
    Ok(value.kind)
}

fn from_text(kind: Kind, given: ValueKind) -> ValueKind {
    let ValueKind::String(text) = given else { return given };
    let parsed = match kind {
        Kind::Bool => text.parse().ok().map(ValueKind::Boolean),
        Kind::Integer(..) | Kind::Size(_) => text.parse().ok().map(ValueKind::I64),
        Kind::Number(_) => text.parse().ok().map(ValueKind::Float),
        _ => None,
    };
    parsed.unwrap_or(ValueKind::String(text))
}

fn is_right(kind: Kind, value: &ValueKind) -> bool {
    match (kind, value) {
        (Kind::Bool, ValueKind::Boolean(_)) => true,
        (Kind::Integer(min, max), ValueKind::I64(number)) => (min..=max).contains(number),
        (Kind::Number(max), ValueKind::Float(number)) => *number > 0.0 && *number <= max,
        #[expect(clippy::cast_precision_loss, reason = "compared with bounds far below 2^52")]
        (Kind::Number(max), ValueKind::I64(number)) => *number > 0 && *number as f64 <= max,
        (Kind::Size(max), ValueKind::I64(bytes)) => u64::try_from(*bytes).is_ok_and(|b| b > 0 && b <= max),
        (_, ValueKind::String(text)) => is_right_text(kind, text),
        _ => false,
    }
}

fn is_right_text(kind: Kind, text: &str) -> bool {
    match kind {
        Kind::Address => text.parse::<SocketAddr>().is_ok(),
        Kind::LedgerUrl => is_ledger_url(text),
        Kind::Secret | Kind::Path => !text.is_empty(),
        Kind::Duration(min, max) => {
            let bounds = Duration::from_millis(min)..=Duration::from_millis(max);
            humantime::parse_duration(text).is_ok_and(|d| bounds.contains(&d))
        }
        Kind::Size(max) => parse_size(text).is_some_and(|bytes| bytes > 0 && bytes <= max),
        Kind::Choice(words) => words.contains(&text),
        Kind::LogLevel => !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok(),
        Kind::Label => pgtenant_model::check_label("name", text).is_ok(),
        Kind::Https => reqwest::Url::parse(text)
            .is_ok_and(|url| url.scheme() == "https" && url.path() == "/" && url.query().is_none()),
        Kind::Url => reqwest::Url::parse(text).is_ok_and(|url| {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && here)
        }),
        Kind::Text => !text.trim().is_empty(),
        Kind::Bool | Kind::Integer(..) | Kind::Number(_) | Kind::Channels | Kind::Users => false,
    }
}

/// A password here would be seen by everyone who sees the settings.
fn is_ledger_url(text: &str) -> bool {
    let fits = |url: &String| {
        let Ok(url) = reqwest::Url::parse(url) else { return false };
        matches!(url.scheme(), "postgres" | "postgresql")
            && url.password().is_none()
            && !url.query_pairs().any(|(key, _)| key == "password")
    };
    let each = each_host(text);
    !each.is_empty() && each.len() <= MOST_LEDGER_HOSTS && each.iter().all(fits)
}

/// Of the ledger's URL.
const MOST_LEDGER_HOSTS: usize = 9;

/// A URL for each of the hosts of one, as libpq has several: `postgresql://user@db1:5432,db2:5432/database`. What it says of
/// `target_session_attrs` is left out: the one that takes writes is taken.
pub(crate) fn each_host(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if user.is_empty() { "" } else { "@" };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query: Vec<_> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("target_session_attrs=")).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    hosts.split(',').map(|host| format!("{scheme}://{user}{at}{host}{path}{query}")).collect()
}

/// Bytes, as `262144`, `256KiB` or `1MiB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

fn describe(kind: Kind) -> String {
    let time = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    match kind {
        Kind::Address => "an address and a port, as 127.0.0.1:8080 or [::]:8080".to_owned(),
        Kind::LedgerUrl => {
            "a URL as postgresql://user@host:5432/database, with 1 to 9 hosts parted by commas, without a password \
                            (that goes into ledger.password_file)"
                .to_owned()
        }
        Kind::Secret => "text that is not empty".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Number(max) => format!("a number above 0, at most {max}"),
        Kind::Duration(min, max) => format!("a time as \"30s\" or \"5m\", from {} to {}", time(min), time(max)),
        Kind::Size(max) => format!("a number of bytes as 262144 or \"256KiB\", at most {max}"),
        Kind::Choice(words) => words.join(" or "),
        Kind::Label => "a name of a-z, 0-9 and hyphens, with a letter or digit first and last".to_owned(),
        Kind::Https => "a URL as https://pgtenant.example:9443, without a path".to_owned(),
        Kind::Url => "a URL as https://slack.com/api/; http only on this machine".to_owned(),
        Kind::Text => "text that is not empty".to_owned(),
        Kind::Channels => r#"a list as [{"id": "C012AB3CD", "namespaces": ["shop"]}]"#.to_owned(),
        Kind::Users => r#"a list as [{"id": "U012AB3CD", "role": "platform"}]"#.to_owned(),
        Kind::LogLevel => "error, warn, info, debug or trace, or a list as info,pgtenant_engine=debug".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, value: &str) -> Result<ValueKind, String> {
        accept(kind, ValueKind::String(value.to_owned()), true)
    }

    #[test]
    fn values_that_fit_are_taken() {
        assert_eq!(text(Kind::Integer(1, 9), "5"), Ok(ValueKind::I64(5)));
        assert_eq!(text(Kind::Bool, "true"), Ok(ValueKind::Boolean(true)));
        assert!(text(Kind::Number(10.0), "0.5").is_ok());
        assert!(accept(Kind::Number(10.0), ValueKind::I64(2), false).is_ok());
        assert!(text(Kind::Duration(1000, 60_000), "30s").is_ok());
        assert!(text(Kind::Address, "[::1]:0").is_ok());
        assert!(text(Kind::LedgerUrl, "postgresql://pgtenant@db:5432/pgtenant?sslmode=verify-full").is_ok());
        assert!(text(Kind::LedgerUrl, "postgresql://pgtenant@db1:5432,[::1]:5433/pgtenant").is_ok());
    }

    #[test]
    fn a_url_has_one_or_several_hosts() {
        assert_eq!(each_host("postgresql://u@db/l"), ["postgresql://u@db/l"]);
        assert_eq!(
            each_host("postgres://u@db1:1,[::1]:2/l?sslmode=require&target_session_attrs=read-write"),
            ["postgres://u@db1:1/l?sslmode=require", "postgres://u@[::1]:2/l?sslmode=require"]
        );
        assert_eq!(each_host("postgresql://db1,db2?user=u"), ["postgresql://db1?user=u", "postgresql://db2?user=u"]);
        assert!(each_host("nothing").is_empty());
    }

    #[test]
    fn values_that_do_not_fit_say_what_is_allowed() {
        for (kind, value, expected) in [
            (Kind::Integer(1, 9), "10", "10 must be a whole number from 1 to 9"),
            (Kind::Integer(1, 9), "x", "\"x\" must be a whole number from 1 to 9"),
            (Kind::Bool, "yes", "\"yes\" must be true or false"),
            (Kind::Number(1.0), "0", "0 must be a number above 0, at most 1"),
            (Kind::Duration(1000, 60_000), "5", "\"5\" must be a time as \"30s\" or \"5m\", from 1s to 1m"),
            (Kind::Choice(&["text", "json"]), "xml", "\"xml\" must be text or json"),
        ] {
            assert_eq!(text(kind, value).unwrap_err(), expected);
        }
        // In a file a number is a number.
        assert!(accept(Kind::Integer(1, 9), ValueKind::String("5".into()), false).is_err());
        assert!(accept(Kind::Integer(1, 9), ValueKind::Float(5.0), false).is_err());
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_quoted() {
        for url in [
            "postgresql://u:hunter2@db/x",
            "postgresql://u@db/x?password=hunter2",
            "postgresql://u:hunter2@db1,db2/x",
            "postgresql://u@db1,,db2/hunter2",
            "mysql://hunter2",
            "hunter2",
        ] {
            let fault = text(Kind::LedgerUrl, url).unwrap_err();
            assert!(fault.contains("password_file") && !fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("262144"), Some(262_144));
        assert_eq!(parse_size("256KiB"), Some(262_144));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        for wrong in ["", "KiB", "1kb", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615MiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
