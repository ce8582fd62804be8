//! Webhook endpoints and their deliveries, for operators.

use crate::domain::audit::Actor;
use crate::domain::ids::EndpointId;
use crate::domain::page::Page;
use crate::domain::webhook::{DeliveryRecord, Endpoint};
use crate::service::{Service, ServiceError};
use crate::store::{webhook_deliveries, webhook_endpoints};

impl Service {
    /// The endpoints of all projects.
    pub async fn list_webhooks(&self) -> Result<Vec<Endpoint>, ServiceError> {
        Ok(webhook_endpoints::list(self.pool(), None).await?)
    }

    /// Enables a disabled endpoint.
    pub async fn enable_webhook(
        &self,
        actor: &Actor,
        id: &EndpointId,
    ) -> Result<Endpoint, ServiceError> {
        webhook_endpoints::enable(self.pool(), actor, id).await?;
        self.webhook(id).await
    }

    /// The deliveries to an endpoint that are stored, newest first, after the one with this number.
    pub async fn list_webhook_deliveries(
        &self,
        id: &EndpointId,
        after: Option<i64>,
        limit: i64,
    ) -> Result<Page<DeliveryRecord>, ServiceError> {
        self.webhook(id).await?;
        Ok(webhook_deliveries::list(self.pool(), id, after, limit).await?)
    }

    /// Has a delivery made again, or at once.
    pub async fn redeliver_webhook(
        &self,
        actor: &Actor,
        id: &EndpointId,
        delivery: i64,
    ) -> Result<(), ServiceError> {
        match webhook_deliveries::redeliver(self.pool(), actor, id, delivery).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("webhook delivery", delivery)),
        }
    }

    async fn webhook(&self, id: &EndpointId) -> Result<Endpoint, ServiceError> {
        webhook_endpoints::find(self.pool(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("webhook endpoint", id))
    }
}
