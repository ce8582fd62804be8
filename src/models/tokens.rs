//! Token counts.
//!
//! Exact for the models whose vocabularies are built in (`cl100k_base`: gpt-4 and gpt-3.5;
//! `o200k_base`: gpt-4o and later models of OpenAI), an estimate by `o200k_base` for all others.
//! What servers add around messages, tools and images is not published: the constants and
//! [`count_request`] are estimates for all models.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bpe_openai::Tokenizer;
use serde_json::Value;

/// Tokens of a message besides its text.
pub const PER_MESSAGE: u32 = 4;
/// Tokens of a prompt besides its messages: the start of the answer.
pub const PER_PROMPT: u32 = 3;
/// Tokens of an image: a square one in full detail on gpt-4o.
pub const PER_IMAGE: u32 = 765;

/// The tokens of a text. Takes about half a microsecond per byte.
///
/// The first count loads the vocabulary: see [`ready`].
pub fn count_text(model: &str, text: &str) -> u32 {
    if text.is_empty() {
        return 0;
    }
    let tokenizer = vocabulary(model).tokenizer();
    tokenizer.count(text).try_into().unwrap_or(u32::MAX)
}

/// An upper bound of the tokens of a text, from its length: a token has at least one byte.
pub fn bound_text(text: &str) -> u32 {
    text.len().try_into().unwrap_or(u32::MAX)
}

/// Loads the vocabulary for `model` on a blocking thread, unless it is loaded.
///
/// Loading takes about 0.2 s and 70 MB of memory (`cl100k_base`: 30 MB), so try [`bound_text`]
/// first.
pub async fn ready(model: &str) {
    let vocabulary = vocabulary(model);
    if !vocabulary.loaded().load(Ordering::Acquire) {
        let load = tokio::task::spawn_blocking(move || vocabulary.tokenizer());
        load.await
            .expect("loading a built-in vocabulary does not panic");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vocabulary {
    Cl100k,
    O200k,
}

impl Vocabulary {
    fn tokenizer(self) -> &'static Tokenizer {
        let tokenizer = match self {
            Self::Cl100k => bpe_openai::cl100k_base(),
            Self::O200k => bpe_openai::o200k_base(),
        };
        self.loaded().store(true, Ordering::Release);
        tokenizer
    }

    fn loaded(self) -> &'static AtomicBool {
        static LOADED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
        match self {
            Self::Cl100k => &LOADED[0],
            Self::O200k => &LOADED[1],
        }
    }
}

fn vocabulary(model: &str) -> Vocabulary {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is_older = (name.starts_with("gpt-4") || name.starts_with("gpt-3.5"))
        && !name.starts_with("gpt-4o")
        && !name.starts_with("gpt-4.");
    if is_older || name.starts_with("text-embedding-") {
        Vocabulary::Cl100k
    } else {
        Vocabulary::O200k
    }
}

pub fn count_request(model: &str, request: &Value) -> u32 {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_model_is_counted_with_its_own_vocabulary() {
        // The two vocabularies split this text differently.
        let text = "Здравствуйте, мир! antidisestablishmentarianism";
        let old = count_text("gpt-4-turbo", text);
        let new = count_text("gpt-4o-mini", text);
        assert!(new < old, "{new} < {old}");
        for same in [
            "gpt-4.1",
            "gpt-5",
            "o3",
            "openai/gpt-4o",
            "scripted/default",
            "qwen3",
        ] {
            assert_eq!(count_text(same, text), new, "{same}");
        }
        for same in ["gpt-4", "gpt-3.5-turbo", "openai/gpt-4-0613"] {
            assert_eq!(count_text(same, text), old, "{same}");
        }
    }

    #[test]
    fn the_bound_is_never_below_the_count() {
        for text in [
            "",
            "a",
            "hello world",
            "日本語のテキスト",
            "🦀🦀🦀",
            "   \n\n\t",
            "\u{0}\u{1}\u{fffd}",
        ] {
            assert!(bound_text(text) >= count_text("gpt-4o", text), "{text:?}");
            assert!(bound_text(text) >= count_text("gpt-4", text), "{text:?}");
        }
    }

    #[test]
    fn a_request_counts_messages_calls_images_and_tools() {
        let tokens = |request: Value| count_request("gpt-4o", &request);
        assert_eq!(tokens(json!({"messages": []})), PER_PROMPT);
        let hello = tokens(json!({"messages": [{"role": "user", "content": "Hello!"}]}));
        assert_eq!(hello, PER_PROMPT + PER_MESSAGE + 2);
        let parts = json!([{"type": "text", "text": "Hello!"}, {"type": "image_url", "image_url": {"url": "data:"}}]);
        assert_eq!(
            tokens(json!({"messages": [{"role": "user", "content": parts}]})),
            hello + PER_IMAGE
        );
        let call = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "Hello!", "arguments": "Hello!"}}]});
        assert_eq!(tokens(json!({"messages": [call]})), hello + 2);
        let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
        let all = json!({"messages": [{"role": "user", "content": "Hello!"}], "tools": tools});
        assert!(tokens(all) > hello + 5);
    }
}
