//! Blobs in a bucket of an S3-compatible service.

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::prefix::PrefixStore;

use crate::files::blobs::error::BlobError;

/// Credentials of a bucket. What is `None` is read from the `AWS_…` environment variables.
#[derive(Default)]
pub struct BucketKey {
    pub id: Option<String>,
    pub secret: Option<String>,
}

/// Opens `BUCKET/PREFIX`, with region and endpoint from the `AWS_…` environment variables.
pub(super) fn open(location: &str, key: BucketKey) -> Result<PrefixStore<AmazonS3>, BlobError> {
    let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(id) = key.id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = key.secret {
        builder = builder.with_secret_access_key(secret);
    }
    // Self-hosted services often have an http:// endpoint, which must be allowed explicitly.
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    Ok(PrefixStore::new(builder.build()?, prefix))
}
