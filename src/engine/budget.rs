//! How many tokens a model call may take.

use crate::domain::run::RunIncompleteReason;
use crate::engine::session::Session;
use crate::engine::stop::StopReason;

/// Most tokens of the next prompt, by the run's budget and the model's context window. `None` if
/// neither is known.
pub(super) fn prompt_tokens(session: &Session) -> Result<Option<u32>, StopReason> {
    let config = &*session.run.config;
    let left = remaining(
        config.max_prompt_tokens,
        session.usage.tokens().prompt,
        RunIncompleteReason::MaxPromptTokens,
    )?;
    let route = session.shared.deps.upstreams.route(&config.model);
    let available = route.context_window.map(|window| {
        let completion = config
            .max_completion_tokens
            .unwrap_or(window / 4)
            .min(window / 2);
        window - completion
    });
    Ok(match (left, available) {
        (Some(left), Some(available)) => Some(left.min(available)),
        (left, available) => left.or(available),
    })
}

pub(super) fn completion_tokens(session: &Session) -> Result<Option<u32>, StopReason> {
    remaining(
        session.run.config.max_completion_tokens,
        session.usage.tokens().completion,
        RunIncompleteReason::MaxCompletionTokens,
    )
}

fn remaining(
    max: Option<u32>,
    used: u32,
    exhausted: RunIncompleteReason,
) -> Result<Option<u32>, StopReason> {
    let Some(max) = max else {
        return Ok(None);
    };
    match max.checked_sub(used) {
        None | Some(0) => Err(StopReason::Incomplete(exhausted)),
        left => Ok(left),
    }
}
