//! Parses JSON objects field by field.
//!
//! An [`Object`] is emptied by taking its fields; what is left at the end is refused as unknown.
//! Until it is taken, a field is a slice of the request body, see [`Json`].

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::domain::Metadata;
use crate::domain::ids::WrongPrefix;
use crate::wire::ParseError;
use crate::wire::json::{Fields, Json, JsonType};
use crate::wire::refusal::{invalid_value, missing, too_many, wrong_type};
use crate::wire::value;

/// Maximum number of values in a request body that is passed through to a model.
pub const MAX_PASSTHROUGH_VALUES: usize = 500_000;

const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

/// The fields of a JSON object that are not taken yet, and the object's path in its request.
#[derive(Debug)]
pub struct Object {
    path: String,
    fields: Fields,
}

impl Object {
    pub fn from_fields(fields: Map<String, Value>) -> Self {
        let kept = fields
            .into_iter()
            .map(|(name, value)| (name, Json::Tree(value)));
        Self {
            path: String::new(),
            fields: Fields {
                kept: kept.collect(),
                surplus: 0,
            },
        }
    }

    pub fn from_body(body: Json) -> Result<Self, ParseError> {
        if body.json_type() == JsonType::Object {
            return Self::at(String::new(), body);
        }
        let excerpt = body.excerpt();
        Err(ParseError::new(format!(
            "Invalid body: expected a JSON object, but got {excerpt} instead."
        )))
    }

    /// Parses a value inside a body, at `path`.
    pub fn at(path: String, value: impl Into<Json>) -> Result<Self, ParseError> {
        let value = value.into();
        let json_type = value.json_type();
        match value.fields()? {
            Some(fields) => Ok(Self { path, fields }),
            None => Err(wrong_type(&path, "an object", json_type)),
        }
    }

    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Whether the field is present, even as null.
    pub fn has(&self, name: &str) -> bool {
        self.fields.kept.iter().any(|(key, _)| key == name)
    }

    /// Takes a field whose null differs from its absence: `None` if it is absent, otherwise the
    /// result of `take`.
    pub fn nullable<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&mut Self, &str) -> Result<Option<T>, ParseError>,
    ) -> Result<Option<Option<T>>, ParseError> {
        match self.has(name) {
            true => take(self, name).map(Some),
            false => Ok(None),
        }
    }

    /// Takes a field without parsing it. Null counts as absent, here and in all methods below,
    /// whose bounds `min` and `max` are inclusive. Lengths are in characters.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        let index = self.fields.kept.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.fields.kept.remove(index);
        (value.json_type() != JsonType::Null).then_some(value)
    }

    pub fn required(&mut self, name: &str) -> Result<Json, ParseError> {
        self.take(name).ok_or_else(|| missing(&self.path(name)))
    }

    pub fn arbitrary_object(&mut self, name: &str) -> Result<Option<Value>, ParseError> {
        let path = self.path(name);
        match self.take(name) {
            None => Ok(None),
            Some(value) if value.json_type() == JsonType::Object => {
                value::arbitrary(&path, value).map(Some)
            }
            Some(other) => Err(wrong_type(&path, "an object", other.json_type())),
        }
    }

    pub fn check_value_count(&self, name: &str) -> Result<(), ParseError> {
        let field = self.fields.kept.iter().find(|(key, _)| key == name);
        match field {
            Some((_, value)) => value::check_value_count(&self.path(name), value),
            None => Ok(()),
        }
    }

    pub fn string(&mut self, name: &str, max: usize) -> Result<Option<String>, ParseError> {
        self.take(name)
            .map(|value| value::string(&self.path(name), value, max))
            .transpose()
    }

    pub fn required_string(&mut self, name: &str, max: usize) -> Result<String, ParseError> {
        value::string(&self.path(name), self.required(name)?, max)
    }

    pub fn id<T>(&mut self, name: &str) -> Result<Option<T>, ParseError>
    where
        T: FromStr<Err = WrongPrefix>,
    {
        self.take(name)
            .map(|value| value::id(&self.path(name), value))
            .transpose()
    }

    pub fn required_id<T>(&mut self, name: &str) -> Result<T, ParseError>
    where
        T: FromStr<Err = WrongPrefix>,
    {
        value::id(&self.path(name), self.required(name)?)
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ParseError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) if value.json_type() == JsonType::Boolean => value.read().map(Some),
            Some(other) => Err(wrong_type(&self.path(name), "a boolean", other.json_type())),
        }
    }

    pub fn decimal(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f64>, ParseError> {
        self.take(name)
            .map(|value| value::decimal(&self.path(name), value, min, max))
            .transpose()
    }

    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ParseError> {
        self.take(name)
            .map(|value| value::integer(&self.path(name), value, min, max))
            .transpose()
    }

    pub fn array_of<T>(
        &mut self,
        name: &str,
        max: usize,
        mut parse: impl FnMut(String, Json) -> Result<T, ParseError>,
    ) -> Result<Option<Vec<T>>, ParseError> {
        let path = self.path(name);
        let Some(array) = self.take(name) else {
            return Ok(None);
        };
        value::array(&path, array, max, |index, item| {
            parse(format!("{path}[{index}]"), item)
        })
        .map(Some)
    }

    pub fn array(&mut self, name: &str, max: usize) -> Result<Option<Vec<Json>>, ParseError> {
        self.array_of(name, max, |_, item| Ok(item))
    }

    pub fn ids<T>(&mut self, name: &str, max: usize) -> Result<Option<Vec<T>>, ParseError>
    where
        T: FromStr<Err = WrongPrefix>,
    {
        self.array_of(name, max, |path, item| value::id(&path, item))
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ParseError> {
        let path = self.path(name);
        self.take(name)
            .map(|value| Self::at(path, value))
            .transpose()
    }

    pub fn objects(&mut self, name: &str, max: usize) -> Result<Option<Vec<Self>>, ParseError> {
        self.array_of(name, max, Self::at)
    }

    /// Takes a string that must be one of `variants`; returns the value that stands for it.
    pub fn enum_value<T: Copy>(
        &mut self,
        name: &str,
        variants: &[(&str, T)],
    ) -> Result<Option<T>, ParseError> {
        let path = self.path(name);
        let Some(text) = self.string(name, usize::MAX)? else {
            return Ok(None);
        };
        match variants.iter().find(|(variant, _)| *variant == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let supported: Vec<&str> = variants.iter().map(|(variant, _)| *variant).collect();
                Err(invalid_value(&path, &text, &supported))
            }
        }
    }

    pub fn type_tag<T: Copy>(&mut self, variants: &[(&str, T)]) -> Result<T, ParseError> {
        self.enum_value("type", variants)?
            .ok_or_else(|| missing(&self.path("type")))
    }

    /// Takes `metadata`: at most 16 pairs, keys of at most 64 characters, values of at most 512.
    pub fn metadata(&mut self) -> Result<Option<Metadata>, ParseError> {
        let path = self.path("metadata");
        let Some(entries) = self.entries("metadata", MAX_METADATA_PAIRS, MAX_METADATA_KEY)? else {
            return Ok(None);
        };
        let pair = |(key, value)| {
            let value = value::string(&format!("{path}.{key}"), value, MAX_METADATA_VALUE)?;
            Ok((key, value))
        };
        entries
            .into_iter()
            .map(pair)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Takes an object with arbitrary keys: at most `max` of them, of at most `max_key` characters.
    pub fn entries(
        &mut self,
        name: &str,
        max: usize,
        max_key: usize,
    ) -> Result<Option<Vec<(String, Json)>>, ParseError> {
        let path = self.path(name);
        let Some(Self { fields, .. }) = self.object(name)? else {
            return Ok(None);
        };
        let count = fields.kept.len() + fields.surplus;
        if count > max {
            return Err(ParseError::new(format!(
                "Invalid '{path}': too many properties. Expected an object with at most {max} \
                 properties, but got an object with {count} properties instead."
            ))
            .param(path)
            .code("object_above_max_properties"));
        }
        let is_too_long = |(key, _): &&(String, Json)| key.chars().count() > max_key;
        if let Some((key, _)) = fields.kept.iter().find(is_too_long) {
            return Err(ParseError::new(format!(
                "Invalid property name in '{path}': '{}...' is too long. Expected a string with \
                 maximum length {max_key}, but got a string with length {} instead.",
                key.chars().take(32).collect::<String>(),
                key.chars().count()
            ))
            .param(path)
            .code("property_name_above_max_length"));
        }
        Ok(Some(fields.kept))
    }

    pub fn remaining(self) -> Result<Map<String, Value>, ParseError> {
        const SUBJECT: &str = "The request body";
        if self.fields.surplus > 0 {
            return Err(too_many(SUBJECT, "fields"));
        }
        let mut budget = MAX_PASSTHROUGH_VALUES;
        let mut remaining = Map::new();
        for (name, value) in self.fields.kept {
            budget = budget
                .checked_sub(value.value_count())
                .ok_or_else(|| too_many(SUBJECT, "values"))?;
            remaining.insert(name, value.read()?);
        }
        Ok(remaining)
    }

    pub fn finish(self) -> Result<(), ParseError> {
        match self.fields.kept.first() {
            None => Ok(()),
            Some((name, _)) => {
                let path = self.path(name);
                Err(ParseError::new(format!("Unknown parameter: '{path}'."))
                    .param(path)
                    .code("unknown_parameter"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        let body = Json::parse_body(value.to_string().into());
        let body = body.and_then(Object::from_body);
        body.expect("the test passes an object")
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, ParseError>) -> (String, String, String) {
        let error = result.expect_err("the value is invalid");
        (
            error.message,
            error.param.unwrap_or_default(),
            error.code.unwrap_or_default().to_owned(),
        )
    }

    #[test]
    fn refusals_have_the_documented_texts() {
        let cases = [
            (
                refusal(object(json!({"metadata": {"modified": true}})).metadata()),
                "Invalid type for 'metadata.modified': expected a string, but got a boolean instead.",
                "metadata.modified",
                "invalid_type",
            ),
            (
                refusal(object(json!({"limit": 101})).integer("limit", 1, 100)),
                "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
                "limit",
                "integer_above_max_value",
            ),
            (
                refusal(object(json!({"max_prompt_tokens": 10})).integer(
                    "max_prompt_tokens",
                    256,
                    i64::MAX,
                )),
                "Invalid 'max_prompt_tokens': integer below minimum value. Expected a value >= 256, but got 10 instead.",
                "max_prompt_tokens",
                "integer_below_min_value",
            ),
            (
                refusal(object(json!({})).required_string("assistant_id", 10)),
                "Missing required parameter: 'assistant_id'.",
                "assistant_id",
                "missing_required_parameter",
            ),
            (
                refusal(object(json!({"name": "ééé"})).string("name", 2)),
                "Invalid 'name': string too long. Expected a string with maximum length 2, but got a string with length 3 instead.",
                "name",
                "string_above_max_length",
            ),
            (
                refusal(object(json!({"x": 1})).finish()),
                "Unknown parameter: 'x'.",
                "x",
                "unknown_parameter",
            ),
        ];
        for ((message, param, code), expected_message, expected_param, expected_code) in cases {
            assert_eq!(
                (message.as_str(), param.as_str(), code.as_str()),
                (expected_message, expected_param, expected_code)
            );
        }
        let many: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        let (message, ..) = refusal(object(json!({"metadata": many})).metadata());
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
