//! Routes: the upstream and the model that answer for a model name.

use regex::Regex;

use super::error::SetupError;
use super::scripted;

/// An entry of the route table. The first pattern that matches a name decides.
#[derive(Clone, Debug)]
pub struct RouteOptions {
    /// A model name, in which `*` matches any characters and `?` one.
    pub pattern: String,
    pub upstream: String,
    /// The model's name at the upstream; `None`: the requested name.
    pub model: Option<String>,
    /// The context window in tokens, where the built-in table is wrong or has none.
    pub context_window: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub upstream: String,
    pub model: String,
    /// The context window in tokens; `None`: unlimited, until the upstream names a limit.
    pub context_window: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub owned_by: String,
}

#[derive(Debug)]
pub(super) struct Routes {
    table: Vec<(Regex, RouteOptions)>,
    default_upstream: String,
}

impl Routes {
    /// `upstreams` are the names of the configured servers, the default one first.
    pub(super) fn new(routes: Vec<RouteOptions>, upstreams: &[String]) -> Result<Self, SetupError> {
        let mut table = Vec::with_capacity(routes.len());
        for route in routes {
            let RouteOptions {
                pattern, upstream, ..
            } = &route;
            if upstream != scripted::UPSTREAM && !upstreams.contains(upstream) {
                return Err(SetupError(format!(
                    "the route `{pattern}` leads to the upstream `{upstream}`, which is not configured"
                )));
            }
            table.push((glob(pattern), route));
        }
        let default_upstream = upstreams
            .first()
            .map_or_else(|| scripted::UPSTREAM.to_owned(), String::clone);
        Ok(Self {
            table,
            default_upstream,
        })
    }

    /// The route of a model name. Names that match no pattern go to the default upstream.
    pub(super) fn route(&self, model: &str) -> Route {
        if model.starts_with(scripted::PREFIX) {
            return scripted_route(model);
        }
        let Some((_, route)) = self
            .table
            .iter()
            .find(|(pattern, _)| pattern.is_match(model))
        else {
            if self.default_upstream == scripted::UPSTREAM {
                return scripted_route(scripted::DEFAULT_MODEL);
            }
            return self.default_route(model);
        };
        let actual = route.model.as_deref().unwrap_or(model);
        Route {
            upstream: route.upstream.clone(),
            model: actual.to_owned(),
            context_window: route.context_window.or_else(|| context_window(actual)),
        }
    }

    pub(super) fn default_route(&self, model: &str) -> Route {
        Route {
            upstream: self.default_upstream.clone(),
            model: model.to_owned(),
            context_window: context_window(model),
        }
    }

    /// The names in the table that are not patterns, each once.
    pub(super) fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for (_, route) in &self.table {
            let name = (!route.pattern.contains(['*', '?'])).then_some(&route.pattern);
            for id in name.into_iter().chain(&route.model) {
                if models.iter().all(|model| model.id != *id) {
                    models.push(Model {
                        id: id.clone(),
                        owned_by: route.upstream.clone(),
                    });
                }
            }
        }
        models
    }

    pub(super) fn has_catch_all(&self) -> bool {
        self.table.iter().any(|(_, route)| route.pattern == "*")
    }

    /// The table in one line: `gpt-* → local (qwen3), others → openai`.
    pub(super) fn describe(&self) -> String {
        let mut lines: Vec<String> = self
            .table
            .iter()
            .map(|(_, route)| match &route.model {
                Some(model) => format!("{} → {} ({model})", route.pattern, route.upstream),
                None => format!("{} → {}", route.pattern, route.upstream),
            })
            .collect();
        if !self.has_catch_all() {
            let rest = if lines.is_empty() {
                "every model"
            } else {
                "others"
            };
            lines.push(format!("{rest} → {}", self.default_upstream));
        }
        lines.join(", ")
    }
}

fn scripted_route(model: &str) -> Route {
    Route {
        upstream: scripted::UPSTREAM.to_owned(),
        model: model.to_owned(),
        context_window: None,
    }
}

pub(super) fn glob(pattern: &str) -> Regex {
    let escaped = regex::escape(pattern)
        .replace(r"\*", ".*")
        .replace(r"\?", ".");
    Regex::new(&format!("(?s)^{escaped}$")).expect("an escaped pattern is a valid expression")
}

/// Context windows of widely used models, in tokens, as published. The first matching prefix of a
/// name (after any `owner/`) decides, so longer prefixes come first.
const CONTEXT_WINDOWS: [(&str, u32); 27] = [
    ("gpt-5-chat", 128_000),
    ("gpt-5", 400_000),
    ("gpt-4.1", 1_047_576),
    ("gpt-4o", 128_000),
    ("gpt-4-turbo", 128_000),
    ("gpt-4-1106", 128_000),
    ("gpt-4-0125", 128_000),
    ("gpt-4-vision", 128_000),
    ("gpt-4-32k", 32_768),
    ("gpt-4", 8_192),
    ("gpt-3.5-turbo-instruct", 4_096),
    ("gpt-3.5", 16_385),
    ("chatgpt-4o", 128_000),
    ("gpt-oss", 131_072),
    ("o1-mini", 128_000),
    ("o1-preview", 128_000),
    ("o1", 200_000),
    ("o3", 200_000),
    ("o4-mini", 200_000),
    ("claude-3", 200_000),
    ("gemini-1.5-flash", 1_048_576),
    ("gemini-2", 1_048_576),
    ("mistral-large", 131_072),
    ("mixtral-8x22b", 65_536),
    ("mixtral-8x7b", 32_768),
    ("deepseek-chat", 131_072),
    ("deepseek-reasoner", 131_072),
];

/// The context window of a well-known model. Self-hosted models are not in the table: their server
/// decides how much of the window it offers.
fn context_window(model: &str) -> Option<u32> {
    let name = model.rsplit('/').next().unwrap_or(model);
    CONTEXT_WINDOWS
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, tokens)| *tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &str, upstream: &str, model: Option<&str>) -> RouteOptions {
        RouteOptions {
            pattern: pattern.into(),
            upstream: upstream.into(),
            model: model.map(str::to_owned),
            context_window: None,
        }
    }

    fn routes(table: Vec<RouteOptions>, upstreams: &[&str]) -> Routes {
        let names: Vec<String> = upstreams.iter().map(|name| (*name).to_owned()).collect();
        Routes::new(table, &names).expect("the routes are valid")
    }

    #[test]
    fn the_first_matching_pattern_decides_and_the_rest_goes_to_the_default() {
        let routes = routes(
            vec![
                route("gpt-4o-mini", "openai", None),
                route("gpt-4*", "local", Some("qwen3")),
                route("text-embedding-?-small", "local", Some("minilm")),
            ],
            &["openai", "local"],
        );
        let destination = |name: &str| {
            let route = routes.route(name);
            (route.upstream, route.model)
        };
        let pair = |upstream: &str, model: &str| (upstream.to_owned(), model.to_owned());
        assert_eq!(destination("gpt-4o-mini"), pair("openai", "gpt-4o-mini"));
        assert_eq!(destination("gpt-4-turbo"), pair("local", "qwen3"));
        assert_eq!(
            destination("text-embedding-3-small"),
            pair("local", "minilm")
        );
        assert_eq!(destination("o3"), pair("openai", "o3"));
        assert_eq!(destination("not-gpt-4"), pair("openai", "not-gpt-4"));
        assert_eq!(
            destination("scripted/mine"),
            pair("scripted", "scripted/mine")
        );
        assert_eq!(
            routes.describe(),
            "gpt-4o-mini → openai, gpt-4* → local (qwen3), text-embedding-?-small → local (minilm), \
             others → openai"
        );
        let listed: Vec<String> = routes.models().into_iter().map(|model| model.id).collect();
        assert_eq!(listed, ["gpt-4o-mini", "qwen3", "minilm"]);
    }

    #[test]
    fn without_upstreams_every_name_is_the_default_scripted_model() {
        let route = routes(vec![], &[]).route("gpt-4-turbo");
        assert_eq!(
            (route.upstream.as_str(), route.model.as_str()),
            ("scripted", "scripted/default")
        );
    }

    #[test]
    fn a_route_to_nowhere_is_refused() {
        let refused = Routes::new(vec![route("*", "nowhere", None)], &["openai".to_owned()]);
        let message = refused.expect_err("the upstream is unknown").to_string();
        assert_eq!(
            message,
            "the route `*` leads to the upstream `nowhere`, which is not configured"
        );
    }

    #[test]
    fn context_windows_are_known_by_prefix_and_can_be_overridden() {
        let mut own = route("own", "openai", Some("my-llama"));
        own.context_window = Some(8_000);
        let routes = routes(vec![own], &["openai"]);
        let window = |name: &str| routes.route(name).context_window;
        assert_eq!(window("gpt-4-turbo-2024-04-09"), Some(128_000));
        assert_eq!(window("gpt-4-0613"), Some(8_192));
        assert_eq!(window("openai/gpt-4.1-mini"), Some(1_047_576));
        assert_eq!(window("own"), Some(8_000));
        assert_eq!(window("my-llama"), None);
    }
}
