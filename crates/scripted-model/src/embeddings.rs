//! Embeddings without a model: every word adds to a few dimensions of the vector, so that texts with
//! words in common are near each other, and the same text always has the same vector.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::tokens;

const DEFAULT_DIMENSIONS: usize = 1_536;
const MAX_DIMENSIONS: usize = 4_096;
const DIMENSIONS_PER_WORD: u64 = 4;

/// The body of the answer to an embeddings request.
///
/// # Errors
/// When a parameter is not valid; the text is for the client.
pub(crate) fn answer(request: &Value) -> Result<Value, String> {
    let inputs = inputs(&request["input"])?;
    let dimensions = match &request["dimensions"] {
        Value::Null => DEFAULT_DIMENSIONS,
        dimensions => dimensions
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=MAX_DIMENSIONS).contains(number))
            .ok_or_else(|| format!("'dimensions' must be a number from 1 to {MAX_DIMENSIONS}."))?,
    };
    let base64 = match request["encoding_format"].as_str() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err("'encoding_format' must be 'float' or 'base64'.".into()),
    };
    let model = request["model"].as_str().unwrap_or_default();
    let mut count = 0_u32;
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            count = count.saturating_add(tokens::count(text));
            let vector = embed(text, dimensions);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .collect();
                Value::String(BASE64_STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    Ok(json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": { "prompt_tokens": count, "total_tokens": count },
    }))
}

fn inputs(input: &Value) -> Result<Vec<String>, String> {
    let wrong = || "'input' must be a text or a list of texts or tokens, and not empty.".to_owned();
    let texts = match input {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.iter().all(Value::is_u64) => vec![token_text(items)],
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                Value::Array(tokens) if tokens.iter().all(Value::is_u64) => Ok(token_text(tokens)),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong()),
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(texts)
}

/// Token ids are compared like words.
fn token_text(tokens: &[Value]) -> String {
    tokens.iter().map(|token| format!("{token} ")).collect()
}

fn embed(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    let lower = text.to_lowercase();
    let words = lower
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty());
    // A text without letters and digits counts as one word.
    let whole = lower
        .split(char::is_alphanumeric)
        .filter(|_| !lower.contains(char::is_alphanumeric));
    for word in words.chain(whole) {
        for seed in 0..DIMENSIONS_PER_WORD {
            let hash = fnv1a(word.as_bytes(), seed);
            let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
            vector[(hash % dimensions as u64) as usize] += sign;
        }
    }
    let length = vector
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    if length == 0.0 {
        vector[0] = 1.0;
        return vector;
    }
    vector.iter().map(|number| number / length).collect()
}

/// The FNV-1a hash with a seed: the same on every machine and in every version.
fn fnv1a(bytes: &[u8], seed: u64) -> u64 {
    let basis = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes.iter().fold(basis, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(left: &str, right: &str) -> f32 {
        let (left, right) = (embed(left, 256), embed(right, 256));
        left.iter().zip(&right).map(|(l, r)| l * r).sum()
    }

    #[test]
    fn texts_with_words_in_common_are_nearer() {
        let near = similarity(
            "How do I reset my password?",
            "To reset the password, press reset.",
        );
        let far = similarity("How do I reset my password?", "Bananas are yellow.");
        assert!(near > 0.3 && far < 0.2, "{near} {far}");
        assert!((similarity("same", "Same!") - 1.0).abs() < 1e-5);
    }

    #[test]
    fn both_encodings_hold_the_same_numbers() {
        let request = json!({"model": "m", "input": ["hello world"], "dimensions": 8});
        let floats = answer(&request).expect("the request is valid");
        let mut request = request;
        request["encoding_format"] = json!("base64");
        let packed = answer(&request).expect("the request is valid");
        let text = packed["data"][0]["embedding"]
            .as_str()
            .expect("the vector is text");
        let bytes = BASE64_STANDARD.decode(text).expect("the text is base64");
        let unpacked: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert_eq!(unpacked.len(), 8);
        let plain: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone())
            .expect("the vector is a list of numbers");
        assert_eq!(plain, unpacked);
        assert_eq!(floats["usage"]["prompt_tokens"], 2);
    }

    #[test]
    fn inputs_come_in_four_shapes() {
        let count = |input: Value| {
            answer(&json!({"model": "m", "input": input}))
                .map(|body| body["data"].as_array().map(Vec::len))
        };
        assert_eq!(count(json!("a")), Ok(Some(1)));
        assert_eq!(count(json!(["a", "b"])), Ok(Some(2)));
        assert_eq!(count(json!([1, 2, 3])), Ok(Some(1)));
        assert_eq!(count(json!([[1, 2], [3]])), Ok(Some(2)));
        for wrong in [
            json!(null),
            json!(""),
            json!([]),
            json!([""]),
            json!([[]]),
            json!([{}]),
            json!(["a", 1]),
        ] {
            assert!(count(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
