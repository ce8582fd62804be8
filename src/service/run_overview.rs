//! Runs over all threads of a project.

use crate::domain::ids::RunId;
use crate::domain::page::{Page, PageRequest};
use crate::domain::run::Run;
use crate::domain::run_overview::{RunCounts, RunExecution, RunFilter};
use crate::service::{ProjectService, ServiceError};
use crate::store::run_overview;

impl ProjectService {
    pub async fn list_all_runs(
        &self,
        filter: &RunFilter,
        request: &PageRequest,
    ) -> Result<Page<Run>, ServiceError> {
        Ok(run_overview::list(self.pool(), self.id(), filter, request).await?)
    }

    /// Numbers of runs by status, of the newest runs.
    pub async fn count_runs(&self, filter: &RunFilter) -> Result<RunCounts, ServiceError> {
        Ok(run_overview::count(self.pool(), self.id(), filter).await?)
    }

    pub async fn run_execution(&self, id: &RunId) -> Result<RunExecution, ServiceError> {
        run_overview::execution(self.pool(), self.id(), id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))
    }
}
