//! Reads single JSON values. `path` is where a value stands in its request, as error texts and
//! `param` name it: `tools[0].function.name`.

use std::ops::ControlFlow;
use std::str::FromStr;

use serde_json::Value;

use crate::domain::ids::WrongPrefix;
use crate::wire::ParseError;
use crate::wire::json::{Json, JsonType};
use crate::wire::refusal::{Bound, out_of_range, too_many, wrong_id, wrong_type};

/// Maximum number of values in one piece of arbitrary JSON, such as the `tools` of a request.
const MAX_ARBITRARY_VALUES: usize = 50_000;

pub fn string(path: &str, value: impl Into<Json>, max: usize) -> Result<String, ParseError> {
    let value = value.into();
    if value.json_type() != JsonType::String {
        return Err(wrong_type(path, "a string", value.json_type()));
    }
    let length = if max == usize::MAX {
        0
    } else {
        value.char_count()
    };
    if length > max {
        return Err(ParseError::new(format!(
            "Invalid '{path}': string too long. Expected a string with maximum length {max}, but \
             got a string with length {length} instead."
        ))
        .param(path)
        .code("string_above_max_length"));
    }
    value.read()
}

pub fn id<T>(path: &str, value: impl Into<Json>) -> Result<T, ParseError>
where
    T: FromStr<Err = WrongPrefix>,
{
    let text = string(path, value, usize::MAX)?;
    text.parse().map_err(|error| wrong_id(path, &text, &error))
}

pub fn integer(path: &str, value: impl Into<Json>, min: i64, max: i64) -> Result<i64, ParseError> {
    let value = scalar(path, "an integer", value.into())?;
    let wrong = || wrong_type(path, "an integer", JsonType::of(&value));
    let integer = value.as_i64().ok_or_else(wrong)?;
    if integer < min {
        return Err(out_of_range("integer", path, Bound::Min(min), &value));
    }
    if integer > max {
        return Err(out_of_range("integer", path, Bound::Max(max), &value));
    }
    Ok(integer)
}

pub fn decimal(path: &str, value: impl Into<Json>, min: f64, max: f64) -> Result<f64, ParseError> {
    let value = scalar(path, "a decimal", value.into())?;
    let wrong = || wrong_type(path, "a decimal", JsonType::of(&value));
    let decimal = value.as_f64().ok_or_else(wrong)?;
    if decimal < min {
        return Err(out_of_range("decimal", path, Bound::Min(min), &value));
    }
    if decimal > max {
        return Err(out_of_range("decimal", path, Bound::Max(max), &value));
    }
    Ok(decimal)
}

fn scalar(path: &str, expected: &str, value: Json) -> Result<Value, ParseError> {
    match value.json_type() {
        JsonType::Null
        | JsonType::Boolean
        | JsonType::Integer
        | JsonType::Decimal
        | JsonType::String => value.read(),
        got @ (JsonType::Array | JsonType::Object) => Err(wrong_type(path, expected, got)),
    }
}

/// Reads an array of at most `max` items. Each item is parsed before the next one is read, so an
/// array takes no more memory than its parsed items.
pub fn array<T>(
    path: &str,
    array: Json,
    max: usize,
    mut parse: impl FnMut(usize, Json) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    if array.json_type() != JsonType::Array {
        return Err(wrong_type(path, "an array", array.json_type()));
    }
    let mut parsed = Vec::new();
    let mut length = 0;
    let refusal = array.items(|item| {
        length += 1;
        if length > max {
            return ControlFlow::Continue(());
        }
        match parse(length - 1, item) {
            Ok(item) => {
                parsed.push(item);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    })?;
    if length > max {
        return Err(ParseError::new(format!(
            "Invalid '{path}': array too long. Expected an array with maximum length {max}, but got \
             an array with length {length} instead."
        ))
        .param(path)
        .code("array_above_max_length"));
    }
    refusal.map_or(Ok(parsed), Err)
}

/// Reads JSON whose structure the API leaves to its clients, such as the schema of a function.
pub fn arbitrary(path: &str, value: Json) -> Result<Value, ParseError> {
    check_value_count(path, &value)?;
    value.read()
}

pub fn check_value_count(path: &str, value: &Json) -> Result<(), ParseError> {
    if value.value_count() <= MAX_ARBITRARY_VALUES {
        return Ok(());
    }
    Err(too_many(&format!("'{path}'"), "values").param(path))
}
