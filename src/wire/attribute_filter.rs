//! Filters by the attributes of files, for searches in vector stores.

use crate::domain::vector_store::{AttributeValue, Comparison, Filter};
use crate::wire::ParseError;
use crate::wire::json::{Json, JsonType};
use crate::wire::object::Object;
use crate::wire::refusal::{missing, wrong_type};
use crate::wire::vector_store_file::{MAX_ATTRIBUTE_KEY, parse_attribute_value};

const MAX_DEPTH: usize = 8;
const MAX_COMPARISONS: usize = 256;
const MAX_VALUES: usize = 1_000;

#[derive(Clone, Copy)]
enum Operator {
    And,
    Or,
    Compare(Comparison),
    Member { wanted: bool },
}

const OPERATORS: [(&str, Operator); 10] = [
    ("eq", Operator::Compare(Comparison::Eq)),
    ("ne", Operator::Compare(Comparison::Ne)),
    ("gt", Operator::Compare(Comparison::Gt)),
    ("gte", Operator::Compare(Comparison::Gte)),
    ("lt", Operator::Compare(Comparison::Lt)),
    ("lte", Operator::Compare(Comparison::Lte)),
    ("in", Operator::Member { wanted: true }),
    ("nin", Operator::Member { wanted: false }),
    ("and", Operator::And),
    ("or", Operator::Or),
];

pub fn parse(body: &mut Object, name: &str) -> Result<Option<Filter>, ParseError> {
    let path = body.path(name);
    let Some(filter) = body.object(name)? else {
        return Ok(None);
    };
    let mut comparisons = 0;
    let filter = parse_node(filter, 1, &mut comparisons)?;
    if comparisons > MAX_COMPARISONS {
        return Err(too_complex(
            path,
            format!("more than {MAX_COMPARISONS} comparisons"),
        ));
    }
    Ok(Some(filter))
}

fn parse_node(
    mut filter: Object,
    depth: usize,
    comparisons: &mut usize,
) -> Result<Filter, ParseError> {
    let parsed = match filter.type_tag(&OPERATORS)? {
        operator @ (Operator::And | Operator::Or) => {
            let path = filter.path("filters");
            if depth > MAX_DEPTH {
                return Err(too_complex(path, format!("nested deeper than {MAX_DEPTH}")));
            }
            let parts = filter
                .objects("filters", MAX_COMPARISONS)?
                .ok_or_else(|| missing(&path))?;
            let parts = parts
                .into_iter()
                .map(|part| parse_node(part, depth + 1, comparisons))
                .collect::<Result<_, _>>()?;
            match operator {
                Operator::And => Filter::And(parts),
                _ => Filter::Or(parts),
            }
        }
        Operator::Compare(operator) => {
            *comparisons += 1;
            let key = filter.required_string("key", MAX_ATTRIBUTE_KEY)?;
            let path = filter.path("value");
            let value = parse_attribute_value(&path, filter.required("value")?)?;
            check_order(operator, &path, &value)?;
            Filter::Compare {
                key,
                operator,
                value,
            }
        }
        Operator::Member { wanted } => {
            *comparisons += 1;
            let key = filter.required_string("key", MAX_ATTRIBUTE_KEY)?;
            let path = filter.path("value");
            let values = filter
                .array_of("value", MAX_VALUES, |path, value| {
                    parse_text_or_number(&path, value)
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

fn check_order(operator: Comparison, path: &str, value: &AttributeValue) -> Result<(), ParseError> {
    match (operator, value) {
        (Comparison::Eq | Comparison::Ne, _)
        | (_, AttributeValue::Text(_) | AttributeValue::Number(_)) => Ok(()),
        (
            Comparison::Gt | Comparison::Gte | Comparison::Lt | Comparison::Lte,
            AttributeValue::Flag(_),
        ) => Err(wrong_type(path, "a string or a number", JsonType::Boolean)),
    }
}

fn parse_text_or_number(path: &str, value: Json) -> Result<AttributeValue, ParseError> {
    match value.json_type() {
        JsonType::String | JsonType::Integer | JsonType::Decimal => {
            parse_attribute_value(path, value)
        }
        other @ (JsonType::Null | JsonType::Boolean | JsonType::Array | JsonType::Object) => {
            Err(wrong_type(path, "a string or a number", other))
        }
    }
}

fn too_complex(path: String, excess: String) -> ParseError {
    ParseError::new(format!("Invalid '{path}': the filter is {excess}."))
        .param(path)
        .code("invalid_value")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(filter: Value) -> Result<Option<Filter>, ParseError> {
        let body = Object::at(String::new(), json!({"filters": filter}));
        parse(&mut body.expect("the test passes an object"), "filters")
    }

    fn refusal(filter: Value) -> (String, String) {
        let error = parsed(filter).expect_err("the filter is invalid");
        (
            error.param.unwrap_or_default(),
            error.code.unwrap_or_default().to_owned(),
        )
    }

    #[test]
    fn all_operators_are_parsed() {
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
            other => panic!("{other} is not a number"),
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
    fn invalid_filters_are_refused_with_their_path() {
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
    fn deep_and_long_filters_are_refused() {
        let mut deep = json!({"type": "eq", "key": "a", "value": 1});
        for _ in 0..=MAX_DEPTH {
            deep = json!({"type": "and", "filters": [deep]});
        }
        assert_eq!(refusal(deep).1, "invalid_value");
        let one = json!({"type": "eq", "key": "a", "value": 1});
        let half = json!({"type": "or", "filters": vec![one; MAX_COMPARISONS / 2 + 1]});
        assert!(parsed(half.clone()).is_ok());
        let whole = json!({"type": "and", "filters": [half, half]});
        assert_eq!(refusal(whole), ("filters".into(), "invalid_value".into()));
    }
}
