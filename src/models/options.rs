//! Settings of the models.

use std::path::PathBuf;
use std::time::Duration;

use super::routes::RouteOptions;

#[derive(Clone, Debug)]
pub struct Options {
    /// The model servers. The first one gets every name that no route matches; without any, the
    /// scripted model does.
    pub upstreams: Vec<UpstreamOptions>,
    /// The route table, most specific patterns first.
    pub routes: Vec<RouteOptions>,
    /// The model of the first upstream that replaces retired models which upstreams no longer know.
    pub default_model: Option<String>,
    /// The script of the scripted model; `None`: the bundled one.
    pub script: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// Time limit for the start of a response, and for each pause in it.
    pub idle_timeout: Duration,
    pub max_line_bytes: usize,
    pub max_answer_bytes: usize,
    /// Maximum number of retries of a turn after transient failures.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            routes: Vec::new(),
            default_model: None,
            script: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_line_bytes: 16 << 20,
            max_answer_bytes: 64 << 20,
            retries: 3,
        }
    }
}

#[derive(Clone)]
pub struct UpstreamOptions {
    pub name: String,
    pub kind: UpstreamKind,
    /// For [`UpstreamKind::OpenAi`] what SDKs call the base URL, `…/v1`; for
    /// [`UpstreamKind::Azure`] the address of the resource.
    pub base_url: String,
    pub api_key: Option<String>,
    /// Request parameters never to send: any of `stream_options`, `parallel_tool_calls` and
    /// `max_completion_tokens` (sent as `max_tokens` instead). Parameters that a server refuses are
    /// detected without this setting.
    pub unsupported: Vec<String>,
}

impl std::fmt::Debug for UpstreamOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key and the base URL, which may hold credentials.
        f.debug_struct("UpstreamOptions")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("unsupported", &self.unsupported)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// `Authorization: Bearer`, `/chat/completions`.
    OpenAi,
    /// `api-key`, `/openai/deployments/{model}/chat/completions`.
    Azure {
        /// The `api-version` query parameter.
        api_version: String,
    },
}
