//! Projects as the admin API shows them.

use serde::Serialize;

use crate::domain::project::{Project, ProjectLimits};
use crate::wire::seconds;

/// A project.
#[derive(Debug, Serialize)]
pub struct ProjectObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    name: &'a str,
    limits: ProjectLimits,
}

impl<'a> From<&'a Project> for ProjectObject<'a> {
    fn from(project: &'a Project) -> Self {
        Self {
            id: project.id.as_str(),
            object: "project",
            created_at: seconds(project.created_at),
            name: &project.name,
            limits: project.limits,
        }
    }
}
