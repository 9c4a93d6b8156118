//! Building a credential, and comparing two.

use pgtenant_model::{Address, Credential, Endpoint, HostPort, SslMode};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

/// What a credential is made of.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// The login.
    pub username: &'a str,
    /// Its password.
    pub password: &'a SecretString,
    /// The database.
    pub database: &'a str,
    /// Where tenants connect for reading and writing: the document's `endpoint` and `port`.
    pub endpoint: &'a Endpoint,
    /// The hosts of the connection URI. Empty: the endpoint alone. Several: libpq takes the writable one.
    pub hosts: &'a [HostPort],
    /// As libpq's `sslmode`.
    pub sslmode: SslMode,
    /// The certificate authority, PEM, where one is known.
    pub ca_crt: Option<&'a str>,
    /// Whether the document has the endpoint for reading, where there is one.
    pub reads: bool,
    /// The pooler, where the document has one.
    pub pool: Option<&'a HostPort>,
}

/// The document of a login.
#[must_use]
pub fn credential(login: &Login<'_>) -> Credential {
    let endpoint = [HostPort { host: login.endpoint.host.clone(), port: login.endpoint.port }];
    let hosts = if login.hosts.is_empty() { &endpoint[..] } else { login.hosts };
    Credential {
        username: login.username.to_owned(),
        password: login.password.clone(),
        endpoint: login.endpoint.host.clone(),
        port: login.endpoint.port,
        database: login.database.to_owned(),
        sslmode: login.sslmode,
        uri: uri(login.username, login.password, hosts, login.database, login.sslmode),
        ca_crt: login.ca_crt.map(ToOwned::to_owned),
        read: login.endpoint.read().filter(|_| login.reads).map(|host| address(login, &host)),
        pool: login.pool.map(|host| address(login, host)),
    }
}

fn address(login: &Login<'_>, host: &HostPort) -> Address {
    let uri = uri(login.username, login.password, std::slice::from_ref(host), login.database, login.sslmode);
    Address { endpoint: host.host.clone(), port: host.port, uri }
}

/// A libpq connection URI: `postgresql://user:password@h1:p1,h2:p2/db?sslmode=verify-full&target_session_attrs=read-write`.
///
/// `target_session_attrs` is there when there are several hosts. `sslrootcert` never is: the URI is read on a machine whose
/// paths nobody here knows. libpq then takes `PGSSLROOTCERT` or `~/.postgresql/root.crt`; an application that has the
/// document writes its `ca.crt` to a file and adds `sslrootcert=FILE`.
#[must_use]
pub fn uri(
    username: &str,
    password: &SecretString,
    hosts: &[HostPort],
    database: &str,
    sslmode: SslMode,
) -> SecretString {
    let password = password.expose_secret();
    let host_bytes: usize = hosts.iter().map(|h| 3 * h.host.len() + 9).sum();
    let bytes = 3 * (username.len() + password.len() + database.len()) + host_bytes + 100;
    // Allocated once: a buffer that grows leaves copies of the password behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes));
    text.push_str("postgresql://");
    encode(&mut text, username);
    text.push(':');
    encode(&mut text, password);
    text.push('@');
    for (index, HostPort { host, port }) in hosts.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if host.contains(':') {
            text.push('[');
            for (index, part) in host.split(':').enumerate() {
                if index > 0 {
                    text.push(':');
                }
                encode(&mut text, part);
            }
            text.push(']');
        } else {
            encode(&mut text, host);
        }
        text.push(':');
        text.push_str(&port.to_string());
    }
    text.push('/');
    encode(&mut text, database);
    text.push_str("?sslmode=");
    text.push_str(sslmode.as_str());
    if hosts.len() > 1 {
        text.push_str("&target_session_attrs=read-write");
    }
    SecretString::from(text.as_str())
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &mut String, part: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Which document it is, known without the password: two have the same version when they differ in nothing, and `fingerprint`
/// is that of the password. `credential` may have any password, or an empty one.
///
/// It has the form of a UUID, and so is good as `ClientRequestToken` of AWS Secrets Manager, where a write that is repeated
/// makes no second version.
#[must_use]
pub fn version(credential: &Credential, fingerprint: &str) -> Uuid {
    let Credential { username, password: _, endpoint, port, database, sslmode, uri, ca_crt, read, pool } = credential;
    let mut hash = Sha256::new();
    hash.update(b"pgtenant credential version 1");
    let port = port.to_string();
    let ca = ca_crt.as_deref().unwrap_or_default();
    let own = [username, fingerprint, endpoint, &port, database, sslmode.as_str(), after_password(uri), ca];
    let mut add = |part: &str| {
        hash.update([0]);
        hash.update(part.as_bytes());
    };
    own.into_iter().for_each(&mut add);
    // Nothing is added where there is nothing: what was stored before there were such endpoints stays as it is. A pooler is told from
    // an endpoint for reading by a word that is no host.
    for (mark, address) in [(None, read), (Some("/pool"), pool)] {
        let Some(Address { endpoint, port, uri }) = address else { continue };
        mark.into_iter().for_each(&mut add);
        [endpoint, port.to_string().as_str(), after_password(uri)].into_iter().for_each(&mut add);
    }
    let bytes = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// Hosts and options of a URI. Who and the password, percent-encoded, are in front of the first `@`.
fn after_password(uri: &SecretString) -> &str {
    uri.expose_secret().split_once('@').unwrap_or_default().1
}

/// 32 hexadecimal digits that tell one password from another and can be kept where passwords can not.
///
/// SHA-256 without a salt, cut to 16 bytes: right only because generated passwords have more than 190 bits, which nobody
/// searches. It says whether a stored file was changed or the server's password was.
#[must_use]
pub fn fingerprint(password: &SecretString) -> String {
    let mut hash = Sha256::new();
    hash.update(b"pgtenant password fingerprint 1\0");
    hash.update(password.expose_secret().as_bytes());
    hex::encode(&hash.finalize()[..16])
}

/// Whether two documents say the same.
#[must_use]
pub fn same(a: &Credential, b: &Credential) -> bool {
    let Credential { username, password, endpoint, port, database, sslmode, uri, ca_crt, read, pool } = a;
    *username == b.username
        && password.expose_secret() == b.password.expose_secret()
        && *endpoint == b.endpoint
        && *port == b.port
        && *database == b.database
        && *sslmode == b.sslmode
        && uri.expose_secret() == b.uri.expose_secret()
        && *ca_crt == b.ca_crt
        && same_address(read.as_ref(), b.read.as_ref())
        && same_address(pool.as_ref(), b.pool.as_ref())
}

fn same_address(a: Option<&Address>, b: Option<&Address>) -> bool {
    match (a, b) {
        (Some(Address { endpoint, port, uri }), Some(b)) => {
            *endpoint == b.endpoint && *port == b.port && uri.expose_secret() == b.uri.expose_secret()
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[&str]) -> Vec<HostPort> {
        list.iter().map(|h| h.parse().unwrap()).collect()
    }

    #[test]
    fn a_uri_names_every_host() {
        let password = SecretString::from("s3cret");
        let text = uri("a-b-read", &password, &hosts(&["db1", "[::1]:2"]), "a-b", SslMode::VerifyFull);
        assert_eq!(
            text.expose_secret(),
            "postgresql://a-b-read:s3cret@db1:5432,[::1]:2/a-b?sslmode=verify-full&target_session_attrs=read-write"
        );
        let text = uri("u", &password, &hosts(&["db1:1"]), "d", SslMode::Require);
        assert_eq!(text.expose_secret(), "postgresql://u:s3cret@db1:1/d?sslmode=require");
    }

    #[test]
    fn a_pooler_makes_another_document() {
        let endpoint = |read_host: Option<&str>| Endpoint {
            host: "db".to_owned(),
            port: 1,
            read_host: read_host.map(ToOwned::to_owned),
            read_port: None,
        };
        let made = |endpoint: &Endpoint, pool: Option<&HostPort>| {
            credential(&Login {
                username: "a-b-read",
                password: &SecretString::from("s3cret"),
                database: "a-b",
                endpoint,
                hosts: &[],
                sslmode: SslMode::VerifyFull,
                ca_crt: None,
                reads: true,
                pool,
            })
        };
        let other = HostPort { host: "other".to_owned(), port: 1 };
        let all = [
            made(&endpoint(None), None),
            made(&endpoint(Some("other")), None),
            made(&endpoint(None), Some(&other)),
            made(&endpoint(Some("other")), Some(&other)),
        ];
        for (index, one) in all.iter().enumerate() {
            for (place, another) in all.iter().enumerate() {
                assert_eq!(same(one, another), index == place);
                assert_eq!(version(one, "f") == version(another, "f"), index == place);
            }
        }
        // Documents that were stored by versions without poolers keep theirs.
        assert_eq!(version(&all[0], "f").to_string(), "e462fde1-9aaf-8f24-9438-d98b1ceb13dc");
        assert_eq!(version(&all[1], "f").to_string(), "7d91bd7f-63ec-809a-9522-4a557f2a14b4");
        let pool = all[2].pool.as_ref().map(|pool| pool.uri.expose_secret());
        assert_eq!(pool, Some("postgresql://a-b-read:s3cret@other:1/a-b?sslmode=verify-full"));
    }

    #[test]
    fn hostile_characters_are_encoded() {
        let password = SecretString::from("p:@/?#%& ä");
        let text = uri("u@:", &password, &hosts(&["[fe80::1%eth0]:1"]), "d/?", SslMode::VerifyCa);
        assert_eq!(
            text.expose_secret(),
            "postgresql://u%40%3A:p%3A%40%2F%3F%23%25%26%20%C3%A4@[fe80::1%25eth0]:1/d%2F%3F?sslmode=verify-ca"
        );
    }

    #[test]
    fn fingerprints_tell_passwords_apart() {
        let one = fingerprint(&SecretString::from("one"));
        assert_eq!(one.len(), 32);
        assert_eq!(one, fingerprint(&SecretString::from("one")));
        assert_ne!(one, fingerprint(&SecretString::from("two")));
    }
}
