//! Models.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

impl ModelObject {
    pub fn new(id: String, owned_by: String) -> Self {
        Self {
            id,
            object: "model",
            // The API requires the field, but upstreams do not report it.
            created: 0,
            owned_by,
        }
    }
}

/// All models. Unlike other lists, this one has no pages.
#[derive(Debug, Serialize)]
pub struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

impl ModelList {
    pub fn new(data: Vec<ModelObject>) -> Self {
        Self {
            object: "list",
            data,
        }
    }
}
