//! What an operator says about the model servers.

use std::path::PathBuf;
use std::time::Duration;

use super::routes::RouteOptions;

/// What the models behind this server are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model servers. The first one gets every name that no route matches; with none at all
    /// the scripted model does.
    pub upstreams: Vec<UpstreamOptions>,
    /// The route table, most specific patterns first.
    pub routes: Vec<RouteOptions>,
    /// The model of the first upstream that answers for retired names which an upstream does not know.
    pub default_model: Option<String>,
    /// The script of the scripted model; the bundled one when absent.
    pub script: Option<PathBuf>,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest silence: before the answer begins, and between any two pieces of it.
    pub idle_timeout: Duration,
    /// Longest line of a streamed answer, in bytes.
    pub max_line_bytes: usize,
    /// Longest answer to a turn, in bytes as they are sent.
    pub max_answer_bytes: usize,
    /// How often a turn is repeated after a passing failure.
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

/// One model server.
#[derive(Clone)]
pub struct UpstreamOptions {
    /// What routes, logs and metrics call it.
    pub name: String,
    /// Which flavour of the protocol it speaks.
    pub kind: Kind,
    /// For [`Kind::OpenAi`] what SDKs call the base URL, `…/v1`; for [`Kind::Azure`] the resource's
    /// address.
    pub base_url: String,
    /// The key to send.
    pub api_key: Option<String>,
    /// Request parameters never to send it: any of `stream_options`, `parallel_tool_calls` and
    /// `max_completion_tokens` (then sent as `max_tokens`). Others are found out by themselves.
    pub unsupported: Vec<String>,
}

impl std::fmt::Debug for UpstreamOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the key nor the address, which may hold credentials.
        f.debug_struct("UpstreamOptions")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("unsupported", &self.unsupported)
            .finish_non_exhaustive()
    }
}

/// A flavour of the Chat Completions protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Authorization: Bearer`, `/chat/completions`.
    OpenAi,
    /// `api-key`, `/openai/deployments/{model}/chat/completions`.
    Azure {
        /// The `api-version` query parameter.
        api_version: String,
    },
}
