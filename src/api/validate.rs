//! Takes request bodies apart, refusing what the contract refuses with the texts, parameters and
//! codes that clients know.
//!
//! An [`Object`] is emptied field by field; what is left at the end was unknown.

use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::domain::Metadata;

/// A JSON object on its way to a typed request.
#[derive(Debug)]
pub struct Object {
    path: String,
    fields: Map<String, Value>,
}

impl Object {
    /// The body of a request.
    pub fn body(fields: Map<String, Value>) -> Self {
        Self {
            path: String::new(),
            fields,
        }
    }

    /// A value inside a body, at `path`.
    pub fn at(path: String, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self { path, fields }),
            other => Err(wrong_type(&path, "an object", &other)),
        }
    }

    /// Where a field of this object is, as `param` names it: `tools[0].function.name`.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Whether the field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Takes the field as it is; null counts as absent.
    pub fn any(&mut self, name: &str) -> Option<Value> {
        self.fields
            .shift_remove(name)
            .filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        self.any(name).ok_or_else(|| missing(&self.path(name)))
    }

    /// Takes a string of at most `max` characters.
    pub fn string(&mut self, name: &str, max: usize) -> Result<Option<String>, ApiError> {
        self.any(name)
            .map(|value| string(&self.path(name), value, max))
            .transpose()
    }

    /// Takes a string that must be there.
    pub fn required_string(&mut self, name: &str, max: usize) -> Result<String, ApiError> {
        string(&self.path(name), self.required(name)?, max)
    }

    /// Takes an id that must be there.
    pub fn required_id<T>(&mut self, name: &str) -> Result<T, ApiError>
    where
        T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
    {
        let path = self.path(name);
        id(&path, self.required(name)?)
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.any(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(&self.path(name), "a boolean", &other)),
        }
    }

    /// Takes a number from `min` to `max`.
    pub fn decimal(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.any(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        let number = value
            .as_f64()
            .ok_or_else(|| wrong_type(&path, "a decimal", &value))?;
        if number < min {
            return Err(out_of_range("decimal", &path, false, min, &value));
        }
        if number > max {
            return Err(out_of_range("decimal", &path, true, max, &value));
        }
        Ok(Some(number))
    }

    /// Takes a whole number from `min` to `max`.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.any(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        integer(&path, &value, min, max).map(Some)
    }

    /// Takes an array of at most `max` items.
    pub fn array(&mut self, name: &str, max: usize) -> Result<Option<Vec<Value>>, ApiError> {
        let path = self.path(name);
        match self.any(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(items)) => Err(ApiError::invalid(format!(
                "Invalid '{path}': array too long. Expected an array with maximum length {max}, \
                 but got an array with length {} instead.",
                items.len()
            ))
            .param(path)
            .code("array_above_max_length")),
            Some(other) => Err(wrong_type(&path, "an array", &other)),
        }
    }

    /// Takes an array of ids.
    pub fn ids<T>(&mut self, name: &str, max: usize) -> Result<Option<Vec<T>>, ApiError>
    where
        T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
    {
        let path = self.path(name);
        let Some(items) = self.array(name, max)? else {
            return Ok(None);
        };
        let ids = items
            .into_iter()
            .enumerate()
            .map(|(n, item)| id(&format!("{path}[{n}]"), item));
        ids.collect::<Result<_, _>>().map(Some)
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let path = self.path(name);
        self.any(name)
            .map(|value| Self::at(path, value))
            .transpose()
    }

    /// Takes an array of objects of at most `max` items.
    pub fn objects(&mut self, name: &str, max: usize) -> Result<Option<Vec<Self>>, ApiError> {
        let path = self.path(name);
        let Some(items) = self.array(name, max)? else {
            return Ok(None);
        };
        let each = items.into_iter().enumerate();
        each.map(|(n, item)| Self::at(format!("{path}[{n}]"), item))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Takes one of some words.
    pub fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let path = self.path(name);
        let Some(text) = self.string(name, usize::MAX)? else {
            return Ok(None);
        };
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| {
            invalid_value(
                &path,
                &text,
                &words.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
            )
        })
    }

    /// Takes a `type`, which must be there and one of some words.
    pub fn kind<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, ApiError> {
        self.word("type", words)?
            .ok_or_else(|| missing(&self.path("type")))
    }

    /// Takes metadata: at most 16 pairs, keys of at most 64 characters, values of at most 512.
    pub fn metadata(&mut self) -> Result<Option<Metadata>, ApiError> {
        let path = self.path("metadata");
        let Some(fields) = self.pairs("metadata", 16, 64)? else {
            return Ok(None);
        };
        let pair = |(key, value)| {
            let value = string(&format!("{path}.{key}"), value, 512)?;
            Ok((key, value))
        };
        fields
            .into_iter()
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Takes an object that may have any keys: at most `max` of them, of at most `key_max`
    /// characters.
    pub fn pairs(
        &mut self,
        name: &str,
        max: usize,
        key_max: usize,
    ) -> Result<Option<Map<String, Value>>, ApiError> {
        let path = self.path(name);
        let Some(Self { fields, .. }) = self.object(name)? else {
            return Ok(None);
        };
        if fields.len() > max {
            return Err(ApiError::invalid(format!(
                "Invalid '{path}': too many properties. Expected an object with at most {max} \
                 properties, but got an object with {} properties instead.",
                fields.len()
            ))
            .param(path)
            .code("object_above_max_properties"));
        }
        let too_long = |key: &&String| key.chars().count() > key_max;
        if let Some(key) = fields.keys().find(too_long) {
            return Err(ApiError::invalid(format!(
                "Invalid property name in '{path}': '{}...' is too long. Expected a string with \
                 maximum length {key_max}, but got a string with length {} instead.",
                key.chars().take(32).collect::<String>(),
                key.chars().count()
            ))
            .param(path)
            .code("property_name_above_max_length"));
        }
        Ok(Some(fields))
    }

    /// Everything not taken yet.
    pub fn rest(self) -> Map<String, Value> {
        self.fields
    }

    /// Ends the taking apart: what is left was unknown.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => {
                let path = self.path(name);
                Err(ApiError::invalid(format!("Unknown parameter: '{path}'."))
                    .param(path)
                    .code("unknown_parameter"))
            }
        }
    }
}

/// A string of at most `max` characters. Postgres holds no NUL, so none is taken.
pub fn string(path: &str, value: Value, max: usize) -> Result<String, ApiError> {
    let text = match value {
        Value::String(text) => text,
        other => return Err(wrong_type(path, "a string", &other)),
    };
    // A string has at most as many characters as bytes: counting is for the long ones only.
    if text.len() > max {
        let length = text.chars().count();
        if length > max {
            return Err(ApiError::invalid(format!(
                "Invalid '{path}': string too long. Expected a string with maximum length {max}, \
                 but got a string with length {length} instead."
            ))
            .param(path)
            .code("string_above_max_length"));
        }
    }
    Ok(text)
}

/// A whole number from `min` to `max`.
pub fn integer(path: &str, value: &Value, min: i64, max: i64) -> Result<i64, ApiError> {
    let number = value
        .as_i64()
        .ok_or_else(|| wrong_type(path, "an integer", value))?;
    if number < min {
        return Err(out_of_range("integer", path, false, min, value));
    }
    if number > max {
        return Err(out_of_range("integer", path, true, max, value));
    }
    Ok(number)
}

/// An id with the prefix of its kind.
pub fn id<T>(path: &str, value: Value) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
{
    let text = string(path, value, usize::MAX)?;
    text.parse().map_err(|error| wrong_id(path, &text, &error))
}

/// The documented refusal of an id of another kind.
pub fn wrong_id(path: &str, text: &str, error: &crate::domain::ids::WrongPrefix) -> ApiError {
    let shown: String = text.chars().take(64).collect();
    ApiError::invalid(format!(
        "Invalid '{path}': '{shown}'. Expected an ID that begins with '{}'.",
        error.prefix
    ))
    .param(path)
    .code("invalid_value")
}

/// The documented refusal of a word that is none of the known ones.
pub fn invalid_value(path: &str, got: &str, supported: &[&str]) -> ApiError {
    let quoted: Vec<String> = supported.iter().map(|word| format!("'{word}'")).collect();
    let list = match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [init @ .., last] => format!("{}, and {last}", init.join(", ")),
    };
    let shown: String = got.chars().take(64).collect();
    ApiError::invalid(format!(
        "Invalid value: '{shown}'. Supported values are: {list}."
    ))
    .param(path)
    .code("invalid_value")
}

/// The documented refusal of an absent field.
pub fn missing(path: &str) -> ApiError {
    ApiError::invalid(format!("Missing required parameter: '{path}'."))
        .param(path)
        .code("missing_required_parameter")
}

/// The documented refusal of a value of another type.
pub fn wrong_type(path: &str, expected: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::invalid(format!(
        "Invalid type for '{path}': expected {expected}, but got {got} instead."
    ))
    .param(path)
    .code("invalid_type")
}

fn out_of_range(
    kind: &str,
    path: &str,
    above: bool,
    bound: impl std::fmt::Display,
    got: &Value,
) -> ApiError {
    let code = match (kind, above) {
        ("integer", true) => "integer_above_max_value",
        ("integer", false) => "integer_below_min_value",
        (_, true) => "decimal_above_max_value",
        (_, false) => "decimal_below_min_value",
    };
    let (side, sign) = if above {
        ("above maximum", "<=")
    } else {
        ("below minimum", ">=")
    };
    ApiError::invalid(format!(
        "Invalid '{path}': {kind} {side} value. Expected a value {sign} {bound}, but got {got} \
         instead."
    ))
    .param(path)
    .code(code)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::at(String::new(), value).expect("tests give objects")
    }

    fn text_of<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (String, String, String) {
        let body = result.expect_err("should be refused").body();
        let part = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        (part("message"), part("param"), part("code"))
    }

    #[test]
    fn refusals_have_the_documented_texts() {
        let cases = [
            (
                text_of(object(json!({"metadata": {"modified": true}})).metadata()),
                "Invalid type for 'metadata.modified': expected a string, but got a boolean instead.",
                "metadata.modified",
                "invalid_type",
            ),
            (
                text_of(object(json!({"limit": 101})).integer("limit", 1, 100)),
                "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
                "limit",
                "integer_above_max_value",
            ),
            (
                text_of(object(json!({"max_prompt_tokens": 10})).integer(
                    "max_prompt_tokens",
                    256,
                    i64::MAX,
                )),
                "Invalid 'max_prompt_tokens': integer below minimum value. Expected a value >= 256, but got 10 instead.",
                "max_prompt_tokens",
                "integer_below_min_value",
            ),
            (
                text_of(object(json!({})).required_string("assistant_id", 10)),
                "Missing required parameter: 'assistant_id'.",
                "assistant_id",
                "missing_required_parameter",
            ),
            (
                text_of(object(json!({"name": "ééé"})).string("name", 2)),
                "Invalid 'name': string too long. Expected a string with maximum length 2, but got a string with length 3 instead.",
                "name",
                "string_above_max_length",
            ),
            (
                text_of(object(json!({"x": 1})).finish()),
                "Unknown parameter: 'x'.",
                "x",
                "unknown_parameter",
            ),
        ];
        for ((message, param, code), expected, at, class) in cases {
            assert_eq!(
                (message.as_str(), param.as_str(), code.as_str()),
                (expected, at, class)
            );
        }
        let many: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        let (message, ..) = text_of(object(json!({"metadata": many})).metadata());
        assert_eq!(
            message,
            "Invalid 'metadata': too many properties. Expected an object with at most 16 \
             properties, but got an object with 17 properties instead."
        );
    }

    #[test]
    fn null_counts_as_absent() {
        let mut body = object(json!({"name": null}));
        assert!(body.has("name"));
        assert_eq!(body.string("name", 5).ok(), Some(None));
        assert!(body.finish().is_ok());
    }
}
