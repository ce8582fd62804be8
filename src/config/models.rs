//! Settings of models: the default upstream, and the upstreams and routes of the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use serde::Deserialize;

use super::setting::SettingError;
use super::values;
use super::values::Bytes;
use super::values::Secret;

/// Names in routes: of the upstream of `OPENAI_BASE_URL`, and of the built-in scripted model.
pub const DEFAULT_UPSTREAM: &str = "default";
pub const SCRIPTED_UPSTREAM: &str = "scripted";

/// The base URL of the hosted API, which the official SDKs use when they have a key alone.
pub(super) const OPENAI: &str = "https://api.openai.com/v1";

/// Settings of models.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub struct ModelSettings {
    /// Base URL of the Chat Completions upstream; absent: OpenAI's if there is a key for it,
    /// else the scripted model answers
    #[arg(
        long,
        env = "OPENAI_BASE_URL",
        value_name = "URL",
        value_parser = values::http_url
    )]
    pub openai_base_url: Option<Url>,
    /// Key for that upstream
    #[arg(
        long,
        env = "OPENAI_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub openai_api_key: Option<Secret>,
    /// Model used for names that match no route, and for retired names that an upstream does not know;
    /// absent: pass names on unchanged
    #[arg(long, env = "ASSISTD_DEFAULT_MODEL", value_name = "MODEL")]
    pub default_model: Option<String>,
    /// YAML script of the scripted model; absent: the built-in script
    #[arg(long, env = "ASSISTD_SCRIPT", value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Fail an upstream request that has received nothing for this long
    #[arg(
        long,
        env = "ASSISTD_UPSTREAM_TIMEOUT",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = values::positive_duration
    )]
    pub upstream_timeout: Duration,
    /// Maximum retries of a failed upstream request
    #[arg(
        long,
        env = "ASSISTD_UPSTREAM_RETRIES",
        value_name = "N",
        default_value = "4",
        value_parser = values::at_least(0)
    )]
    pub upstream_retries: u32,
    /// Maximum length of a line in an upstream's stream; a longer one fails the run
    #[arg(
        long,
        env = "ASSISTD_MAX_UPSTREAM_LINE_BYTES",
        value_name = "BYTES",
        default_value = "16MiB"
    )]
    pub max_upstream_line_bytes: Bytes,
    /// Maximum size of an upstream's response to one turn of a run; a larger one fails the run
    #[arg(
        long,
        env = "ASSISTD_MAX_UPSTREAM_ANSWER_BYTES",
        value_name = "BYTES",
        default_value = "64MiB"
    )]
    pub max_upstream_answer_bytes: Bytes,
    /// Maximum total size of the stored pictures in a prompt; a larger total fails the run
    #[arg(
        long,
        env = "ASSISTD_MAX_PROMPT_PICTURE_BYTES",
        value_name = "BYTES",
        default_value = "48MiB"
    )]
    pub max_prompt_picture_bytes: Bytes,

    /// The upstream of `OPENAI_BASE_URL`, if it is set, then the `[[upstream]]` tables of the
    /// configuration file. The first one gets the model names that match no route; if there is
    /// none, the scripted model does.
    #[arg(skip)]
    pub upstreams: Vec<Upstream>,
    /// The `[[route]]` tables of the configuration file, then the route of `ASSISTD_DEFAULT_MODEL`,
    /// if it is set. The first match counts.
    #[arg(skip)]
    pub routes: Vec<Route>,
}

/// A Chat Completions server: an `[[upstream]]` table, or the default upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    /// URL that `/chat/completions` is appended to; for Azure, that of the resource.
    pub base_url: Url,
    pub api_key: Option<Secret>,
    /// `api-version` of Azure; required there, not allowed elsewhere.
    pub api_version: Option<String>,
    /// Request parameters that the upstream refuses, which are left out.
    pub unsupported: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// OpenAI's own API and servers compatible with it.
    #[default]
    OpenAi,
    /// Azure OpenAI: deployments, `api-version`, the header `api-key`.
    Azure,
}

/// Maps model names to an upstream and a model: a `[[route]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Pattern of model names; `*` stands for any text, `?` for one character.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Name of an upstream, or [`SCRIPTED_UPSTREAM`].
    pub upstream: String,
    /// Name of the model at the upstream; absent: the name that the client sent.
    pub model: Option<String>,
    /// Tokens that prompt and answer may have together; absent: unknown.
    pub context_window: Option<u32>,
}

impl ModelSettings {
    pub(super) fn add_defaults(&mut self) {
        let base_url = self.openai_base_url.clone().or_else(|| {
            let openai = || Url::parse(OPENAI).expect("the constant is a URL");
            self.openai_api_key.as_ref().map(|_| openai())
        });
        if let Some(base_url) = base_url {
            let upstream = Upstream {
                name: DEFAULT_UPSTREAM.to_owned(),
                kind: UpstreamKind::OpenAi,
                base_url,
                api_key: self.openai_api_key.clone(),
                api_version: None,
                unsupported: Vec::new(),
            };
            self.upstreams.insert(0, upstream);
        }
        if let Some(model) = &self.default_model {
            let first = self.upstreams.first();
            self.routes.push(Route {
                pattern: "*".to_owned(),
                upstream: first
                    .map_or(SCRIPTED_UPSTREAM, |first| &first.name)
                    .to_owned(),
                model: Some(model.clone()),
                context_window: None,
            });
        }
    }
}

/// Checks that names of upstreams are unique and that routes name existing upstreams.
pub(super) fn check_routes(upstreams: &[Upstream], routes: &[Route]) -> Result<(), SettingError> {
    let invalid = |setting: &str, reason: String| SettingError::Invalid {
        setting: setting.to_owned(),
        reason,
    };
    for (index, upstream) in upstreams.iter().enumerate() {
        let earlier = &upstreams[..index];
        if upstream.name == SCRIPTED_UPSTREAM
            || earlier.iter().any(|other| other.name == upstream.name)
        {
            let reason = format!("the name {:?} is taken", upstream.name);
            return Err(invalid("upstream", reason));
        }
    }
    for route in routes {
        let name = &route.upstream;
        if name == SCRIPTED_UPSTREAM || upstreams.iter().any(|upstream| upstream.name == *name) {
            continue;
        }
        let mut reason = format!("{:?} is for {name:?}, which is no upstream", route.pattern);
        if name == DEFAULT_UPSTREAM {
            reason += " as long as OPENAI_BASE_URL and OPENAI_API_KEY are not set";
        }
        return Err(invalid("route", reason));
    }
    Ok(())
}
