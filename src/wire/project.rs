//! Projects as the admin API shows them.

use serde::Serialize;

use crate::domain::project::{LimitChanges, Project, ProjectLimits};
use crate::wire::object::Object;
use crate::wire::{ParseError, seconds};

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

const MAX_NAME: usize = 200;

/// Takes the `name` of a project or API key: one line, not blank.
pub fn parse_name(body: &mut Object) -> Result<Option<String>, ParseError> {
    let name = body.string("name", MAX_NAME)?;
    if name
        .as_deref()
        .is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control))
    {
        return Err(
            ParseError::new("Invalid 'name': expected some text on one line.")
                .param("name")
                .code("invalid_value"),
        );
    }
    Ok(name)
}

/// Takes `limits`: an absent limit is kept, null removes it.
pub fn parse_limits(body: &mut Object) -> Result<LimitChanges, ParseError> {
    let Some(mut limits) = body.object("limits")? else {
        return Ok(LimitChanges::default());
    };
    let [runs, requests, tokens, bytes] = ProjectLimits::MAX;
    let to_i32 = |limit: Option<i64>| limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
    let mut take = |name, max| limits.nullable(name, |limits, name| limits.integer(name, 1, max));
    let changes = LimitChanges {
        max_concurrent_runs: take("max_concurrent_runs", runs)?.map(to_i32),
        requests_per_minute: take("requests_per_minute", requests)?.map(to_i32),
        tokens_per_minute: take("tokens_per_minute", tokens)?,
        storage_bytes: take("storage_bytes", bytes)?,
    };
    limits.finish()?;
    Ok(changes)
}
