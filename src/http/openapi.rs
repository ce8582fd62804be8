//! The contract of this server as an OpenAPI document.

use std::sync::LazyLock;

pub fn json() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let document: serde_json::Value = serde_yaml_ng::from_str(include_str!("openapi.yaml"))
            .expect("the document is compiled in, and a test parses it");
        document.to_string()
    });
    &DOCUMENT
}
