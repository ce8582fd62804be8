//! Collects the API objects in a JSON value, however they are nested: lists, pages of lists,
//! threads with their messages inside, records with fields named after their content.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::SourceObject;
use crate::transfer::{FORMAT, Kind};

/// The kind of objects in a field of this name, in records that are no API objects.
const NAMES: [(&str, Kind); 18] = [
    ("assistant", Kind::Assistant),
    ("assistants", Kind::Assistant),
    ("file", Kind::File),
    ("files", Kind::File),
    ("vector_store", Kind::VectorStore),
    ("vector_stores", Kind::VectorStore),
    ("file_batches", Kind::Batch),
    ("vector_store_files", Kind::StoreFile),
    ("thread", Kind::Thread),
    ("threads", Kind::Thread),
    ("message", Kind::Message),
    ("messages", Kind::Message),
    ("run", Kind::Run),
    ("runs", Kind::Run),
    ("run_step", Kind::Step),
    ("run_steps", Kind::Step),
    ("step", Kind::Step),
    ("steps", Kind::Step),
];

/// Fields in which exporters nest objects inside API objects.
const NESTED: [(Kind, &str, Kind); 9] = [
    (Kind::Thread, "messages", Kind::Message),
    (Kind::Thread, "runs", Kind::Run),
    (Kind::Thread, "run_steps", Kind::Step),
    (Kind::Thread, "files", Kind::File),
    (Kind::Run, "steps", Kind::Step),
    (Kind::Run, "run_steps", Kind::Step),
    (Kind::VectorStore, "files", Kind::StoreFile),
    (Kind::VectorStore, "vector_store_files", Kind::StoreFile),
    (Kind::VectorStore, "file_batches", Kind::Batch),
];

/// Prefixes of ids, for objects without the field `object`.
const PREFIXES: [(&str, Kind); 9] = [
    ("asst_", Kind::Assistant),
    ("thread_", Kind::Thread),
    ("msg_", Kind::Message),
    ("run_", Kind::Run),
    ("step_", Kind::Step),
    ("file-", Kind::File),
    ("assistant-", Kind::File),
    ("vs_", Kind::VectorStore),
    ("vsfb_", Kind::Batch),
];

/// Ids of the enclosing objects.
type Inherited = Map<String, Value>;

/// Collects all API objects in a value, and counts skipped ones by description.
pub(super) fn gather(
    value: Value,
    at: &Arc<str>,
    objects: &mut Vec<SourceObject>,
    skipped: &mut BTreeMap<String, u64>,
) {
    let mut gatherer = Gatherer {
        at,
        objects,
        skipped,
    };
    gatherer.walk(value, None, &Inherited::new());
}

struct Gatherer<'a> {
    at: &'a Arc<str>,
    objects: &'a mut Vec<SourceObject>,
    skipped: &'a mut BTreeMap<String, u64>,
}

impl Gatherer<'_> {
    fn walk(&mut self, value: Value, hint: Option<Kind>, inherited: &Inherited) {
        match value {
            Value::Array(values) => {
                for value in values {
                    self.walk(value, hint, inherited);
                }
            }
            Value::Object(fields) => self.object(fields, hint, inherited),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn object(
        &mut self,
        mut fields: Map<String, Value>,
        hint: Option<Kind>,
        inherited: &Inherited,
    ) {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let id = text("id");
        let kind = match text("object") {
            Some("list" | "page") => {
                let data = fields.remove("data").unwrap_or_default();
                return self.walk(data, hint, inherited);
            }
            Some(FORMAT) => return,
            Some(object) => match Kind::of(object) {
                Some(kind) => Some(kind),
                None => {
                    let what = format!("objects of the kind '{object}'");
                    *self.skipped.entry(what).or_default() += 1;
                    return;
                }
            },
            None => id.and_then(|id| hint.or_else(|| kind_by_id(id))),
        };
        match kind {
            Some(kind) => self.api_object(kind, fields, inherited),
            None => self.record(fields, hint, inherited),
        }
    }

    /// A record of an exporter, which may contain objects.
    fn record(&mut self, fields: Map<String, Value>, hint: Option<Kind>, inherited: &Inherited) {
        let mut inherited = inherited.clone();
        for name in ["thread_id", "run_id", "assistant_id", "vector_store_id"] {
            if let Some(id @ Value::String(_)) = fields.get(name) {
                inherited.insert(name.to_owned(), id.clone());
            }
        }
        for (name, value) in fields {
            if name == "errors" {
                let count = value.as_array().map_or(0, Vec::len) as u64;
                if count > 0 {
                    let what = "errors that were noted when the export was made".to_owned();
                    *self.skipped.entry(what).or_default() += count;
                }
                continue;
            }
            let named = NAMES.iter().find(|(known, _)| *known == name);
            self.walk(value, named.map(|(_, kind)| *kind).or(hint), &inherited);
        }
    }

    fn api_object(&mut self, kind: Kind, mut fields: Map<String, Value>, inherited: &Inherited) {
        let parents: &[&str] = match kind {
            Kind::File | Kind::VectorStore | Kind::Assistant | Kind::Thread => &[],
            Kind::Batch | Kind::StoreFile => &["vector_store_id"],
            Kind::Run | Kind::Message => &["thread_id"],
            Kind::Step => &["thread_id", "run_id", "assistant_id"],
        };
        for parent in parents {
            let has_parent = fields.get(*parent).is_some_and(|id| !id.is_null());
            if !has_parent && let Some(id) = inherited.get(*parent) {
                fields.insert((*parent).to_owned(), id.clone());
            }
        }
        let own = match kind {
            Kind::Thread => Some("thread_id"),
            Kind::Run => Some("run_id"),
            Kind::VectorStore => Some("vector_store_id"),
            _ => None,
        };
        let mut nested = Vec::new();
        for (_, name, kind) in NESTED.iter().filter(|(outer, _, _)| *outer == kind) {
            if let Some(value) = fields.shift_remove(*name) {
                nested.push((*kind, value));
            }
        }
        let mut below = Inherited::new();
        if !nested.is_empty() {
            below.clone_from(inherited);
            for name in ["thread_id", "assistant_id"] {
                if let Some(id) = fields.get(name) {
                    below.insert(name.to_owned(), id.clone());
                }
            }
            if let Some((own, id)) = own.zip(fields.get("id")) {
                below.insert(own.to_owned(), id.clone());
            }
        }
        self.objects.push(SourceObject {
            kind,
            fields,
            at: self.at.clone(),
        });
        for (kind, value) in nested {
            self.walk(value, Some(kind), &below);
        }
    }
}

fn kind_by_id(id: &str) -> Option<Kind> {
    let known = PREFIXES.iter().find(|(prefix, _)| id.starts_with(prefix));
    known.map(|(_, kind)| *kind)
}
