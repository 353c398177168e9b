//! Clients of object stores: the only file that knows which there are.
//!
//! - A create must be refused where an object exists. S3 does that with `If-None-Match: *` on PUT, so whatever
//!   `AWS_CONDITIONAL_PUT` says it stays on; Azure Blob Storage always does.
//! - An object is written with one request: at most 5 GB on S3 and 5,000 MiB on Azure.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};

use super::location::RemoteLocation;
use super::settings::Settings;
use crate::{Error, ErrorKind, Result};

type Objects = Arc<dyn ObjectStore>;

impl RemoteLocation {
    /// A client of the store. Nothing is asked yet, so a wrong name or key shows with the first request.
    ///
    /// # Errors
    /// `Config` when a setting is missing or malformed, or when the program was built without the cloud stores.
    pub(super) fn connect(&self, settings: &Settings) -> Result<Objects> {
        let objects = match self.scheme {
            ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
            _ => self.cloud(settings)?,
        };
        if self.prefix.as_ref().is_empty() {
            return Ok(objects);
        }
        Ok(Arc::new(PrefixStore::new(objects, self.prefix.clone())))
    }

    #[cfg(not(feature = "cloud"))]
    fn cloud(&self, _: &Settings) -> Result<Objects> {
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "{self} needs the cargo feature `cloud`, which this program was built without: \
                 build it with the feature, or use a directory"
            ),
        ))
    }

    #[cfg(feature = "cloud")]
    fn cloud(&self, settings: &Settings) -> Result<Objects> {
        let built = match self.scheme {
            ObjectStoreScheme::AmazonS3 => self.s3(settings),
            _ => self.azure(settings),
        };
        built.map_err(|error| {
            // Not as the source: it may repeat a setting.
            let why = settings.redact(Error::internal("").with_source(error).report());
            Error::new(
                ErrorKind::Config,
                format!(
                    "cannot use {self}{why}: correct the variables {} of the environment",
                    match self.scheme {
                        ObjectStoreScheme::AmazonS3 => "AWS_*",
                        _ => "AZURE_*",
                    }
                ),
            )
        })
    }

    #[cfg(feature = "cloud")]
    fn s3(&self, settings: &Settings) -> object_store::Result<Objects> {
        use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

        let mut builder = AmazonS3Builder::new().with_retry(retry(settings));
        for (name, value) in settings.keys("AWS_") {
            // The environment may hold variables of other programs.
            if let Ok(key) = name.parse() {
                builder = builder.with_config(key, value);
            }
        }
        let builder = builder.with_conditional_put(S3ConditionalPut::ETagMatch);
        Ok(Arc::new(builder.with_url(self.url.as_str()).build()?))
    }

    #[cfg(feature = "cloud")]
    fn azure(&self, settings: &Settings) -> object_store::Result<Objects> {
        use object_store::azure::MicrosoftAzureBuilder;

        let mut builder = MicrosoftAzureBuilder::new().with_retry(retry(settings));
        for (name, value) in settings.keys("AZURE_") {
            if let Ok(key) = name.parse() {
                builder = builder.with_config(key, value);
            }
        }
        Ok(Arc::new(builder.with_url(self.url.as_str()).build()?))
    }
}

#[cfg(feature = "cloud")]
fn retry(settings: &Settings) -> object_store::RetryConfig {
    object_store::RetryConfig {
        // Time is the bound, whatever the number.
        max_retries: usize::MAX,
        retry_timeout: settings.retry_for,
        ..Default::default()
    }
}

#[cfg(all(test, not(feature = "cloud")))]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointStore, Location};

    #[test]
    fn without_the_feature_a_url_is_an_error_that_says_so() {
        for url in ["s3://bucket/a", "az://container/a"] {
            let location: Location = url.parse().unwrap();
            let error = CheckpointStore::open(&location, "job").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let says = format!("{url} needs the cargo feature `cloud`");
            assert!(error.to_string().starts_with(&says), "{error}");
        }
        let memory: Location = "memory:///".parse().unwrap();
        CheckpointStore::open(&memory, "job").unwrap();
    }
}
