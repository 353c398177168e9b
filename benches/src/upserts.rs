//! Point upserts through the official SDK, as applications send them: one document a request, in the SDK's encoding.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::documents::{DATABASE, document, id, key};
use crate::server::ServerProcess;

/// A client that upserts.
pub struct Upserts {
    container: Arc<ContainerClient>,
    /// Number of the next document.
    next: usize,
}

impl Upserts {
    /// Into a container of this server.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub async fn connect(server: &ServerProcess, container: &str) -> Outcome<Self> {
        let endpoint: AccountEndpoint = server.endpoint().parse()?;
        let account = AccountReference::with_authentication_key(endpoint, server.key().to_owned());
        let container = CosmosClient::builder()
            .build(account, RoutingStrategy::PreferredRegions(Vec::new()))
            .await?
            .database_client(DATABASE)
            .container_client(container.to_owned(), None)
            .await?;
        Ok(Upserts {
            container: Arc::new(container),
            next: 0,
        })
    }

    /// Upserts so many new documents, `in_flight` at a time, and returns how many it did per second.
    ///
    /// # Errors
    /// When a write fails.
    pub async fn timed_round(&mut self, documents: usize, in_flight: usize) -> Outcome<f64> {
        let first = self.next;
        self.next += documents;
        let values: Outcome<Vec<Value>> = (first..self.next)
            .map(|number| {
                let write = document(number);
                let body = write.action.document().map_or(&[][..], |body| body);
                Ok(serde_json::from_slice(body)?)
            })
            .collect();
        let (values, taken) = (Arc::new(values?), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        let mut writers = JoinSet::new();
        for _ in 0..in_flight {
            let (container, values, taken) = (
                Arc::clone(&self.container),
                Arc::clone(&values),
                Arc::clone(&taken),
            );
            writers.spawn(async move {
                loop {
                    let index = taken.fetch_add(1, Ordering::Relaxed);
                    let Some(value) = values.get(index) else {
                        return Ok::<_, azure_data_cosmos::CosmosError>(());
                    };
                    let number = first + index;
                    container
                        .upsert_item(key(number), &id(number), value, None)
                        .await?;
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        Ok(documents as f64 / begun.elapsed().as_secs_f64())
    }
}
