//! Filters of searches by attributes.

use crate::domain::vector_store::{AttributeValue, Comparison, Filter};
use crate::wire::ParseError;
use crate::wire::json::{Json, Kind as Type};
use crate::wire::object::{self, Object, missing};
use crate::wire::vector_store_file::attribute_value;

/// Deepest nesting of `and` and `or`.
const DEPTH_MAX: usize = 8;
/// Most comparisons in one filter.
const COMPARISONS_MAX: usize = 256;
/// Most values that an attribute is looked for among.
const VALUES_MAX: usize = 1_000;
/// Longest key of an attribute.
const KEY_MAX: usize = 64;

#[derive(Clone, Copy)]
enum Kind {
    And,
    Or,
    Compare(Comparison),
    Member { wanted: bool },
}

const KINDS: [(&str, Kind); 10] = [
    ("eq", Kind::Compare(Comparison::Eq)),
    ("ne", Kind::Compare(Comparison::Ne)),
    ("gt", Kind::Compare(Comparison::Gt)),
    ("gte", Kind::Compare(Comparison::Gte)),
    ("lt", Kind::Compare(Comparison::Lt)),
    ("lte", Kind::Compare(Comparison::Lte)),
    ("in", Kind::Member { wanted: true }),
    ("nin", Kind::Member { wanted: false }),
    ("and", Kind::And),
    ("or", Kind::Or),
];

/// Takes the filter of this name out of a body.
pub fn parse(body: &mut Object, name: &str) -> Result<Option<Filter>, ParseError> {
    let path = body.path(name);
    let Some(filter) = body.object(name)? else {
        return Ok(None);
    };
    let mut comparisons = 0;
    let filter = parse_one(filter, 1, &mut comparisons)?;
    if comparisons > COMPARISONS_MAX {
        return Err(too_much(
            path,
            format!("more than {COMPARISONS_MAX} comparisons"),
        ));
    }
    Ok(Some(filter))
}

fn parse_one(
    mut filter: Object,
    depth: usize,
    comparisons: &mut usize,
) -> Result<Filter, ParseError> {
    let parsed = match filter.kind(&KINDS)? {
        kind @ (Kind::And | Kind::Or) => {
            let path = filter.path("filters");
            if depth > DEPTH_MAX {
                return Err(too_much(path, format!("nested deeper than {DEPTH_MAX}")));
            }
            let parts = filter
                .objects("filters", COMPARISONS_MAX)?
                .ok_or_else(|| missing(&path))?;
            let parts = parts
                .into_iter()
                .map(|part| parse_one(part, depth + 1, comparisons))
                .collect::<Result<_, _>>()?;
            match kind {
                Kind::And => Filter::And(parts),
                _ => Filter::Or(parts),
            }
        }
        Kind::Compare(operator) => {
            *comparisons += 1;
            let key = filter.required_string("key", KEY_MAX)?;
            let path = filter.path("value");
            let value = attribute_value(&path, filter.required("value")?)?;
            check_order(operator, &path, &value)?;
            Filter::Compare {
                key,
                operator,
                value,
            }
        }
        Kind::Member { wanted } => {
            *comparisons += 1;
            let key = filter.required_string("key", KEY_MAX)?;
            let path = filter.path("value");
            let values = filter
                .array_of("value", VALUES_MAX, |path, value| {
                    text_or_number(&path, value)
                })?
                .ok_or_else(|| missing(&path))?;
            Filter::Member {
                key,
                values,
                wanted,
            }
        }
    };
    filter.finish()?;
    Ok(parsed)
}

/// Flags have no order.
fn check_order(operator: Comparison, path: &str, value: &AttributeValue) -> Result<(), ParseError> {
    match (operator, value) {
        (Comparison::Eq | Comparison::Ne, _)
        | (_, AttributeValue::Text(_) | AttributeValue::Number(_)) => Ok(()),
        (
            Comparison::Gt | Comparison::Gte | Comparison::Lt | Comparison::Lte,
            AttributeValue::Flag(_),
        ) => Err(object::wrong_type(
            path,
            "a string or a number",
            Type::Boolean,
        )),
    }
}

fn text_or_number(path: &str, value: Json) -> Result<AttributeValue, ParseError> {
    match value.kind() {
        Type::String | Type::Integer | Type::Decimal => attribute_value(path, value),
        other @ (Type::Null | Type::Boolean | Type::Array | Type::Object) => {
            Err(object::wrong_type(path, "a string or a number", other))
        }
    }
}

fn too_much(path: String, what: String) -> ParseError {
    ParseError::new(format!("Invalid '{path}': the filter is {what}."))
        .param(path)
        .code("invalid_value")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(filter: Value) -> Result<Option<Filter>, ParseError> {
        let body = Object::at(String::new(), json!({"filters": filter}));
        parse(&mut body.expect("it is an object"), "filters")
    }

    fn refusal(filter: Value) -> (String, String) {
        let error = parsed(filter).expect_err("it is refused");
        (
            error.param.unwrap_or_default(),
            error.code.unwrap_or_default().to_owned(),
        )
    }

    #[test]
    fn all_operators_are_understood() {
        let filter = json!({"type": "and", "filters": [
            {"type": "eq", "key": "open", "value": true},
            {"type": "gte", "key": "year", "value": 2020},
            {"type": "or", "filters": [
                {"type": "in", "key": "region", "value": ["eu", 1.5]},
                {"type": "nin", "key": "region", "value": []},
            ]},
        ]});
        let compare = |key: &str, operator, value| Filter::Compare {
            key: key.to_owned(),
            operator,
            value,
        };
        let member = |values, wanted| Filter::Member {
            key: "region".to_owned(),
            values,
            wanted,
        };
        let number = |value: Value| match value {
            Value::Number(number) => AttributeValue::Number(number),
            other => panic!("{other} is no number"),
        };
        let expected = Filter::And(vec![
            compare("open", Comparison::Eq, AttributeValue::Flag(true)),
            compare("year", Comparison::Gte, number(json!(2020))),
            Filter::Or(vec![
                member(
                    vec![AttributeValue::Text("eu".into()), number(json!(1.5))],
                    true,
                ),
                member(Vec::new(), false),
            ]),
        ]);
        assert_eq!(parsed(filter).ok().flatten(), Some(expected));
        assert_eq!(parsed(Value::Null).ok(), Some(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_where_it_stands() {
        let refused = |filter, param: &str, code: &str| {
            assert_eq!(refusal(filter), (param.to_owned(), code.to_owned()));
        };
        refused(json!({"type": "like"}), "filters.type", "invalid_value");
        refused(
            json!({"type": "eq", "key": "a", "value": ["x"]}),
            "filters.value",
            "invalid_type",
        );
        refused(
            json!({"type": "gt", "key": "a", "value": true}),
            "filters.value",
            "invalid_type",
        );
        refused(
            json!({"type": "or", "filters": [{"type": "in", "key": "a", "value": ["x", false]}]}),
            "filters.filters[0].value[1]",
            "invalid_type",
        );
        refused(
            json!({"type": "and"}),
            "filters.filters",
            "missing_required_parameter",
        );
        refused(
            json!({"type": "eq", "key": "a", "value": 1, "filters": []}),
            "filters.filters",
            "unknown_parameter",
        );
    }

    #[test]
    fn filters_have_an_end() {
        let mut deep = json!({"type": "eq", "key": "a", "value": 1});
        for _ in 0..=DEPTH_MAX {
            deep = json!({"type": "and", "filters": [deep]});
        }
        assert_eq!(refusal(deep).1, "invalid_value");
        let one = json!({"type": "eq", "key": "a", "value": 1});
        let half = json!({"type": "or", "filters": vec![one; COMPARISONS_MAX / 2 + 1]});
        assert!(parsed(half.clone()).is_ok());
        let whole = json!({"type": "and", "filters": [half, half]});
        assert_eq!(refusal(whole), ("filters".into(), "invalid_value".into()));
    }
}
