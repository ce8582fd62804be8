//! SQL for attribute filters. The row of `vector_store_files` has the alias `f`.

use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

use crate::domain::vector_store::{AttributeValue, Comparison, Filter};

/// Appends a condition in parentheses.
pub(super) fn push(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    match filter {
        Filter::And(parts) => join(query, parts, " and ", "true"),
        Filter::Or(parts) => join(query, parts, " or ", "false"),
        Filter::Compare {
            key,
            operator,
            value,
        } => compare(query, key, *operator, value),
        Filter::Member {
            key,
            values,
            wanted,
        } => {
            query.push(if *wanted { "(" } else { "(not " });
            query
                .push("coalesce(f.attributes -> ")
                .push_bind(key.clone())
                .push(" in (select jsonb_array_elements(")
                .push_bind(Json(values.clone()))
                .push(")), false))");
        }
    }
}

fn join(
    query: &mut QueryBuilder<Postgres>,
    parts: &[Filter],
    operator: &'static str,
    empty: &'static str,
) {
    query.push("(");
    if parts.is_empty() {
        query.push(empty);
    }
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            query.push(operator);
        }
        push(query, part);
    }
    query.push(")");
}

/// JSON values are equal if their types and values are; only values of the same type are ordered.
fn compare(
    query: &mut QueryBuilder<Postgres>,
    key: &str,
    operator: Comparison,
    value: &AttributeValue,
) {
    let operator = match operator {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
    };
    let json_type = match value {
        AttributeValue::Flag(_) => "boolean",
        AttributeValue::Number(_) => "number",
        AttributeValue::Text(_) => "string",
    };
    if operator == "<>" {
        query.push("(f.attributes -> ").push_bind(key.to_owned());
        query
            .push(" is distinct from ")
            .push_bind(Json(value.clone()))
            .push(")");
        return;
    }
    query
        .push("(case when jsonb_typeof(f.attributes -> ")
        .push_bind(key.to_owned())
        .push(") = ")
        .push_bind(json_type)
        .push(" then ");
    match value {
        AttributeValue::Text(text) => {
            query.push("(f.attributes ->> ").push_bind(key.to_owned());
            query.push(") collate \"C\" ").push(operator).push(" ");
            query.push_bind(text.clone());
        }
        AttributeValue::Flag(_) | AttributeValue::Number(_) => {
            query.push("(f.attributes -> ").push_bind(key.to_owned());
            query.push(") ").push(operator).push(" ");
            query.push_bind(Json(value.clone()));
        }
    }
    query.push(" else false end)");
}
