//! The server's routes, from its OpenAPI document and from its source.

use std::sync::LazyLock;

use regex::Regex;

use crate::client::Client;

const SOURCE: &str = include_str!("../../src/http/mod.rs");

/// The operations of `/openapi.json` as lower-case methods and paths.
pub async fn documented(client: &Client) -> Vec<(String, String)> {
    let document = client.get("//openapi.json").await;
    let paths = document["paths"]
        .as_object()
        .expect("an OpenAPI document has paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let fields = item.as_object().into_iter().flat_map(|item| item.keys());
        let methods = fields.filter(|field| field.as_str() != "parameters");
        methods.map(|method| (method.clone(), path.clone()))
    });
    operations.collect()
}

/// The operations of the route table, without those for Azure clients, which the document only
/// describes in text.
pub fn served() -> Vec<(String, String)> {
    static ROUTE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"\.route\(\s*"([^"]+)","#).expect("the pattern is valid"));
    static METHOD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(get|post|put|patch|delete)\(").expect("the pattern is valid")
    });
    let (outer, api) = SOURCE
        .split_once("fn routes()")
        .expect("the routes of the API have a function");
    let mut served = Vec::new();
    for (part, prefix) in [(outer, ""), (api, "/v1")] {
        let routes: Vec<_> = ROUTE.captures_iter(part).collect();
        let starts = routes.iter().filter_map(|route| route.get(0));
        let starts: Vec<usize> = starts.map(|whole| whole.start()).collect();
        let ends = starts.iter().skip(1).copied().chain([part.len()]);
        for ((route, start), end) in routes.iter().zip(&starts).zip(ends) {
            let path = route[1].replace("{*", "{");
            if path.starts_with("/deployments/") {
                continue;
            }
            let methods = METHOD.captures_iter(&part[*start..end]);
            served.extend(methods.map(|method| (method[1].to_owned(), format!("{prefix}{path}"))));
        }
    }
    served
}
