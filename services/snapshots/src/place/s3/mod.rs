//! Dumps in a bucket.
//!
//! What is larger than a piece goes up in pieces, each tried again by itself; nothing is seen under the name before the last one
//! is there and the whole is said to be complete. An upload that fails is aborted. One whose process was killed is not: S3 keeps
//! its pieces, and bills them, until a lifecycle rule of the bucket (`AbortIncompleteMultipartUpload`) removes them.

mod fault;
mod login;
mod upload;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, RetryConfig,
};
use pgtenant_aws::Aws;
use pgtenant_model::{InvalidField, S3Place};
use tokio::sync::OnceCell;

use self::login::AwsLogin;
use super::{BoxFuture, Entry, Opened, Place};
use crate::object::ObjectPath;
use crate::pipe::PipeReader;
use crate::{Access, Patience, SnapshotError};

/// Objects that are removed at once.
const AT_ONCE: usize = 8;
/// AWS's own variable for one service; it goes before the one for all.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_S3";
/// Stores other than Amazon's take any region.
const ANY_REGION: &str = "us-east-1";

/// A bucket.
#[derive(Debug)]
pub(crate) struct S3 {
    bucket: String,
    prefix: Path,
    region: Option<String>,
    endpoint: Option<String>,
    aws: Aws,
    patience: Patience,
    /// Made when it is first needed: where and who pgtenant is there is not known before.
    store: OnceCell<Arc<AmazonS3>>,
}

impl S3 {
    pub(crate) fn new(spec: &S3Place, access: &Access) -> Result<Self, InvalidField> {
        let S3Place { bucket, prefix, region, endpoint } = spec;
        let prefix = prefix.as_deref().unwrap_or_default();
        let prefix = Path::parse(prefix).map_err(|error| InvalidField::new("to.s3.prefix", error.to_string()))?;
        if bucket.is_empty() || bucket.contains('/') {
            return Err(InvalidField::new("to.s3.bucket", "name a bucket, without what names in it begin with"));
        }
        Ok(Self {
            bucket: bucket.clone(),
            prefix,
            region: region.clone(),
            endpoint: endpoint.clone(),
            aws: access.aws.clone(),
            patience: access.patience,
            store: OnceCell::new(),
        })
    }

    async fn store(&self) -> Result<&Arc<AmazonS3>, SnapshotError> {
        self.store.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Arc<AmazonS3>, SnapshotError> {
        let unexpected = |message: String| SnapshotError::Unexpected { location: self.root(), message };
        let config = self.aws.config(self.region.as_deref()).await;
        let of_service = std::env::var(ENDPOINT).ok().filter(|url| !url.is_empty() && !self.aws.is_stand_in());
        let endpoint = self.endpoint.clone().or(of_service).or_else(|| config.endpoint_url().map(str::to_owned));
        let region = config.region().map(|region| region.as_ref().to_owned());
        let region = region.or_else(|| endpoint.as_ref().map(|_| ANY_REGION.to_owned())).ok_or_else(|| {
            unexpected(
                "no region is known: name it in backups.dumps.to.s3.region, AWS_REGION or the profile".to_owned(),
            )
        })?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(region)
            .with_credentials(Arc::new(AwsLogin::new(&config)))
            .with_client_options(self.client())
            .with_retry(self.retry())
            // One by one works with every store that speaks the protocol.
            .with_disable_bulk_delete(true);
        if let Some(endpoint) = endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        builder.build().map(Arc::new).map_err(|error| unexpected(error.to_string()))
    }

    fn client(&self) -> ClientOptions {
        // A stream lasts as long as whoever is at its other end takes; silence is what ends it.
        ClientOptions::new().with_timeout_disabled().with_read_timeout(self.patience.silence)
    }

    fn retry(&self) -> RetryConfig {
        let Patience { tries, first, longest, silence } = self.patience;
        let backoff = BackoffConfig { init_backoff: first, max_backoff: longest, base: 2.0 };
        RetryConfig { backoff, max_retries: tries.saturating_sub(1) as usize, retry_timeout: silence }
    }

    fn root(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    fn path(&self, path: &ObjectPath) -> Path {
        path.names().iter().fold(self.prefix.clone(), |path, name| path.join(name.as_str()))
    }

    fn fault(&self, path: &ObjectPath) -> impl Fn(object_store::Error) -> SnapshotError + Send + Clone + 'static {
        let (root, location) = (self.root(), self.location(path));
        move |error| fault::of(&error, &root, &location)
    }

    async fn open(&self, path: &ObjectPath, from: u64, version: Option<&str>) -> Result<Opened, SnapshotError> {
        let fault = self.fault(path);
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            if_match: version.map(str::to_owned),
            ..GetOptions::default()
        };
        let found = self.store().await?.get_opts(&self.path(path), options).await.map_err(&fault)?;
        let (length, version) = (found.meta.size, found.meta.e_tag.clone());
        Ok(Opened { body: found.into_stream().map_err(fault).boxed(), length, version })
    }

    async fn entries(&self, folder: &ObjectPath) -> Result<Vec<Entry>, SnapshotError> {
        let listed = self.store().await?.list_with_delimiter(Some(&self.path(folder))).await;
        let listed = listed.map_err(self.fault(folder))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let folders = listed.common_prefixes.iter().filter_map(|path| Some(Entry { name: name(path)?, bytes: None }));
        let files = listed
            .objects
            .iter()
            .filter_map(|object| Some(Entry { name: name(&object.location)?, bytes: Some(object.size) }));
        Ok(folders.chain(files).collect())
    }

    async fn remove_below(&self, folder: &ObjectPath) -> Result<(), SnapshotError> {
        let (store, fault) = (self.store().await?, self.fault(folder));
        let remove = |object: object_store::ObjectMeta| async move { store.delete(&object.location).await };
        let found = store.list(Some(&self.path(folder)));
        found.map_ok(remove).try_buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop).map_err(fault)
    }
}

impl Place for S3 {
    fn location(&self, path: &ObjectPath) -> String {
        format!("{}/{}", self.root(), self.path(path))
    }

    fn put<'a>(&'a self, path: &'a ObjectPath, body: PipeReader) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let store = Arc::clone(self.store().await?);
            upload::upload(store, self.path(path), body).await.map_err(self.fault(path))
        })
    }

    fn put_small<'a>(&'a self, path: &'a ObjectPath, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let put = self.store().await?.put(&self.path(path), body.into()).await;
            put.map(drop).map_err(self.fault(path))
        })
    }

    fn get<'a>(&'a self, path: &'a ObjectPath, from: u64, version: Option<&'a str>) -> BoxFuture<'a, Opened> {
        Box::pin(self.open(path, from, version))
    }

    fn list<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, Vec<Entry>> {
        Box::pin(self.entries(folder))
    }

    fn remove<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.store().await?.delete(&self.path(path)).await.map_err(self.fault(path)) {
                Err(SnapshotError::NotThere { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn remove_all<'a>(&'a self, folder: &'a ObjectPath) -> BoxFuture<'a, ()> {
        Box::pin(self.remove_below(folder))
    }
}
