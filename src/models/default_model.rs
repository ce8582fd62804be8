//! The operator's default model, which answers for retired names.
//!
//! Applications name models that are no longer served anywhere. When an upstream does not know such
//! a name, the default model answers; the log and a response header say so.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regex::Regex;

use super::error::UpstreamError;
use super::routes::{Route, glob};

/// Models that are retired, or will be: the names that applications of the Assistants API use.
/// gpt-4o, gpt-4o-mini, gpt-4.1 and gpt-4.1-mini retire on 2027-01-14, the others have.
const RETIRED: [&str; 12] = [
    "gpt-3.5-turbo*",
    "gpt-35-turbo*",
    "gpt-4",
    "gpt-4-*",
    "gpt-4o",
    "gpt-4o-*",
    "gpt-4.1",
    "gpt-4.1-*",
    "gpt-4.5-preview*",
    "chatgpt-4o-*",
    "o1-mini*",
    "o1-preview*",
];

/// How long an upstream's refusal of a name counts before it is asked again.
const REFUSAL_AGE: Duration = Duration::from_secs(3_600);

/// Refused names that are kept at most: clients choose them.
const MAX_REFUSED: usize = 1_000;

/// How servers say that they do not know a model, besides a 404 that names it; lower case.
/// LiteLLM, Mistral, OpenRouter, Ollama, vLLM, OpenAI.
const UNKNOWN_MODEL_PHRASES: [&str; 7] = [
    "invalid model",
    "not a valid model",
    "model not found",
    "not found",
    "does not exist",
    "unknown model",
    "has been deprecated",
];

/// The default model, and the names that it answers for.
pub(super) struct DefaultModel {
    route: Option<Route>,
    retired: Vec<Regex>,
    /// Upstream and name, and when the upstream last refused it.
    refused: Mutex<HashMap<(String, String), Instant>>,
}

impl DefaultModel {
    /// `route` leads to the default model, if there is one.
    pub(super) fn new(route: Option<Route>) -> Self {
        Self {
            route,
            retired: RETIRED.iter().map(|pattern| glob(pattern)).collect(),
            refused: Mutex::default(),
        }
    }

    /// The way to the default model, if the upstream of this route is known to refuse its model.
    pub(super) fn replacement(&self, route: &Route) -> Option<Route> {
        let default = self.route.as_ref()?;
        let refused = self.refused.lock();
        if refused.is_empty() {
            return None;
        }
        let at = refused.get(&(route.upstream.clone(), route.model.clone()))?;
        (at.elapsed() < REFUSAL_AGE).then(|| default.clone())
    }

    /// The way to the default model after this failure, if it answers for the route's model. The
    /// refusal is remembered, and logged once.
    pub(super) fn replacement_after(&self, route: &Route, error: &UpstreamError) -> Option<Route> {
        let default = self.route.as_ref()?;
        if route == default || !self.is_retired(&route.model) || !is_unknown_model(error, route) {
            return None;
        }
        let (upstream, model) = (route.upstream.clone(), route.model.clone());
        let mut refused = self.refused.lock();
        if refused.len() >= MAX_REFUSED {
            refused.clear();
        }
        let is_new = refused.insert((upstream, model), Instant::now()).is_none();
        if is_new {
            tracing::warn!(
                upstream.name = route.upstream,
                model.name = route.model,
                model.default = default.model,
                "upstream {} does not know the model {}; the default model {} answers for it",
                route.upstream,
                route.model,
                default.model
            );
        }
        Some(default.clone())
    }

    /// The failure, with the setting that would have helped.
    pub(super) fn explain(&self, route: &Route, error: UpstreamError) -> UpstreamError {
        if self.route.is_some() || !is_unknown_model(&error, route) {
            return error;
        }
        let UpstreamError::InvalidRequest {
            status, message, ..
        } = error
        else {
            return error;
        };
        UpstreamError::InvalidRequest {
            status,
            code: Some("model_not_found".to_owned()),
            param: Some("model".to_owned()),
            message: format!(
                "{message} The operator of this server can set ASSISTD_DEFAULT_MODEL to the model \
                 that answers instead."
            ),
        }
    }

    fn is_retired(&self, model: &str) -> bool {
        let name = model.rsplit('/').next().unwrap_or(model);
        self.retired.iter().any(|pattern| pattern.is_match(name))
    }
}

/// Whether a server says that it does not know the route's model.
pub(super) fn is_unknown_model(error: &UpstreamError, route: &Route) -> bool {
    let UpstreamError::InvalidRequest {
        status: status @ (400 | 404),
        code,
        message,
        ..
    } = error
    else {
        return false;
    };
    if matches!(
        code.as_deref(),
        Some("model_not_found" | "DeploymentNotFound")
    ) {
        return true;
    }
    let message = message.to_lowercase();
    has_name(&message, &route.model.to_lowercase())
        && (*status == 404
            || UNKNOWN_MODEL_PHRASES
                .iter()
                .any(|phrase| message.contains(phrase)))
}

/// Whether a text has this name, not as a part of a longer one.
fn has_name(text: &str, name: &str) -> bool {
    let goes_on = |character: Option<char>| {
        character.is_some_and(|it| it.is_alphanumeric() || matches!(it, '-' | '_'))
    };
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + name.len()..].chars().next();
        !name.is_empty() && !goes_on(before) && !goes_on(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(upstream: &str, model: &str) -> Route {
        Route {
            upstream: upstream.to_owned(),
            model: model.to_owned(),
            context_window: None,
        }
    }

    fn refusal(status: u16, code: Option<&str>, message: &str) -> UpstreamError {
        UpstreamError::InvalidRequest {
            status,
            code: code.map(str::to_owned),
            param: None,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_refused_model_is_told_from_other_refusals() {
        let asked = route("default", "gpt-4o");
        let unknown = [
            (404, Some("model_not_found"), "The model does not exist"),
            (400, Some("model_not_found"), "no such thing"),
            (
                404,
                Some("DeploymentNotFound"),
                "The API deployment does not exist.",
            ),
            (404, None, "model 'gpt-4o' not found, try pulling it first"),
            (404, None, "model: gpt-4o"),
            (
                404,
                Some("404"),
                "models/gpt-4o is not found for API version v1main",
            ),
            (400, None, "Invalid model name passed in model=gpt-4o."),
            (400, Some("1500"), "Invalid model: gpt-4o"),
            (400, None, "gpt-4o is not a valid model ID"),
        ];
        for (status, code, message) in unknown {
            let error = refusal(status, code, message);
            assert!(is_unknown_model(&error, &asked), "{message}");
        }
        let other = [
            (404, None, "Not Found"),
            (400, None, "gpt-4o takes no images"),
            (400, None, "Invalid value: 'tools'"),
            (422, None, "model 'gpt-4o' not found"),
            (404, None, "model 'gpt-4o-mini' not found"),
        ];
        for (status, code, message) in other {
            let error = refusal(status, code, message);
            assert!(!is_unknown_model(&error, &asked), "{message}");
        }
    }

    #[test]
    fn the_default_model_answers_for_retired_names_that_an_upstream_refuses() {
        let default = route("default", "gpt-5-mini");
        let models = DefaultModel::new(Some(default.clone()));
        for name in [
            "gpt-4o",
            "gpt-4o-2024-08-06",
            "gpt-4.1-mini",
            "gpt-4-1106-preview",
            "gpt-4-32k",
            "gpt-3.5-turbo-16k",
            "o1-preview",
            "openai/gpt-4o-mini",
        ] {
            let asked = route("default", name);
            assert_eq!(models.replacement(&asked), None, "{name}");
            let error = refusal(404, Some("model_not_found"), "no");
            let after = models.replacement_after(&asked, &error);
            assert_eq!(after, Some(default.clone()), "{name}");
            assert_eq!(models.replacement(&asked), Some(default.clone()), "{name}");
            assert_eq!(models.replacement(&route("other", name)), None, "{name}");
        }
        let error = refusal(404, Some("model_not_found"), "no");
        for name in ["gpt-5", "gpt-4something", "qwen3", "gpt-5-mini"] {
            let asked = route("default", name);
            assert_eq!(models.replacement_after(&asked, &error), None, "{name}");
        }
    }

    #[test]
    fn without_a_default_model_the_error_names_the_setting() {
        let models = DefaultModel::new(None);
        let asked = route("default", "gpt-4o");
        let error = refusal(404, None, "The model `gpt-4o` does not exist.");
        assert_eq!(models.replacement_after(&asked, &error), None);
        let said = models.explain(&asked, error).message();
        assert!(
            said.starts_with("The model `gpt-4o` does not exist. "),
            "{said}"
        );
        assert!(said.contains("ASSISTD_DEFAULT_MODEL"), "{said}");
        let other = refusal(400, None, "Invalid value");
        assert_eq!(models.explain(&asked, other.clone()), other);
    }
}
