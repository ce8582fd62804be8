//! The refusals that several parsers share, with the texts, parameters and codes of the hosted API.

use std::fmt::Display;

use serde_json::Value;

use crate::domain::ids::WrongPrefix;
use crate::wire::ParseError;
use crate::wire::json::JsonType;

/// Longest part of a refused value that an error text repeats, in characters.
const MAX_SHOWN_CHARS: usize = 64;

pub fn missing(path: &str) -> ParseError {
    ParseError::new(format!("Missing required parameter: '{path}'."))
        .param(path)
        .code("missing_required_parameter")
}

pub fn wrong_type(path: &str, expected: &str, got: JsonType) -> ParseError {
    let got = match got {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Decimal => "a decimal",
        JsonType::Integer => "an integer",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    };
    ParseError::new(format!(
        "Invalid type for '{path}': expected {expected}, but got {got} instead."
    ))
    .param(path)
    .code("invalid_type")
}

pub fn wrong_id(path: &str, text: &str, error: &WrongPrefix) -> ParseError {
    let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    ParseError::new(format!(
        "Invalid '{path}': '{shown}'. Expected an ID that begins with '{}'.",
        error.prefix
    ))
    .param(path)
    .code("invalid_value")
}

pub fn invalid_value(path: &str, got: &str, supported: &[&str]) -> ParseError {
    let quoted: Vec<String> = supported.iter().map(|value| format!("'{value}'")).collect();
    let list = match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [init @ .., last] => format!("{}, and {last}", init.join(", ")),
    };
    let shown: String = got.chars().take(MAX_SHOWN_CHARS).collect();
    ParseError::new(format!(
        "Invalid value: '{shown}'. Supported values are: {list}."
    ))
    .param(path)
    .code("invalid_value")
}

#[derive(Debug, Clone, Copy)]
pub enum Bound<T> {
    Min(T),
    Max(T),
}

/// Refuses a number; `number_type` is `integer` or `decimal`.
pub fn out_of_range<T: Display>(
    number_type: &str,
    path: &str,
    bound: Bound<T>,
    got: &Value,
) -> ParseError {
    let code = match (number_type, &bound) {
        ("integer", Bound::Max(_)) => "integer_above_max_value",
        ("integer", Bound::Min(_)) => "integer_below_min_value",
        (_, Bound::Max(_)) => "decimal_above_max_value",
        (_, Bound::Min(_)) => "decimal_below_min_value",
    };
    let (violation, sign, bound) = match bound {
        Bound::Max(max) => ("above maximum", "<=", max),
        Bound::Min(min) => ("below minimum", ">=", min),
    };
    ParseError::new(format!(
        "Invalid '{path}': {number_type} {violation} value. Expected a value {sign} {bound}, but \
         got {got} instead."
    ))
    .param(path)
    .code(code)
}

pub fn too_many(subject: &str, items: &str) -> ParseError {
    ParseError::new(format!("Invalid body: {subject} has too many {items}.")).code("invalid_value")
}
