//! The authorities that sign the certificates of RDS in a region.
//!
//! RDS publishes them at one address for each region, and adds new ones before they are used. They are fetched over HTTPS at the
//! first use and once a day, and kept in a file, so that a replica that starts while the address can not be reached has them. Where
//! it never could be reached, those that are part of the program are used. What is empty or broken never replaces what was good.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::time::Instant;

const AGE: Duration = Duration::from_secs(86_400);
/// After a fetch that failed, while there is something to go on with.
const RETRY: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(10);
/// Far above the 200 KB of the bundle of all regions.
const MOST_BYTES: usize = 1 << 20;
const PEM_COLUMNS: usize = 64;

/// The roots of each region that AWS has in its bundle of all regions
/// (<https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem>), below a line `# REGION`. They are valid until 2061 at the least.
const SHIPPED: &str = include_str!("../authorities.pem");

/// The authorities of one region.
#[derive(Debug)]
pub struct CaBundle {
    region: String,
    url: String,
    file: Option<PathBuf>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    pem: String,
    /// When it is fetched again.
    due: Instant,
}

/// The authorities can not be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the certificate authorities of RDS can not be had from {url}: {why}; name them in tls.caFile or tls.caSecretRef"
)]
pub struct NoBundle {
    url: String,
    why: String,
}

impl CaBundle {
    /// Those that AWS publishes for `region`, or whatever is at `PGTENANT_RDS_CA_URL` (`{region}` in it stands for the region).
    /// The file is in `PGTENANT_CACHE_DIR`, or else in the user's cache directory; without either there is none.
    #[must_use]
    pub fn from_environment(region: &str) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = variable("PGTENANT_RDS_CA_URL").unwrap_or_else(|| PUBLISHED.to_owned());
        let own = variable("PGTENANT_CACHE_DIR").map(PathBuf::from);
        let of_user = || {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache"))).map(|dir| dir.join("pgtenant"))
        };
        Self::new(region, &url, own.or_else(of_user))
    }

    /// From `url`, kept in `directory`.
    #[must_use]
    pub fn new(region: &str, url: &str, directory: Option<PathBuf>) -> Self {
        let url = url.replace("{region}", region);
        let file = directory.map(|directory| directory.join(format!("rds-ca-{region}.pem")));
        Self { region: region.to_owned(), url, file, known: Mutex::default() }
    }

    /// PEM certificates in an order that follows from them, and nothing else.
    ///
    /// # Errors
    /// They were never fetched with success, can not be now, and those of the region are no part of the program.
    pub async fn pem(&self) -> Result<String, NoBundle> {
        let mut known = self.known.lock().await;
        if known.is_none() {
            *known = self.read().await;
        }
        if let Some(Known { pem, .. }) = known.as_ref().filter(|known| Instant::now() < known.due) {
            return Ok(pem.clone());
        }
        match (self.fetch().await, known.as_mut()) {
            (Ok(pem), _) => {
                self.write(&pem).await;
                *known = Some(Known { pem: pem.clone(), due: Instant::now() + AGE });
                Ok(pem)
            }
            (Err(why), Some(old)) => {
                tracing::warn!(url = self.url, "the authorities of RDS were not fetched again: {why}");
                old.due = Instant::now() + RETRY;
                Ok(old.pem.clone())
            }
            (Err(why), None) => {
                let pem = shipped(&self.region).ok_or_else(|| NoBundle { url: self.url.clone(), why: why.clone() })?;
                tracing::warn!(url = self.url, "the authorities of RDS that pgtenant was shipped with are used: {why}");
                *known = Some(Known { pem: pem.clone(), due: Instant::now() + RETRY });
                Ok(pem)
            }
        }
    }

    async fn fetch(&self) -> Result<String, String> {
        let fetch = async {
            let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
            let answer = client.map_err(|error| chain(&error))?.get(&self.url).send().await;
            let mut answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| chain(&error))?;
            if !answer.status().is_success() {
                return Err(format!("the answer was {}", answer.status()));
            }
            let mut body = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(|error| chain(&error))? {
                body.extend_from_slice(&part);
                if body.len() > MOST_BYTES {
                    return Err(format!("the answer has more than {MOST_BYTES} bytes"));
                }
            }
            certificates(&body)
        };
        tokio::time::timeout(LIMIT, fetch).await.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")))
    }

    /// What an earlier process kept; of whatever age: it is better than nothing.
    async fn read(&self) -> Option<Known> {
        let file = self.file.as_ref()?;
        let pem = certificates(&tokio::fs::read(file).await.ok()?).ok()?;
        let modified = tokio::fs::metadata(file).await.ok()?.modified().ok()?;
        let age = SystemTime::now().duration_since(modified).unwrap_or(AGE);
        Some(Known { pem, due: Instant::now() + AGE.saturating_sub(age) })
    }

    async fn write(&self, pem: &str) {
        let Some(file) = &self.file else { return };
        if let Err(error) = replace(file, pem).await {
            tracing::warn!(file = %file.display(), "the authorities of RDS are not kept: {error}");
        }
    }
}

const PUBLISHED: &str = "https://truststore.pki.rds.amazonaws.com/{region}/{region}-bundle.pem";

/// Whoever reads sees the old file or the new one, whole.
async fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        tokio::fs::create_dir_all(directory).await?;
    }
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    tokio::fs::write(&beside, text).await?;
    tokio::fs::rename(&beside, file).await
}

fn shipped(region: &str) -> Option<String> {
    let of_region = |part: &&str| part.lines().next() == Some(region);
    certificates(SHIPPED.split("# ").find(of_region)?.as_bytes()).ok()
}

/// The certificates among what was read, written anew in their order: all of them must be authorities that a client can use.
fn certificates(text: &[u8]) -> Result<String, String> {
    let mut store = RootCertStore::empty();
    let mut pem = String::new();
    let all: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(text).collect();
    let mut all = all.map_err(|error| format!("it is not PEM: {error}"))?;
    all.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    for certificate in all {
        let encoded = BASE64_STANDARD.encode(&certificate);
        store.add(certificate).map_err(|error| format!("a certificate in it can not be used: {error}"))?;
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for start in (0..encoded.len()).step_by(PEM_COLUMNS) {
            pem.push_str(&encoded[start..encoded.len().min(start + PEM_COLUMNS)]);
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    if store.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(pem) }
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
