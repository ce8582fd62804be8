//! JSON of request bodies, parsed lazily.
//!
//! A tree of [`Value`]s takes up to fifty times the memory of its text. So a value stays a slice of
//! the body until its type is known, and is then read into that type. Trees are built only for JSON
//! whose structure the API leaves to its clients, such as a function's schema, and their number of
//! values is bounded.

mod outline;

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use self::outline::Outline;
use crate::wire::ParseError;

const MAX_DEPTH: usize = 128;

/// Maximum memory of one value in a tree, in bytes: a growing array may hold two copies.
pub const BYTES_PER_VALUE: usize = 2 * size_of::<Value>();

/// Fields of an object that are kept; those after them are only counted. No object of the API has
/// nearly as many, so one with more has unknown fields.
const MAX_FIELDS: usize = 256;

#[derive(Debug, Clone)]
pub enum Json {
    /// The text of one value without surrounding space: a slice of a request body.
    Raw(Bytes),
    Tree(Value),
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::Tree(value)
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Tree(Value::String(text))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    Null,
    Boolean,
    /// A number without fraction and exponent.
    Integer,
    Decimal,
    String,
    Array,
    Object,
}

impl JsonType {
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_f64() => Self::Decimal,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }
}

#[derive(Debug, Default)]
pub struct Fields {
    /// Names and values in order; a repeated name counts once, with its last value.
    pub kept: Vec<(String, Json)>,
    pub surplus: usize,
}

impl Json {
    /// Checks that a request body is valid JSON in UTF-8, not nested too deeply and free of NUL.
    pub fn parse_body(body: Bytes) -> Result<Self, ParseError> {
        std::str::from_utf8(&body).map_err(|error| invalid_json(&error))?;
        let outline = Outline::of(&body);
        if outline.depth > MAX_DEPTH {
            return Err(invalid_json(&format!(
                "it is nested deeper than {MAX_DEPTH}"
            )));
        }
        let value: &RawValue =
            serde_json::from_slice(&body).map_err(|error| invalid_json(&error))?;
        if outline.has_nul {
            return Err(ParseError::new(NUL_REFUSAL));
        }
        Ok(Self::Raw(body.slice_ref(value.get().as_bytes())))
    }

    pub fn json_type(&self) -> JsonType {
        match self {
            Self::Raw(text) => match text.first() {
                Some(b'n') => JsonType::Null,
                Some(b't' | b'f') => JsonType::Boolean,
                Some(b'"') => JsonType::String,
                Some(b'[') => JsonType::Array,
                Some(b'{') => JsonType::Object,
                _ if text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => {
                    JsonType::Decimal
                }
                _ => JsonType::Integer,
            },
            Self::Tree(value) => JsonType::of(value),
        }
    }

    /// Deserializes the value. The caller sees to it that `T` takes no more memory than the text,
    /// or that [`Self::value_count`] is bounded.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ParseError> {
        match self {
            Self::Raw(text) => serde_json::from_slice(&text),
            Self::Tree(value) => serde_json::from_value(value),
        }
        .map_err(|error| invalid_json(&error))
    }

    /// The number of values in it, itself included; of a text an upper bound.
    pub fn value_count(&self) -> usize {
        match self {
            Self::Raw(text) => Outline::of(text).values,
            Self::Tree(value) => tree_value_count(value),
        }
    }

    /// Calls `each` with the items of an array, one after the other, until it breaks. Other types
    /// have no items.
    pub fn items<E>(
        self,
        mut each: impl FnMut(Self) -> ControlFlow<E>,
    ) -> Result<Option<E>, ParseError> {
        match self {
            Self::Tree(Value::Array(items)) => Ok(items
                .into_iter()
                .map(Self::Tree)
                .try_for_each(each)
                .break_value()),
            Self::Raw(text) if text.first() == Some(&b'[') => {
                let mut break_value = None;
                let visitor = ItemsVisitor {
                    text: &text,
                    each: &mut each,
                    break_value: &mut break_value,
                };
                let read = serde_json::Deserializer::from_slice(&text).deserialize_seq(visitor);
                match read {
                    Err(error) if break_value.is_none() => Err(invalid_json(&error)),
                    Ok(()) | Err(_) => Ok(break_value),
                }
            }
            Self::Raw(_) | Self::Tree(_) => Ok(None),
        }
    }

    pub fn fields(self) -> Result<Option<Fields>, ParseError> {
        match self {
            Self::Tree(Value::Object(fields)) => {
                let kept = fields
                    .into_iter()
                    .map(|(name, value)| (name, Self::Tree(value)));
                Ok(Some(Fields {
                    kept: kept.collect(),
                    surplus: 0,
                }))
            }
            Self::Raw(text) if text.first() == Some(&b'{') => {
                let visitor = FieldsVisitor { text: &text };
                let read = serde_json::Deserializer::from_slice(&text).deserialize_map(visitor);
                read.map(Some).map_err(|error| invalid_json(&error))
            }
            Self::Raw(_) | Self::Tree(_) => Ok(None),
        }
    }

    pub fn char_count(&self) -> usize {
        match self {
            Self::Tree(Value::String(text)) => text.chars().count(),
            Self::Raw(text) if text.first() == Some(&b'"') => {
                outline::char_count(text.get(1..text.len() - 1).unwrap_or_default())
            }
            Self::Raw(_) | Self::Tree(_) => 0,
        }
    }

    pub fn excerpt(&self) -> String {
        match self {
            Self::Raw(text) => String::from_utf8_lossy(text).chars().take(40).collect(),
            Self::Tree(value) => value.to_string().chars().take(40).collect(),
        }
    }
}

/// Error text for requests with a NUL character, which PostgreSQL stores neither in text nor JSON.
pub const NUL_REFUSAL: &str =
    "The NUL character (\\u0000) cannot be stored; leave it out of the request.";

fn invalid_json(error: &dyn fmt::Display) -> ParseError {
    const HINT: &str = "We could not parse the JSON body of your request. (HINT: This likely \
        means you aren't using your HTTP library correctly. The OpenAI API expects a JSON \
        payload, but what was sent was not valid JSON.";
    ParseError::new(format!("{HINT} The problem: {error})"))
}

fn tree_value_count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(tree_value_count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(tree_value_count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn slice(text: &Bytes, value: &RawValue) -> Json {
    Json::Raw(text.slice_ref(value.get().as_bytes()))
}

struct ItemsVisitor<'a, E, F> {
    text: &'a Bytes,
    each: &'a mut F,
    break_value: &'a mut Option<E>,
}

impl<'de, E, F: FnMut(Json) -> ControlFlow<E>> Visitor<'de> for ItemsVisitor<'_, E, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            if let ControlFlow::Break(reason) = (self.each)(slice(self.text, item)) {
                *self.break_value = Some(reason);
                return Err(A::Error::custom("stopped by the caller"));
            }
        }
        Ok(())
    }
}

struct FieldsVisitor<'a> {
    text: &'a Bytes,
}

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let Fields {
            mut kept,
            mut surplus,
        } = Fields::default();
        while kept.len() < MAX_FIELDS
            && let Some((name, value)) = map.next_entry::<String, &'de RawValue>()?
        {
            let value = slice(self.text, value);
            match kept.iter_mut().find(|(known, _)| *known == name) {
                Some((_, earlier)) => *earlier = value,
                None => kept.push((name, value)),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            surplus += 1;
        }
        Ok(Fields { kept, surplus })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(json: &str) -> Json {
        Json::parse_body(Bytes::copy_from_slice(json.as_bytes())).expect("the test passes JSON")
    }

    #[test]
    fn values_read_the_same_from_text_and_tree() {
        for given in [
            "null",
            "true",
            "false",
            "0",
            "-1",
            "1.5",
            "1e3",
            "\"a\"",
            "[]",
            "{}",
            " [1, {\"a\": 2}] ",
        ] {
            let tree: Value = serde_json::from_str(given).expect("the test passes JSON");
            assert_eq!(
                raw(given).json_type(),
                Json::from(tree.clone()).json_type(),
                "{given}"
            );
            assert_eq!(raw(given).read::<Value>().ok(), Some(tree), "{given}");
        }
    }

    #[test]
    fn characters_are_counted_as_they_will_be_read() {
        for given in [
            "",
            "abc",
            "é",
            "\\n\\\"\\\\",
            "\\u00e9x",
            "\\ud83d\\ude00x",
            "\\uD83D\\uDE00",
            "😀",
        ] {
            let given = format!("\"{given}\"");
            let read: String = raw(&given).read().expect("the test passes a string");
            assert_eq!(raw(&given).char_count(), read.chars().count(), "{given}");
        }
    }

    #[test]
    fn the_last_of_fields_with_one_name_counts() {
        let fields = raw(r#"{"a": 1, "b": 2, "a": 3}"#).fields().ok().flatten();
        let fields = fields.expect("the test passes an object").kept;
        let read = fields
            .into_iter()
            .map(|(name, value)| (name, value.read::<Value>().ok()));
        let expected = [
            ("a".to_owned(), Some(json!(3))),
            ("b".to_owned(), Some(json!(2))),
        ];
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn fields_behind_the_first_few_hundred_are_only_counted() {
        let wide: serde_json::Map<String, Value> = (0..MAX_FIELDS + 7)
            .map(|n| (n.to_string(), json!(n)))
            .collect();
        let fields = raw(&Value::Object(wide).to_string())
            .fields()
            .ok()
            .flatten();
        let fields = fields.expect("the test passes an object");
        assert_eq!((fields.kept.len(), fields.surplus), (MAX_FIELDS, 7));
    }

    #[test]
    fn items_are_read_until_one_is_refused() {
        let mut seen = 0;
        let mut count = |item: Json| match item.read::<u32>() {
            Ok(3) => ControlFlow::Break("three"),
            Ok(_) | Err(_) => {
                seen += 1;
                ControlFlow::Continue(())
            }
        };
        let break_value = raw("[1, 2, 3, 4]").items(&mut count);
        assert_eq!(break_value.ok().flatten(), Some("three"));
        assert_eq!(seen, 2);
    }
}
