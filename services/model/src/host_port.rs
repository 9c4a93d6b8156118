//! A server's address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What [`HostPort`] reads, but for the range of ports.
pub(crate) const HOST_PORT: &str = r"^([A-Za-z0-9._-]+|\[[A-Za-z0-9._:%-]+\])(:[0-9]{1,5})?$";

/// `host:port`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A DNS name or an address.
    pub host: String,
    /// 1 to 65535; 5432 where none is given.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || format!("{text:?} is not HOST:PORT, as db1.example:5432 or [::1]:5432");
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(fault)?;
            (host, rest.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(fault());
        }
        let port = port.map_or(Ok(5432), |p| p.parse().map_err(|_| fault()))?;
        if port == 0 {
            return Err(fault());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Serialize for HostPort {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_written_alike() {
        for (text, host, port) in [
            ("db1:5433", "db1", 5433),
            ("db1", "db1", 5432),
            ("[::1]:5432", "::1", 5432),
            ("127.0.0.1:1", "127.0.0.1", 1),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
            assert_eq!(parsed.to_string().parse::<HostPort>().unwrap(), parsed);
        }
        for text in ["", ":1", "a:0", "a:65536", "a:b", "a b:1", "a/b:1", "a,b:1", "::1", "[::1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}
