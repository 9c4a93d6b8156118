//! A credential as a JSON object, or as keys and values.
//!
//! Every value is a string, `port` too, as in the Kubernetes Secrets and AWS secrets that tenants have today; a number is read
//! as well. Keys that are not ours are ignored in reading.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pgtenant_model::{Address, CA_KEY, CREDENTIAL_KEYS, Credential, POOL_KEYS, READ_KEYS, SslMode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// No credential comes near it: certificates have a few KiB.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct Written<'a> {
    username: &'a str,
    password: &'a str,
    endpoint: &'a str,
    port: &'a str,
    database: &'a str,
    sslmode: SslMode,
    uri: &'a str,
    #[serde(rename = "ca.crt", skip_serializing_if = "Option::is_none")]
    ca_crt: Option<&'a str>,
    #[serde(flatten)]
    read: Option<WrittenRead<'a>>,
    #[serde(flatten)]
    pool: Option<WrittenPool<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRead<'a> {
    read_endpoint: &'a str,
    read_port: &'a str,
    read_uri: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPool<'a> {
    pool_endpoint: &'a str,
    pool_port: &'a str,
    pool_uri: &'a str,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    password: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow)]
    port: Port<'a>,
    #[serde(borrow)]
    database: Cow<'a, str>,
    #[serde(borrow)]
    sslmode: Cow<'a, str>,
    #[serde(borrow)]
    uri: Cow<'a, str>,
    #[serde(borrow, rename = "ca.crt", default)]
    ca_crt: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "readEndpoint", default)]
    read_endpoint: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "readPort", default)]
    read_port: Option<Port<'a>>,
    #[serde(borrow, rename = "readUri", default)]
    read_uri: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "poolEndpoint", default)]
    pool_endpoint: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "poolPort", default)]
    pool_port: Option<Port<'a>>,
    #[serde(borrow, rename = "poolUri", default)]
    pool_uri: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port<'a> {
    Number(u16),
    Text(#[serde(borrow)] Cow<'a, str>),
}

/// The document's text, in a buffer that is wiped.
pub(crate) fn encode(credential: &Credential) -> Result<Zeroizing<Vec<u8>>, String> {
    let Credential { username, password, endpoint, port, database, sslmode, uri, ca_crt, read, pool } = credential;
    let (password, uri) = (password.expose_secret(), uri.expose_secret());
    let ca_bytes = ca_crt.as_ref().map_or(0, String::len);
    let further = |address: &Address| address.endpoint.len() + address.uri.expose_secret().len();
    let further: usize = [read, pool].into_iter().flatten().map(further).sum();
    let values = [username.len(), password.len(), endpoint.len(), database.len(), uri.len(), ca_bytes, further];
    // Six bytes are the longest escape; allocated once, since a buffer that grows leaves copies behind.
    let bytes = 6 * values.iter().sum::<usize>() + 512;
    let [read, pool] = [read, pool].map(|address| address.as_ref().map(|address| (address, address.port.to_string())));
    let mut text = Zeroizing::new(Vec::with_capacity(bytes));
    let document = Written {
        username,
        password,
        endpoint,
        port: &port.to_string(),
        database,
        sslmode: *sslmode,
        uri,
        ca_crt: ca_crt.as_deref(),
        read: read.as_ref().map(|(read, read_port)| WrittenRead {
            read_endpoint: &read.endpoint,
            read_port,
            read_uri: read.uri.expose_secret(),
        }),
        pool: pool.as_ref().map(|(pool, pool_port)| WrittenPool {
            pool_endpoint: &pool.endpoint,
            pool_port,
            pool_uri: pool.uri.expose_secret(),
        }),
    };
    serde_json::to_writer_pretty(&mut *text, &document).map_err(|error| place(&error))?;
    text.push(b'\n');
    if text.len() > MAX_BYTES {
        return Err(format!("it has {} bytes; at most {MAX_BYTES} are allowed", text.len()));
    }
    Ok(text)
}

/// Reads a document; the fault quotes nothing of it.
pub(crate) fn decode(text: &[u8]) -> Result<Credential, String> {
    let read: Read<'_> = serde_json::from_slice(text).map_err(|error| place(&error))?;
    Ok(Credential {
        username: read.username.into_owned(),
        password: secret(read.password),
        endpoint: read.endpoint.into_owned(),
        port: port(read.port).ok_or(NOT_A_PORT)?,
        database: read.database.into_owned(),
        sslmode: sslmode(&read.sslmode)?,
        uri: secret(read.uri),
        ca_crt: read.ca_crt.map(Cow::into_owned),
        read: address(
            read.read_endpoint.map(Cow::into_owned),
            read.read_port.and_then(port),
            read.read_uri.map(secret),
        ),
        pool: address(
            read.pool_endpoint.map(Cow::into_owned),
            read.pool_port.and_then(port),
            read.pool_uri.map(secret),
        ),
    })
}

fn port(port: Port<'_>) -> Option<u16> {
    let port = match port {
        Port::Number(port) => Some(port),
        Port::Text(text) => text.parse().ok(),
    };
    port.filter(|port| *port > 0)
}

/// All of it, or nothing: a part that is missing is written anew, and no reason to take the rest for broken.
fn address(endpoint: Option<String>, port: Option<u16>, uri: Option<SecretString>) -> Option<Address> {
    Some(Address { endpoint: endpoint?, port: port?, uri: uri? })
}

const NOT_A_PORT: &str = "`port` is not a port";

fn sslmode(text: &str) -> Result<SslMode, &'static str> {
    let modes = [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];
    let known = modes.into_iter().find(|mode| mode.as_str() == text);
    known.ok_or("`sslmode` is none of require, verify-ca and verify-full")
}

/// The document as keys and values.
pub(crate) fn fields(credential: &Credential) -> Vec<(&'static str, SecretString)> {
    let Credential { username, password, endpoint, port, database, sslmode, uri, ca_crt, read, pool } = credential;
    let values = [
        SecretString::from(username.as_str()),
        password.clone(),
        SecretString::from(endpoint.as_str()),
        SecretString::from(port.to_string()),
        SecretString::from(database.as_str()),
        SecretString::from(sslmode.as_str()),
        uri.clone(),
    ];
    let ca = ca_crt.as_deref().map(|pem| (CA_KEY, SecretString::from(pem)));
    let further = [(READ_KEYS, read), (POOL_KEYS, pool)].into_iter().filter_map(|(keys, address)| {
        let Address { endpoint, port, uri } = address.as_ref()?;
        let values = [SecretString::from(endpoint.as_str()), SecretString::from(port.to_string()), uri.clone()];
        Some(keys.into_iter().zip(values))
    });
    CREDENTIAL_KEYS.into_iter().zip(values).chain(ca).chain(further.flatten()).collect()
}

/// Reads keys and values; the fault quotes no value.
pub(crate) fn from_fields(mut fields: BTreeMap<String, Vec<u8>>) -> Result<Credential, String> {
    let mut take = |key: &str| {
        let bytes = Zeroizing::new(fields.remove(key)?);
        Some(std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| format!("`{key}` is not text")))
    };
    let ca_crt = take(CA_KEY).transpose()?;
    let [read, pool] = [READ_KEYS, POOL_KEYS].map(|keys| {
        let [endpoint, port, uri] = keys.map(|key| take(key).and_then(Result::ok));
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        address(endpoint, port, uri.map(SecretString::from))
    });
    let mut text = |key: &str| take(key).unwrap_or_else(|| Err(format!("key `{key}` is missing")));
    Ok(Credential {
        username: text("username")?,
        password: SecretString::from(text("password")?),
        endpoint: text("endpoint")?,
        port: text("port")?.parse().ok().filter(|p| *p > 0).ok_or(NOT_A_PORT)?,
        database: text("database")?,
        sslmode: sslmode(&text("sslmode")?)?,
        uri: SecretString::from(text("uri")?),
        ca_crt,
        read,
        pool,
    })
}

fn secret(text: Cow<'_, str>) -> SecretString {
    match text {
        Cow::Borrowed(text) => SecretString::from(text),
        Cow::Owned(text) => SecretString::from(Zeroizing::new(text).as_str()),
    }
}

/// Where it went wrong. `serde_json`'s own text quotes values, and those are secrets here.
fn place(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Syntax => "not JSON",
        Category::Eof => "JSON that ends too early",
        Category::Data => "a key is missing, there twice or no string",
        Category::Io => "not encodable",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_credential() -> impl Strategy<Value = Credential> {
        let text = ".{0,40}";
        let modes = prop::sample::select(vec![SslMode::Require, SslMode::VerifyFull]);
        let address = (text, 1..=u16::MAX, text).prop_map(|(endpoint, port, uri)| Address {
            endpoint,
            port,
            uri: SecretString::from(uri),
        });
        let further = [prop::option::of(address.clone()), prop::option::of(address)];
        (text, text, text, 1..=u16::MAX, text, modes, text, prop::option::of(text), further).prop_map(
            |(username, password, endpoint, port, database, sslmode, uri, ca_crt, [read, pool])| Credential {
                username,
                password: SecretString::from(password),
                endpoint,
                port,
                database,
                sslmode,
                uri: SecretString::from(uri),
                ca_crt,
                read,
                pool,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(credential in any_credential()) {
            let text = encode(&credential).unwrap();
            prop_assert!(crate::same(&credential, &decode(&text).unwrap()));
            let pairs = fields(&credential).into_iter();
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.expose_secret().as_bytes().to_vec()));
            prop_assert!(crate::same(&credential, &from_fields(pairs.collect()).unwrap()));
        }

        #[test]
        fn anything_can_be_read(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&text);
        }
    }

    #[test]
    fn ports_are_read_as_strings_and_numbers() {
        let document = |port: &str| {
            format!(
                r#"{{"username":"u","password":"p","endpoint":"e","port":{port},"database":"d","sslmode":"require","uri":"x","mine":1}}"#
            )
        };
        assert_eq!(decode(document("\"5432\"").as_bytes()).unwrap().port, 5432);
        assert_eq!(decode(document("5432").as_bytes()).unwrap().port, 5432);
        // What is wrong with the endpoint for reading is written anew, and the rest is good.
        let reads = |port: &str| {
            let mine = format!(r#""readEndpoint":"r","readPort":{port},"readUri":"x","#);
            decode(document("1").replace(r#""username""#, &format!(r#"{mine}"username""#)).as_bytes()).unwrap().read
        };
        assert_eq!(reads("\"5433\"").unwrap().port, 5433);
        assert!(reads("\"0\"").is_none() && reads("null").is_none());
        for port in ["0", "\"0\"", "70000", "-1", "null", "\"x\"", "[]"] {
            assert!(decode(document(port).as_bytes()).is_err(), "{port}");
        }
    }

    #[test]
    fn faults_quote_nothing() {
        for text in [
            r#"{"username": "hunter2""#,
            r#"{"username": {"hunter2": 1}}"#,
            r#"{"password": "hunter2", "password": "hunter2"}"#,
            r#"{"username":"u","password":"p","endpoint":"e","port":"hunter2","database":"d","sslmode":"hunter2","uri":"x"}"#,
            r#""hunter2""#,
            "hunter2",
            "",
        ] {
            let fault = decode(text.as_bytes()).unwrap_err();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
