//! JSON of request bodies, read piece by piece.
//!
//! A tree of [`Value`]s takes up to fifty times the memory of its text. So a value stays a slice of
//! the body until its type is known, and is then read into that type. Trees are built only of JSON
//! that is the caller's own, such as a function's schema, up to a number of values.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::ParseError;

/// Deepest nesting of arrays and objects.
const DEPTH_MAX: usize = 128;

/// Most fields of an object that are kept. No object of the API has nearly as many, so one with more
/// has unknown ones, and those behind are only counted.
const FIELDS_MAX: usize = 256;

/// A JSON value.
#[derive(Debug, Clone)]
pub enum Json {
    /// Its text: one value without space around it, part of a request body.
    Text(Bytes),
    /// A tree.
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

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Decimal,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// The fields of an object.
#[derive(Debug, Default)]
pub struct Fields {
    /// Names and values; each name once, with its last value.
    pub kept: Vec<(String, Json)>,
    /// How many there are besides.
    pub surplus: usize,
}

impl Json {
    /// Checks the encoding, the nesting and the characters of a request body.
    pub fn of_body(body: Bytes) -> Result<Self, ParseError> {
        std::str::from_utf8(&body).map_err(|error| broken(&error))?;
        let outline = Outline::of(&body);
        if outline.depth > DEPTH_MAX {
            return Err(broken(&format!("it is nested deeper than {DEPTH_MAX}")));
        }
        let value: &RawValue = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        if outline.has_nul {
            return Err(ParseError::new(NUL));
        }
        Ok(Self::Text(body.slice_ref(value.get().as_bytes())))
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text(text) => match text.first() {
                Some(b'n') => Kind::Null,
                Some(b't' | b'f') => Kind::Boolean,
                Some(b'"') => Kind::String,
                Some(b'[') => Kind::Array,
                Some(b'{') => Kind::Object,
                _ if text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => Kind::Decimal,
                _ => Kind::Integer,
            },
            Self::Tree(Value::Null) => Kind::Null,
            Self::Tree(Value::Bool(_)) => Kind::Boolean,
            Self::Tree(Value::Number(number)) if number.is_f64() => Kind::Decimal,
            Self::Tree(Value::Number(_)) => Kind::Integer,
            Self::Tree(Value::String(_)) => Kind::String,
            Self::Tree(Value::Array(_)) => Kind::Array,
            Self::Tree(Value::Object(_)) => Kind::Object,
        }
    }

    /// Reads it as a type that takes no more memory than its text.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ParseError> {
        match self {
            Self::Text(text) => serde_json::from_slice(&text),
            Self::Tree(value) => serde_json::from_value(value),
        }
        .map_err(|error| broken(&error))
    }

    /// About how many values it consists of, and never fewer.
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => Outline::of(text).values,
            Self::Tree(value) => size_of_tree(value),
        }
    }

    /// The items of an array, one after the other, until `each` breaks. Anything else has none.
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
            Self::Text(text) if text.first() == Some(&b'[') => {
                let mut broke = None;
                let items = Items {
                    text: &text,
                    each: &mut each,
                    broke: &mut broke,
                };
                let read = serde_json::Deserializer::from_slice(&text).deserialize_seq(items);
                match read {
                    Err(error) if broke.is_none() => Err(broken(&error)),
                    Ok(()) | Err(_) => Ok(broke),
                }
            }
            Self::Text(_) | Self::Tree(_) => Ok(None),
        }
    }

    /// The fields of an object; `None` if it is none.
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
            Self::Text(text) if text.first() == Some(&b'{') => {
                let fields = FieldsVisitor { text: &text };
                let read = serde_json::Deserializer::from_slice(&text).deserialize_map(fields);
                read.map(Some).map_err(|error| broken(&error))
            }
            Self::Text(_) | Self::Tree(_) => Ok(None),
        }
    }

    /// How many characters a string has; 0 if it is none.
    pub fn characters(&self) -> usize {
        match self {
            Self::Tree(Value::String(text)) => text.chars().count(),
            Self::Text(text) if text.first() == Some(&b'"') => {
                characters_of(text.get(1..text.len() - 1).unwrap_or_default())
            }
            Self::Text(_) | Self::Tree(_) => 0,
        }
    }

    /// The beginning of its text, for messages.
    pub fn excerpt(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).chars().take(40).collect(),
            Self::Tree(value) => value.to_string().chars().take(40).collect(),
        }
    }
}

/// Error message for a request with a NUL character, which PostgreSQL stores neither in text nor JSON.
pub const NUL: &str = "The NUL character (\\u0000) cannot be stored; leave it out of the request.";

/// The documented refusal of a body that is no JSON.
fn broken(error: &dyn fmt::Display) -> ParseError {
    const HINT: &str = "We could not parse the JSON body of your request. (HINT: This likely \
        means you aren't using your HTTP library correctly. The OpenAI API expects a JSON \
        payload, but what was sent was not valid JSON.";
    ParseError::new(format!("{HINT} The problem: {error})"))
}

/// What a JSON text shows without being parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outline {
    /// How deep its arrays and objects are nested.
    depth: usize,
    /// At least how many values it has.
    values: usize,
    /// Whether a string of it has an escaped NUL. JSON has no other.
    has_nul: bool,
}

impl Outline {
    fn of(text: &[u8]) -> Self {
        let mut outline = Self {
            values: 1,
            ..Self::default()
        };
        let (mut depth, mut is_in_string) = (0_usize, false);
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            at += 1;
            match byte {
                b'\\' if is_in_string => {
                    outline.has_nul |= text.get(at..at + 5) == Some(b"u0000");
                    at += 1;
                }
                b'"' => is_in_string = !is_in_string,
                _ if is_in_string => {}
                b'[' | b'{' => {
                    depth += 1;
                    outline.depth = outline.depth.max(depth);
                    outline.values += 1;
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => outline.values += 1,
                _ => {}
            }
        }
        outline
    }
}

fn size_of_tree(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size_of_tree).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size_of_tree).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// The characters of a JSON string that is written like this between its quotes.
fn characters_of(mut text: &[u8]) -> usize {
    let mut characters = 0;
    while let [first, rest @ ..] = text {
        let is_continued = (0x80..0xc0).contains(first);
        characters += usize::from(!is_continued);
        text = match (first, rest) {
            // The second half of a surrogate pair makes no character of its own.
            (
                b'\\',
                [
                    b'u',
                    b'd' | b'D',
                    b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B',
                    ..,
                ],
            ) => rest.get(11..).unwrap_or_default(),
            (b'\\', [b'u', ..]) => rest.get(5..).unwrap_or_default(),
            (b'\\', _) => rest.get(1..).unwrap_or_default(),
            (_, _) => rest,
        };
    }
    characters
}

/// A part of a text that serde has found in it.
fn part(text: &Bytes, value: &RawValue) -> Json {
    Json::Text(text.slice_ref(value.get().as_bytes()))
}

struct Items<'a, E, F> {
    text: &'a Bytes,
    each: &'a mut F,
    broke: &'a mut Option<E>,
}

impl<'de, E, F: FnMut(Json) -> ControlFlow<E>> Visitor<'de> for Items<'_, E, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            if let ControlFlow::Break(reason) = (self.each)(part(self.text, item)) {
                *self.broke = Some(reason);
                return Err(A::Error::custom("the rest is not wanted"));
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
        while kept.len() < FIELDS_MAX
            && let Some((name, value)) = map.next_entry::<String, &'de RawValue>()?
        {
            let value = part(self.text, value);
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

    fn text(json: &str) -> Json {
        Json::of_body(Bytes::copy_from_slice(json.as_bytes())).expect("it is JSON")
    }

    #[test]
    fn values_are_what_they_were_in_a_tree() {
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
            let tree: Value = serde_json::from_str(given).expect("it is JSON");
            assert_eq!(
                text(given).kind(),
                Json::from(tree.clone()).kind(),
                "{given}"
            );
            assert_eq!(text(given).read::<Value>().ok(), Some(tree), "{given}");
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
            let read: String = text(&given).read().expect("it is a string");
            assert_eq!(text(&given).characters(), read.chars().count(), "{given}");
        }
    }

    #[test]
    fn the_last_of_fields_with_one_name_counts() {
        let fields = text(r#"{"a": 1, "b": 2, "a": 3}"#).fields().ok().flatten();
        let fields = fields.expect("it is an object").kept;
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
        let wide: serde_json::Map<String, Value> = (0..FIELDS_MAX + 7)
            .map(|n| (n.to_string(), json!(n)))
            .collect();
        let fields = text(&Value::Object(wide).to_string())
            .fields()
            .ok()
            .flatten();
        let fields = fields.expect("it is an object");
        assert_eq!((fields.kept.len(), fields.surplus), (FIELDS_MAX, 7));
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
        let broke = text("[1, 2, 3, 4]").items(&mut count);
        assert_eq!(broke.ok().flatten(), Some("three"));
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_text_is_outlined_without_being_parsed() {
        let outline = |depth, values, has_nul| Outline {
            depth,
            values,
            has_nul,
        };
        let cases = [
            ("1", outline(0, 1, false)),
            ("[1,2,3]", outline(1, 4, false)),
            (r#"{"a":{"b":[]},"c":"[[,"}"#, outline(3, 5, false)),
            (r#""\u0000""#, outline(0, 1, true)),
            (r#""\\u0000 \" \u0001""#, outline(0, 1, false)),
        ];
        for (given, expected) in cases {
            assert_eq!(Outline::of(given.as_bytes()), expected, "{given}");
        }
    }
}
