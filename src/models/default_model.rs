//! The operator's default model, which replaces retired models.
//!
//! Applications name models that are no longer served anywhere. If an upstream does not know such a
//! model, the default model answers; the log and a response header name it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regex::Regex;

use super::error::UpstreamError;
use super::routes::{Route, glob};

/// Models of the Assistants API that are retired or will be: gpt-4o, gpt-4o-mini, gpt-4.1 and
/// gpt-4.1-mini on 2027-01-14, the others before.
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

/// Time until an upstream is asked again for a model that it refused.
const MAX_REFUSAL_AGE: Duration = Duration::from_secs(3_600);

/// Maximum number of refused models, whose names clients choose; beyond it all are forgotten.
const MAX_REFUSED: usize = 1_000;

/// Phrases of servers for an unknown model, in lower case, besides a 404 that names the model:
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

pub(super) struct DefaultModel {
    route: Option<Route>,
    retired: Vec<Regex>,
    refused: Mutex<HashMap<(String, String), Instant>>,
}

impl DefaultModel {
    pub(super) fn new(route: Option<Route>) -> Self {
        Self {
            route,
            retired: RETIRED.iter().map(|pattern| glob(pattern)).collect(),
            refused: Mutex::default(),
        }
    }

    /// The route to the default model, if the upstream of `route` is known to refuse its model.
    pub(super) fn replacement(&self, route: &Route) -> Option<Route> {
        let default = self.route.as_ref()?;
        let refused = self.refused.lock();
        if refused.is_empty() {
            return None;
        }
        let refused_at = refused.get(&(route.upstream.clone(), route.model.clone()))?;
        (refused_at.elapsed() < MAX_REFUSAL_AGE).then(|| default.clone())
    }

    /// The route to the default model, if `error` means that the upstream does not know the route's
    /// model and that model is retired. Remembers the refusal and logs it once.
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
                "upstream {} does not know the model {}; using the default model {}",
                route.upstream,
                route.model,
                default.model
            );
        }
        Some(default.clone())
    }

    /// The failure. If a default model would help, the text names the setting.
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
    contains_name(&message, &route.model.to_lowercase())
        && (*status == 404
            || UNKNOWN_MODEL_PHRASES
                .iter()
                .any(|phrase| message.contains(phrase)))
}

/// Whether a text holds a name that is not a part of a longer one.
fn contains_name(text: &str, name: &str) -> bool {
    let is_part_of_name = |character: Option<char>| {
        character.is_some_and(|it| it.is_alphanumeric() || matches!(it, '-' | '_'))
    };
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + name.len()..].chars().next();
        !name.is_empty() && !is_part_of_name(before) && !is_part_of_name(after)
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
    fn an_unknown_model_is_distinguished_from_other_refusals() {
        let requested = route("default", "gpt-4o");
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
            assert!(is_unknown_model(&error, &requested), "{message}");
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
            assert!(!is_unknown_model(&error, &requested), "{message}");
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
            let requested = route("default", name);
            assert_eq!(models.replacement(&requested), None, "{name}");
            let error = refusal(404, Some("model_not_found"), "no");
            let after = models.replacement_after(&requested, &error);
            assert_eq!(after, Some(default.clone()), "{name}");
            assert_eq!(
                models.replacement(&requested),
                Some(default.clone()),
                "{name}"
            );
            assert_eq!(models.replacement(&route("other", name)), None, "{name}");
        }
        let error = refusal(404, Some("model_not_found"), "no");
        for name in ["gpt-5", "gpt-4something", "qwen3", "gpt-5-mini"] {
            let requested = route("default", name);
            assert_eq!(models.replacement_after(&requested, &error), None, "{name}");
        }
    }

    #[test]
    fn without_a_default_model_the_error_names_the_setting() {
        let models = DefaultModel::new(None);
        let requested = route("default", "gpt-4o");
        let error = refusal(404, None, "The model `gpt-4o` does not exist.");
        assert_eq!(models.replacement_after(&requested, &error), None);
        let message = models.explain(&requested, error).message();
        assert!(
            message.starts_with("The model `gpt-4o` does not exist. "),
            "{message}"
        );
        assert!(message.contains("ASSISTD_DEFAULT_MODEL"), "{message}");
        let other = refusal(400, None, "Invalid value");
        assert_eq!(models.explain(&requested, other.clone()), other);
    }
}
