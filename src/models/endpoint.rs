//! The endpoints of model servers.

use reqwest::Method;

/// An endpoint whose request names a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Embeddings,
    Rerank,
    Responses,
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Responses => "responses",
        }
    }

    /// Whether the operator's default model, which is a chat model, can answer.
    pub(super) fn is_chat(self) -> bool {
        matches!(self, Self::Chat | Self::Responses)
    }
}

/// A call about a stored response of the Responses API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredResponseCall {
    Read,
    Delete,
    Cancel,
    ListInput,
}

impl StoredResponseCall {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Read | Self::ListInput => Method::GET,
            Self::Delete => Method::DELETE,
            Self::Cancel => Method::POST,
        }
    }

    pub(super) fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Read | Self::Delete => None,
            Self::Cancel => Some("cancel"),
            Self::ListInput => Some("input_items"),
        }
    }
}
