//! JSON for a JSON Schema, from the values that a message states and from the schema.

use serde_json::{Map, Number, Value};

use crate::message_values::{MessageValues, takes_whole_message};

/// Objects nested deeper than this have their required properties only, so that recursive schemas
/// end.
const MAX_DEPTH: u32 = 6;
const MAX_ARRAY: usize = 10;

/// Arguments for a function: the required properties, and optional ones that the message states.
pub(crate) fn arguments(parameters: &Value, values: MessageValues) -> Value {
    let mut generator = Generator {
        root: parameters,
        values,
        has_every_property: false,
    };
    match generator.value(parameters, "", 0) {
        object @ Value::Object(_) => object,
        _ => Value::Object(Map::new()),
    }
}

/// A document for a response format, with every property of the schema.
pub(crate) fn document(schema: &Value, values: MessageValues) -> Value {
    let mut generator = Generator {
        root: schema,
        values,
        has_every_property: true,
    };
    generator.value(schema, "", 0)
}

/// Whether exactly one required property takes a name from the message.
pub(crate) fn takes_one_name(parameters: &Value) -> bool {
    let required = parameters["required"].as_array().into_iter().flatten();
    let takes_name = |name: &&str| {
        let schema = &parameters["properties"][name];
        schema["type"] == "string"
            && schema.get("enum").is_none()
            && schema.get("format").is_none()
            && !takes_whole_message(name)
    };
    required
        .filter_map(Value::as_str)
        .filter(takes_name)
        .count()
        == 1
}

struct Generator<'a> {
    root: &'a Value,
    values: MessageValues,
    has_every_property: bool,
}

impl<'a> Generator<'a> {
    fn value(&mut self, schema: &'a Value, name: &str, depth: u32) -> Value {
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(options) = schema["enum"].as_array() {
            return self
                .values
                .option(options)
                .or_else(|| options.first().cloned())
                .unwrap_or(Value::Null);
        }
        if let Some(target) = schema["$ref"].as_str() {
            let target = target
                .strip_prefix('#')
                .and_then(|pointer| self.root.pointer(pointer));
            return match target {
                Some(target) if depth <= 2 * MAX_DEPTH => self.value(target, name, depth + 1),
                Some(_) | None => Value::Null,
            };
        }
        for union in ["anyOf", "oneOf"] {
            if let Some(options) = schema[union].as_array() {
                let is_null = |option: &&Value| option["type"] == "null";
                if depth > MAX_DEPTH && options.iter().any(|option| is_null(&option)) {
                    return Value::Null;
                }
                let first = options.iter().find(|option| !is_null(option));
                return first.map_or(Value::Null, |option| self.value(option, name, depth + 1));
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut merged = Map::new();
            for part in parts {
                match self.value(part, name, depth + 1) {
                    Value::Object(fields) => merged.extend(fields),
                    other if parts.len() == 1 => return other,
                    _ => {}
                }
            }
            merged.extend(self.object(schema, depth));
            return Value::Object(merged);
        }
        match kind(schema) {
            "object" => Value::Object(self.object(schema, depth)),
            "array" => self.array(schema, name, depth),
            "integer" => self.number(schema, true),
            "number" => self.number(schema, false),
            "boolean" => schema.get("default").cloned().unwrap_or(Value::Bool(true)),
            "null" => Value::Null,
            _ => Value::String(self.string(schema, name)),
        }
    }

    fn object(&mut self, schema: &'a Value, depth: u32) -> Map<String, Value> {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.contains(&name.as_str());
            let is_included = is_required
                || (self.has_every_property && depth <= MAX_DEPTH)
                || (!self.has_every_property && self.is_stated(property, required.is_empty()));
            if is_included {
                fields.insert(name.clone(), self.value(property, name, depth + 1));
            }
        }
        fields
    }

    fn is_stated(&self, property: &Value, nothing_required: bool) -> bool {
        if let Some(options) = property["enum"].as_array() {
            return self.values.option(options).is_some();
        }
        nothing_required
            && match kind(property) {
                "integer" | "number" => self.values.number_count() > 0,
                "string" => self.values.names().len() > 0,
                _ => false,
            }
    }

    fn array(&mut self, schema: &'a Value, name: &str, depth: u32) -> Value {
        static ANYTHING: Value = Value::Bool(true);
        let limit = |field: &str| schema[field].as_u64().and_then(|n| usize::try_from(n).ok());
        let min = limit("minItems").unwrap_or(0).min(MAX_ARRAY);
        let max = limit("maxItems").unwrap_or(MAX_ARRAY).max(min);
        if depth > MAX_DEPTH && min == 0 {
            return Value::Array(Vec::new());
        }
        let items = schema.get("items").unwrap_or(&ANYTHING);
        let stated = match kind(items) {
            "string" if items.get("enum").is_none() => self.values.names().len(),
            "integer" | "number" => self.values.number_count(),
            _ => 0,
        };
        let length = stated.max(1).clamp(min, max);
        Value::Array(
            (0..length)
                .map(|_| self.value(items, name, depth + 1))
                .collect(),
        )
    }

    fn number(&mut self, schema: &Value, whole: bool) -> Value {
        let bound = |field: &str| schema[field].as_f64();
        let step = bound("multipleOf")
            .filter(|step| *step > 0.0)
            .or(whole.then_some(1.0));
        let margin = step.unwrap_or(0.5);
        let min = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|min| min + margin));
        let max = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|max| max - margin));
        let fits = |number: f64| {
            min.is_none_or(|min| number >= min)
                && max.is_none_or(|max| number <= max)
                && (!whole || number.fract() == 0.0)
        };
        let number = self.values.take_number(fits).unwrap_or_else(|| {
            let default = schema["default"].as_f64().unwrap_or(1.0);
            let number = default.max(min.unwrap_or(default));
            number.min(max.unwrap_or(number))
        });
        let number = step.map_or(number, |step| (number / step).round() * step);
        if whole || number.fract() == 0.0 {
            return Value::from(number as i64);
        }
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        let text = match schema["format"].as_str() {
            Some(format) => self.values.formatted(format),
            None => None,
        };
        let text = text
            .or_else(|| self.values.take_text(name))
            .or_else(|| schema["default"].as_str().map(str::to_owned))
            .or_else(|| schema["examples"][0].as_str().map(str::to_owned))
            .unwrap_or_else(|| {
                if name.is_empty() {
                    "text".to_owned()
                } else {
                    format!("some {name}")
                }
            });
        let limit = |field: &str| schema[field].as_u64().and_then(|n| usize::try_from(n).ok());
        let length = text.chars().count();
        match (limit("minLength"), limit("maxLength")) {
            (_, Some(max)) if length > max => text.chars().take(max).collect(),
            (Some(min), _) if length < min => text + &".".repeat((min - length).min(1_000)),
            _ => text,
        }
    }
}

/// The type of a schema: the first that is not null, or the one that its keywords imply.
fn kind(schema: &Value) -> &str {
    let stated = match &schema["type"] {
        Value::String(kind) => Some(kind.as_str()),
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            kinds
                .clone()
                .find(|kind| *kind != "null")
                .or_else(|| kinds.next())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    stated.unwrap_or_else(|| {
        if schema.get("properties").is_some() {
            "object"
        } else if schema.get("items").is_some() {
            "array"
        } else {
            "string"
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(parameters: &Value, message: &str) -> Value {
        super::arguments(parameters, MessageValues::of(message))
    }

    fn document(schema: &Value, message: &str) -> Value {
        super::document(schema, MessageValues::of(message))
    }

    #[test]
    fn arguments_take_what_the_message_gives() {
        let weather = json!({"type": "object", "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer"},
        }, "required": ["city"]});
        let cases = [
            (
                "What is the weather in San Francisco?",
                json!({"city": "San Francisco"}),
            ),
            (
                "Weather in Paris in Fahrenheit, please",
                json!({"city": "Paris", "unit": "fahrenheit"}),
            ),
            ("how is the weather in oslo", json!({"city": "oslo"})),
            ("weather for 'New York'", json!({"city": "New York"})),
            ("weather?", json!({"city": "some city"})),
        ];
        for (message, expected) in cases {
            assert_eq!(arguments(&weather, message), expected, "{message}");
        }
        let add = json!({"type": "object", "properties": {
            "a": {"type": "number"}, "b": {"type": "integer", "maximum": 10},
        }, "required": ["a", "b"]});
        assert_eq!(arguments(&add, "add 2.5 and 7"), json!({"a": 2.5, "b": 7}));
        assert_eq!(arguments(&add, "add -3"), json!({"a": -3, "b": 1}));
        let search = json!({"type": "object", "properties": {"query": {"type": "string"}}});
        assert_eq!(arguments(&search, "Search for rust"), json!({}));
        let search = json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]});
        assert_eq!(
            arguments(&search, "Who is Ann?"),
            json!({"query": "Who is Ann?"})
        );
        for nothing in [
            json!(null),
            json!({}),
            json!({"type": "object", "properties": {}}),
        ] {
            assert_eq!(arguments(&nothing, "hello"), json!({}), "{nothing}");
        }
    }

    #[test]
    fn a_document_has_every_property_within_its_bounds() {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 3},
            "age": {"type": "integer", "minimum": 18},
            "ratio": {"type": "number", "exclusiveMinimum": 1},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 3},
            "ok": {"type": ["null", "boolean"]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "when": {"type": "string", "format": "date"},
            "kind": {"const": "person"},
            "level": {"enum": [3, 4]},
            "choice": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
            "both": {"allOf": [{"properties": {"x": {"type": "null"}}}, {"$ref": "#/$defs/point"}]},
        }, "$defs": {"point": {"type": "object", "properties": {"y": {"type": "integer", "default": 9}}}}});
        assert_eq!(
            document(&schema, "hi"),
            json!({
                "name": "som", "age": 18, "ratio": 1.5, "even": 4, "ok": true,
                "tags": ["some tags", "some tags"], "when": "2025-01-01", "kind": "person",
                "level": 3, "choice": {"y": 9}, "both": {"x": null, "y": 9},
            })
        );
    }

    #[test]
    fn recursive_schemas_come_to_an_end() {
        let tree = json!({"type": "object", "required": ["next", "children"], "properties": {
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#"}},
        }});
        assert!(document(&tree, "x").is_object());
        let endless =
            json!({"type": "object", "required": ["self"], "properties": {"self": {"$ref": "#"}}});
        assert!(document(&endless, "x").is_object());
    }
}
