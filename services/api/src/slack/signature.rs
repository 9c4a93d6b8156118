//! Whether a request comes from Slack: <https://docs.slack.dev/authentication/verifying-requests-from-slack>.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// Seconds by which a request's time may be off.
const SKEW: u64 = 300;

/// Why a request is not believed to come from Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSlack {
    #[error("the headers X-Slack-Request-Timestamp and X-Slack-Signature are missing, or can not be read")]
    Unsigned,
    #[error("its time is more than five minutes off: look at the clock of this machine")]
    Stale,
    #[error("its signature is another: look at the signing secret in the settings")]
    Wrong,
    #[error("it was here already")]
    Replayed,
}

/// What a request says of its signature, before its body is read.
#[derive(Debug)]
pub(crate) struct Stamp<'a> {
    timestamp: &'a str,
    mac: [u8; 32],
}

impl<'a> Stamp<'a> {
    /// Looks at the headers alone. Whoever can not even write them is not listened to any further.
    pub(crate) fn read(timestamp: &'a str, signature: &str, now: DateTime<Utc>) -> Result<Self, NotSlack> {
        let digits = Some(timestamp).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let signed_at: i64 = digits.and_then(|text| text.parse().ok()).ok_or(NotSlack::Unsigned)?;
        let mac = signature.strip_prefix("v0=").and_then(from_hex).ok_or(NotSlack::Unsigned)?;
        if now.timestamp().abs_diff(signed_at) > SKEW { Err(NotSlack::Stale) } else { Ok(Self { timestamp, mac }) }
    }

    /// Checks the signature over the body as it came, in constant time. What comes back is the same for the same request,
    /// however its headers were written.
    pub(crate) fn prove(&self, secret: &SecretString, body: &[u8]) -> Result<String, NotSlack> {
        let mac = keyed(secret).ok_or(NotSlack::Wrong)?;
        let mac = mac.chain_update(b"v0:").chain_update(self.timestamp).chain_update(b":").chain_update(body);
        mac.verify_slice(&self.mac).map_err(|_| NotSlack::Wrong)?;
        Ok(hex::encode(self.mac))
    }
}

/// Marks a text as our own, for what comes back from Slack later.
pub(crate) fn seal(secret: &SecretString, text: &str) -> String {
    let Some(mac) = keyed(secret) else { return String::new() };
    let tag = mac.chain_update(b"pgtenant:").chain_update(text).finalize().into_bytes();
    format!("{} {text}", hex::encode(tag))
}

/// The text, if it is our own.
pub(crate) fn unseal<'a>(secret: &SecretString, sealed: &'a str) -> Option<&'a str> {
    let (tag, text) = sealed.split_once(' ')?;
    let mac = keyed(secret)?.chain_update(b"pgtenant:").chain_update(text);
    mac.verify_slice(&from_hex(tag)?).ok().map(|()| text)
}

/// None: never, since HMAC takes keys of any length.
fn keyed(secret: &SecretString) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok()
}

/// As Slack writes it: another way to write the same would be another text for the same signature.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; 32];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of Slack's own documentation.
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
        channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F\
        hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.\
        803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const AT: i64 = 1_531_420_618;

    fn check(timestamp: &str, signature: &str, body: &[u8], now: i64) -> Result<(), NotSlack> {
        let secret = SecretString::from("8f742231b10e8888abcd99yyyzzz85a5");
        Stamp::read(timestamp, signature, DateTime::from_timestamp(now, 0).unwrap())?.prove(&secret, body).map(drop)
    }

    #[test]
    fn slacks_own_example_is_believed_for_five_minutes() {
        let at = AT.to_string();
        for (now, expected) in [
            (AT, Ok(())),
            (AT + 300, Ok(())),
            (AT - 300, Ok(())),
            (AT + 301, Err(NotSlack::Stale)),
            (AT - 301, Err(NotSlack::Stale)),
            (i64::from(u32::MAX), Err(NotSlack::Stale)),
        ] {
            assert_eq!(check(&at, SIGNATURE, BODY, now), expected, "{now}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        let at = AT.to_string();
        let mut changed = BODY.to_vec();
        changed[10] ^= 1;
        assert_eq!(check(&at, SIGNATURE, &changed, AT), Err(NotSlack::Wrong));
        assert_eq!(check("1531420619", SIGNATURE, BODY, AT), Err(NotSlack::Wrong));
        assert_eq!(check("01531420618", SIGNATURE, BODY, AT), Err(NotSlack::Wrong));
        assert_eq!(check(&at, &SIGNATURE.replace("a2114", "b2114"), BODY, AT), Err(NotSlack::Wrong));
        for (timestamp, signature) in [
            ("", SIGNATURE),
            ("-1531420618", SIGNATURE),
            ("+1531420618", SIGNATURE),
            ("99999999999999999999", SIGNATURE),
            (&*at, ""),
            (&*at, "v0="),
            (&*at, "v1=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            (&*at, &SIGNATURE[..SIGNATURE.len() - 2]),
            (&*at, &*SIGNATURE.replace("a2114", "A2114")),
            (&*at, &*SIGNATURE.replace("v0=a2", "v0=+2")),
            (&*at, "v0=ää114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ] {
            assert_eq!(check(timestamp, signature, BODY, AT), Err(NotSlack::Unsigned), "{timestamp} {signature}");
        }
    }

    #[test]
    fn what_is_sealed_can_not_be_changed() {
        let secret = SecretString::from("s");
        let sealed = seal(&secret, "C0SHOP U0BOB");
        assert_eq!(unseal(&secret, &sealed), Some("C0SHOP U0BOB"));
        assert_eq!(unseal(&secret, &sealed.replace("SHOP", "OTHER")), None);
        assert_eq!(unseal(&SecretString::from("t"), &sealed), None);
        assert_eq!(unseal(&secret, "C0SHOP U0BOB"), None);
    }
}
