//! Takes request bodies apart, refusing what the contract refuses with the texts, parameters and
//! codes that clients know.
//!
//! An [`Object`] is emptied field by field; what is left at the end was unknown. Until a field is
//! taken it is a part of the body's text, see [`Json`].

use std::ops::ControlFlow;

use serde_json::{Map, Value};

use crate::domain::Metadata;
use crate::wire::ParseError;
use crate::wire::json::{Fields, Json, Kind};

/// Most values of a tree that a whole request may become, for the routes that pass it on.
pub const PASSED_VALUES_MAX: usize = 500_000;

/// Most values of the caller's own JSON, such as the schemas of functions, in one request.
const OWN_VALUES_MAX: usize = 50_000;

/// What one value of a tree takes in memory at most, while the array that it is in grows.
pub const VALUE_BYTES: usize = 2 * size_of::<Value>();

/// A JSON object on its way to a typed request.
#[derive(Debug)]
pub struct Object {
    path: String,
    fields: Fields,
}

impl Object {
    /// An object of the program's own.
    pub fn body(fields: Map<String, Value>) -> Self {
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

    /// The body of a request.
    pub fn of_body(body: Json) -> Result<Self, ParseError> {
        if body.kind() == Kind::Object {
            return Self::at(String::new(), body);
        }
        let excerpt = body.excerpt();
        Err(ParseError::new(format!(
            "Invalid body: expected a JSON object, but got {excerpt} instead."
        )))
    }

    /// A value inside a body, at `path`.
    pub fn at(path: String, value: impl Into<Json>) -> Result<Self, ParseError> {
        let value = value.into();
        let kind = value.kind();
        match value.fields()? {
            Some(fields) => Ok(Self { path, fields }),
            None => Err(wrong_type(&path, "an object", kind)),
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
        self.fields.kept.iter().any(|(given, _)| given == name)
    }

    /// Takes a field for which null has a meaning of its own: `None` if it is absent, otherwise what
    /// `take` makes of it.
    pub fn given<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&mut Self, &str) -> Result<Option<T>, ParseError>,
    ) -> Result<Option<Option<T>>, ParseError> {
        match self.has(name) {
            true => take(self, name).map(Some),
            false => Ok(None),
        }
    }

    /// Takes the field as it is; null counts as absent.
    pub fn any(&mut self, name: &str) -> Option<Json> {
        let at = self
            .fields
            .kept
            .iter()
            .position(|(given, _)| given == name)?;
        let (_, value) = self.fields.kept.remove(at);
        (value.kind() != Kind::Null).then_some(value)
    }

    /// Takes a field that must be there.
    pub fn required(&mut self, name: &str) -> Result<Json, ParseError> {
        self.any(name).ok_or_else(|| missing(&self.path(name)))
    }

    /// Takes an object that is the caller's own, with any keys and values.
    pub fn own_object(&mut self, name: &str) -> Result<Option<Value>, ParseError> {
        let path = self.path(name);
        match self.any(name) {
            None => Ok(None),
            Some(value) if value.kind() == Kind::Object => tree(&path, value).map(Some),
            Some(other) => Err(wrong_type(&path, "an object", other.kind())),
        }
    }

    /// Refuses a field that has more values than the caller's own JSON may have in one request.
    pub fn check_size(&self, name: &str) -> Result<(), ParseError> {
        let field = self.fields.kept.iter().find(|(given, _)| given == name);
        match field {
            Some((_, value)) => check_size(&self.path(name), value, OWN_VALUES_MAX),
            None => Ok(()),
        }
    }

    /// Takes a string of at most `max` characters.
    pub fn string(&mut self, name: &str, max: usize) -> Result<Option<String>, ParseError> {
        self.any(name)
            .map(|value| string(&self.path(name), value, max))
            .transpose()
    }

    /// Takes a string that must be there.
    pub fn required_string(&mut self, name: &str, max: usize) -> Result<String, ParseError> {
        string(&self.path(name), self.required(name)?, max)
    }

    /// Takes an id that must be there.
    pub fn required_id<T>(&mut self, name: &str) -> Result<T, ParseError>
    where
        T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
    {
        let path = self.path(name);
        id(&path, self.required(name)?)
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ParseError> {
        match self.any(name) {
            None => Ok(None),
            Some(value) if value.kind() == Kind::Boolean => value.read().map(Some),
            Some(other) => Err(wrong_type(&self.path(name), "a boolean", other.kind())),
        }
    }

    /// Takes a number from `min` to `max`.
    pub fn decimal(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f64>, ParseError> {
        let Some(value) = self.any(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        let value = scalar(&path, "a decimal", value)?;
        let wrong = || wrong_type(&path, "a decimal", kind_of(&value));
        let number = value.as_f64().ok_or_else(wrong)?;
        if number < min {
            return Err(out_of_range("decimal", &path, false, min, &value));
        }
        if number > max {
            return Err(out_of_range("decimal", &path, true, max, &value));
        }
        Ok(Some(number))
    }

    /// Takes a whole number from `min` to `max`.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ParseError> {
        let Some(value) = self.any(name) else {
            return Ok(None);
        };
        let path = self.path(name);
        let value = scalar(&path, "an integer", value)?;
        integer(&path, &value, min, max).map(Some)
    }

    /// Takes an array of at most `max` items.
    pub fn array(&mut self, name: &str, max: usize) -> Result<Option<Vec<Json>>, ParseError> {
        self.array_of(name, max, |_, item| Ok(item))
    }

    /// Takes an array of at most `max` items, each of which is parsed before the next one is read, so
    /// that an array of many items takes no more memory than what they become.
    pub fn array_of<T>(
        &mut self,
        name: &str,
        max: usize,
        mut parse: impl FnMut(String, Json) -> Result<T, ParseError>,
    ) -> Result<Option<Vec<T>>, ParseError> {
        let path = self.path(name);
        let Some(value) = self.any(name) else {
            return Ok(None);
        };
        items(&path, value, max, |n, item| {
            parse(format!("{path}[{n}]"), item)
        })
        .map(Some)
    }

    /// Takes an array of ids.
    pub fn ids<T>(&mut self, name: &str, max: usize) -> Result<Option<Vec<T>>, ParseError>
    where
        T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
    {
        self.array_of(name, max, |path, item| id(&path, item))
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ParseError> {
        let path = self.path(name);
        self.any(name)
            .map(|value| Self::at(path, value))
            .transpose()
    }

    /// Takes an array of objects of at most `max` items.
    pub fn objects(&mut self, name: &str, max: usize) -> Result<Option<Vec<Self>>, ParseError> {
        self.array_of(name, max, Self::at)
    }

    /// Takes one of some words.
    pub fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ParseError> {
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
    pub fn kind<T: Copy>(&mut self, words: &[(&str, T)]) -> Result<T, ParseError> {
        self.word("type", words)?
            .ok_or_else(|| missing(&self.path("type")))
    }

    /// Takes metadata: at most 16 pairs, keys of at most 64 characters, values of at most 512.
    pub fn metadata(&mut self) -> Result<Option<Metadata>, ParseError> {
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
    ) -> Result<Option<Vec<(String, Json)>>, ParseError> {
        let path = self.path(name);
        let Some(Self { fields, .. }) = self.object(name)? else {
            return Ok(None);
        };
        let number = fields.kept.len() + fields.surplus;
        if number > max {
            return Err(ParseError::new(format!(
                "Invalid '{path}': too many properties. Expected an object with at most {max} \
                 properties, but got an object with {number} properties instead."
            ))
            .param(path)
            .code("object_above_max_properties"));
        }
        let too_long = |(key, _): &&(String, Json)| key.chars().count() > key_max;
        if let Some((key, _)) = fields.kept.iter().find(too_long) {
            return Err(ParseError::new(format!(
                "Invalid property name in '{path}': '{}...' is too long. Expected a string with \
                 maximum length {key_max}, but got a string with length {} instead.",
                key.chars().take(32).collect::<String>(),
                key.chars().count()
            ))
            .param(path)
            .code("property_name_above_max_length"));
        }
        Ok(Some(fields.kept))
    }

    /// Everything not taken yet, for requests that are passed on.
    pub fn rest(self) -> Result<Map<String, Value>, ParseError> {
        if self.fields.surplus > 0 {
            return Err(too_large("The request body", "fields"));
        }
        let mut room = PASSED_VALUES_MAX;
        let mut rest = Map::new();
        for (name, value) in self.fields.kept {
            room = room
                .checked_sub(value.size())
                .ok_or_else(|| too_large("The request body", "values"))?;
            rest.insert(name, value.read()?);
        }
        Ok(rest)
    }

    /// Ends the taking apart: what is left was unknown.
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

/// The items of an array of at most `max`, parsed one after the other.
pub fn items<T>(
    path: &str,
    array: Json,
    max: usize,
    mut parse: impl FnMut(usize, Json) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    if array.kind() != Kind::Array {
        return Err(wrong_type(path, "an array", array.kind()));
    }
    let mut parsed = Vec::new();
    let mut number = 0;
    let refusal = array.items(|item| {
        number += 1;
        if number > max {
            return ControlFlow::Continue(());
        }
        match parse(number - 1, item) {
            Ok(item) => {
                parsed.push(item);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    })?;
    if number > max {
        return Err(ParseError::new(format!(
            "Invalid '{path}': array too long. Expected an array with maximum length {max}, but got \
             an array with length {number} instead."
        ))
        .param(path)
        .code("array_above_max_length"));
    }
    refusal.map_or(Ok(parsed), Err)
}

/// A value of the caller's own, as a tree.
pub fn tree(path: &str, value: Json) -> Result<Value, ParseError> {
    check_size(path, &value, OWN_VALUES_MAX)?;
    value.read()
}

fn check_size(path: &str, value: &Json, max: usize) -> Result<(), ParseError> {
    if value.size() <= max {
        return Ok(());
    }
    Err(too_large(&format!("'{path}'"), "values").param(path))
}

fn too_large(what: &str, of: &str) -> ParseError {
    ParseError::new(format!("Invalid body: {what} has too many {of}.")).code("invalid_value")
}

/// A value that is neither an array nor an object.
fn scalar(path: &str, expected: &str, value: Json) -> Result<Value, ParseError> {
    match value.kind() {
        Kind::Null | Kind::Boolean | Kind::Integer | Kind::Decimal | Kind::String => value.read(),
        kind @ (Kind::Array | Kind::Object) => Err(wrong_type(path, expected, kind)),
    }
}

fn kind_of(value: &Value) -> Kind {
    Json::from(value.clone()).kind()
}

/// A string of at most `max` characters.
pub fn string(path: &str, value: impl Into<Json>, max: usize) -> Result<String, ParseError> {
    let value = value.into();
    if value.kind() != Kind::String {
        return Err(wrong_type(path, "a string", value.kind()));
    }
    let length = if max == usize::MAX {
        0
    } else {
        value.characters()
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

/// A whole number from `min` to `max`.
pub fn integer(path: &str, value: &Value, min: i64, max: i64) -> Result<i64, ParseError> {
    let wrong = || wrong_type(path, "an integer", kind_of(value));
    let number = value.as_i64().ok_or_else(wrong)?;
    if number < min {
        return Err(out_of_range("integer", path, false, min, value));
    }
    if number > max {
        return Err(out_of_range("integer", path, true, max, value));
    }
    Ok(number)
}

/// An id with the prefix of its kind.
pub fn id<T>(path: &str, value: impl Into<Json>) -> Result<T, ParseError>
where
    T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
{
    let text = string(path, value, usize::MAX)?;
    text.parse().map_err(|error| wrong_id(path, &text, &error))
}

/// The documented refusal of an id of another kind.
pub fn wrong_id(path: &str, text: &str, error: &crate::domain::ids::WrongPrefix) -> ParseError {
    let shown: String = text.chars().take(64).collect();
    ParseError::new(format!(
        "Invalid '{path}': '{shown}'. Expected an ID that begins with '{}'.",
        error.prefix
    ))
    .param(path)
    .code("invalid_value")
}

/// The documented refusal of a word that is none of the known ones.
pub fn invalid_value(path: &str, got: &str, supported: &[&str]) -> ParseError {
    let quoted: Vec<String> = supported.iter().map(|word| format!("'{word}'")).collect();
    let list = match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [init @ .., last] => format!("{}, and {last}", init.join(", ")),
    };
    let shown: String = got.chars().take(64).collect();
    ParseError::new(format!(
        "Invalid value: '{shown}'. Supported values are: {list}."
    ))
    .param(path)
    .code("invalid_value")
}

/// The documented refusal of an absent field.
pub fn missing(path: &str) -> ParseError {
    ParseError::new(format!("Missing required parameter: '{path}'."))
        .param(path)
        .code("missing_required_parameter")
}

/// The documented refusal of a value of another type.
pub fn wrong_type(path: &str, expected: &str, got: Kind) -> ParseError {
    let got = match got {
        Kind::Null => "null",
        Kind::Boolean => "a boolean",
        Kind::Decimal => "a decimal",
        Kind::Integer => "an integer",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    };
    ParseError::new(format!(
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
) -> ParseError {
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
    ParseError::new(format!(
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
        let body = Json::of_body(value.to_string().into());
        let body = body.and_then(Object::of_body);
        body.expect("tests give objects")
    }

    fn text_of<T: std::fmt::Debug>(result: Result<T, ParseError>) -> (String, String, String) {
        let error = result.expect_err("should be refused");
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
