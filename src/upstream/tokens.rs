//! How many tokens a text is.
//!
//! Exact for the models whose vocabularies are built in (`cl100k_base`: gpt-4 and gpt-3.5;
//! `o200k_base`: gpt-4o and all later ones of that maker). For every other model the `o200k_base`
//! count is an estimate. What a server adds around messages, tools and images is not published:
//! the constants and [`count_request`] follow what is known of OpenAI's format and are estimates
//! for all.

use serde_json::Value;

/// Tokens that a message costs beyond its text, in OpenAI's chat format.
pub const PER_MESSAGE: u32 = 4;
/// Tokens that every prompt costs once, in OpenAI's chat format: the beginning of the answer.
pub const PER_PROMPT: u32 = 3;
/// What an image is counted as: the cost of a square one in full detail on gpt-4o.
pub const PER_IMAGE: u32 = 765;

/// The tokens of a text.
///
/// Costs about half a microsecond a byte, and the very first count loads the vocabulary: see
/// [`preload`].
pub fn count_text(model: &str, text: &str) -> u32 {
    if text.is_empty() {
        return 0;
    }
    tokenizer(model).count(text).try_into().unwrap_or(u32::MAX)
}

/// A number that the tokens of a text never exceed, without looking at the text: a token is at
/// least one byte.
pub fn bound_text(text: &str) -> u32 {
    text.len().try_into().unwrap_or(u32::MAX)
}

/// Loads the vocabulary for `model` unless it is there; takes a good part of a second.
pub fn preload(model: &str) {
    tokenizer(model);
}

/// The vocabulary of a model.
pub(super) fn tokenizer(model: &str) -> &'static bpe_openai::Tokenizer {
    let name = model.rsplit('/').next().unwrap_or(model);
    let older = (name.starts_with("gpt-4") || name.starts_with("gpt-3.5"))
        && !name.starts_with("gpt-4o")
        && !name.starts_with("gpt-4.");
    if older || name.starts_with("text-embedding-") {
        bpe_openai::cl100k_base()
    } else {
        bpe_openai::o200k_base()
    }
}

/// The tokens of a chat completion request's prompt: messages, tools and response format.
pub(super) fn count_request(model: &str, request: &Value) -> u32 {
    let mut total = PER_PROMPT;
    for message in request["messages"].as_array().into_iter().flatten() {
        total = total.saturating_add(PER_MESSAGE);
        for field in ["content", "name", "refusal"] {
            total = total.saturating_add(count_content(model, &message[field]));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            for field in ["name", "arguments"] {
                total = total.saturating_add(count_content(model, &call["function"][field]));
            }
        }
    }
    for field in ["tools", "response_format"] {
        if let Some(value) = request.get(field).filter(|value| !value.is_null()) {
            total = total.saturating_add(count_text(model, &value.to_string()));
        }
    }
    total
}

fn count_content(model: &str, content: &Value) -> u32 {
    match content {
        Value::String(text) => count_text(model, text),
        Value::Array(parts) => parts.iter().fold(0, |sum: u32, part| {
            sum.saturating_add(
                match part["text"].as_str().or_else(|| part["refusal"].as_str()) {
                    Some(text) => count_text(model, text),
                    None => PER_IMAGE,
                },
            )
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => 0,
    }
}
