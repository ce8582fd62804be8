//! Administration: projects and their limits, API keys, usage, and the audit log.

use crate::domain::api_key::{self, ApiKey};
use crate::domain::audit::{Actor, AuditEntry};
use crate::domain::ids::{ApiKeyId, ProjectId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::project::{LimitChanges, Project, ProjectLimits};
use crate::domain::usage::{UsageQuery, UsageSum};
use crate::service::{Service, ServiceError};
use crate::store;
use crate::store::api_keys::CreateKeyError;
use crate::store::projects::SaveProjectError;

impl Service {
    pub async fn create_project(
        &self,
        actor: &Actor,
        name: &str,
        limits: &ProjectLimits,
    ) -> Result<Project, ServiceError> {
        store::projects::create(self.pool(), actor, name, limits)
            .await
            .map_err(|error| name_taken(error, name))
    }

    pub async fn list_projects(
        &self,
        request: &PageRequest,
    ) -> Result<Page<Project>, ServiceError> {
        Ok(store::projects::list(self.pool(), request).await?)
    }

    pub async fn project(&self, id: &ProjectId) -> Result<Project, ServiceError> {
        store::projects::find(self.pool(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("project", id))
    }

    pub async fn project_named(&self, id_or_name: &str) -> Result<Option<Project>, ServiceError> {
        Ok(store::projects::find_by_id_or_name(self.pool(), id_or_name).await?)
    }

    pub async fn update_project(
        &self,
        actor: &Actor,
        id: &ProjectId,
        name: Option<&str>,
        changes: &LimitChanges,
    ) -> Result<Project, ServiceError> {
        store::projects::update(self.pool(), actor, id, name, changes)
            .await
            .map_err(|error| name_taken(error, name.unwrap_or_default()))?
            .ok_or_else(|| ServiceError::not_found("project", id))
    }

    /// Creates an API key; returns it with its value, of which only the hash is stored.
    pub async fn create_api_key(
        &self,
        actor: &Actor,
        project: &ProjectId,
        name: &str,
    ) -> Result<(ApiKey, String), ServiceError> {
        let value = api_key::generate()?;
        let (hash, hint) = (api_key::hash(&value), api_key::hint(&value));
        match store::api_keys::create(self.pool(), actor, project, name, &hash, &hint).await {
            Ok(key) => Ok((key, value)),
            Err(CreateKeyError::NoSuchProject) => Err(ServiceError::not_found("project", project)),
            Err(CreateKeyError::Duplicate) => Err(ServiceError::DuplicateKey),
            Err(CreateKeyError::Store(error)) => Err(error.into()),
        }
    }

    pub async fn list_api_keys(
        &self,
        project: &ProjectId,
        request: &PageRequest,
    ) -> Result<Page<ApiKey>, ServiceError> {
        let page = store::api_keys::list_of_project(self.pool(), project, request).await?;
        if page.data.is_empty() {
            self.project(project).await?;
        }
        Ok(page)
    }

    pub async fn revoke_api_key(
        &self,
        actor: &Actor,
        project: &ProjectId,
        id: &ApiKeyId,
    ) -> Result<(), ServiceError> {
        match store::api_keys::revoke(self.pool(), actor, Some(project), id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("key", id)),
        }
    }

    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, ServiceError> {
        Ok(store::usage::sums(self.pool(), query).await?)
    }

    pub async fn list_audit_log(
        &self,
        request: &PageRequest,
    ) -> Result<Page<AuditEntry>, ServiceError> {
        Ok(store::audit_log::list(self.pool(), request).await?)
    }
}

fn name_taken(error: SaveProjectError, name: &str) -> ServiceError {
    match error {
        SaveProjectError::NameTaken => ServiceError::ProjectNameTaken(name.to_owned()),
        SaveProjectError::Store(error) => error.into(),
    }
}
