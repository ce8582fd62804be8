//! API objects, as servers and scripts have exported them, as domain objects.
//!
//! Lenient: unknown fields are ignored, and a value that the API does not show gets its most likely
//! value unless the export is assistd's own.

mod run;
mod thread;

use serde_json::{Map, Value};

use crate::domain::Timestamp;
use crate::domain::assistant::Assistant;
use crate::domain::file::{File, Purpose};
use crate::domain::ids::{BatchId, ProjectId};
use crate::domain::message::Message;
use crate::domain::run::Run;
use crate::domain::run_step::RunStep;
use crate::domain::thread::Thread;
use crate::domain::vector_store::{
    Batch, Chunking, FileCounts, FileStatus, IndexError, IndexErrorCode, VectorStore,
    VectorStoreFile,
};
use crate::store::workspace_files::WrittenFile;
use crate::transfer::{Kind, UNSHOWN};
use crate::wire::ParseError;
use crate::wire::assistant::parse_config;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::tool::parse_tool;
use crate::wire::tool_resources::parse_tool_resources;
use crate::wire::vector_store_file::parse_attributes;

#[derive(Debug)]
pub(super) enum Item {
    File(File),
    VectorStore(VectorStore),
    Batch(Batch),
    StoreFile(VectorStoreFile, Option<BatchId>),
    Assistant(Assistant),
    /// With the files that code has written on it.
    Thread(Thread, Vec<WrittenFile>),
    Run(Box<Run>),
    Step(Box<RunStep>),
    Message(Box<Message>),
}

pub(super) struct Reader<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) now: Timestamp,
    pub(super) remarks: Vec<String>,
}

type Read<T> = Result<T, ParseError>;

impl Reader<'_> {
    pub(super) fn read(
        &mut self,
        kind: Kind,
        mut fields: Map<String, Value>,
    ) -> Result<Item, String> {
        if fields.values_mut().map(without_nul).sum::<usize>() > 0 {
            let id = fields.get("id").and_then(Value::as_str).unwrap_or_default();
            let remark =
                format!("{id}: NUL characters were left out, which PostgreSQL cannot hold");
            self.remarks.push(remark);
        }
        if matches!(kind, Kind::Assistant | Kind::Run) {
            self.remove_unknown_tools(&mut fields);
        }
        self.parse(kind, Fields::new(fields))
            .map_err(|error| error.message)
    }

    /// Removes tools that this server does not have, and a tool choice that may refer to them.
    fn remove_unknown_tools(&mut self, fields: &mut Map<String, Value>) {
        let id = fields.get("id").and_then(Value::as_str);
        let id = id.unwrap_or_default().to_owned();
        let Some(Value::Array(tools)) = fields.get_mut("tools") else {
            return;
        };
        let all = tools.len();
        tools.retain(|tool| {
            let parsed = Object::at("tools".to_owned(), tool.clone()).and_then(parse_tool);
            let problem = parsed.err();
            if let Some(problem) = &problem {
                let remark = format!("{id}: a tool was left out: {}", problem.message);
                self.remarks.push(remark);
            }
            problem.is_none()
        });
        if tools.len() < all {
            fields.shift_remove("tool_choice");
        }
    }

    fn parse(&mut self, kind: Kind, fields: Read<Fields>) -> Read<Item> {
        let fields = fields?;
        Ok(match kind {
            Kind::File => Item::File(file(fields)?),
            Kind::VectorStore => Item::VectorStore(vector_store(fields)?),
            Kind::Batch => Item::Batch(batch(fields)?),
            Kind::StoreFile => {
                let (file, batch) = store_file(fields)?;
                Item::StoreFile(file, batch)
            }
            Kind::Assistant => Item::Assistant(assistant(fields)?),
            Kind::Thread => {
                let (thread, written) = thread::thread(fields)?;
                Item::Thread(thread, written)
            }
            Kind::Run => Item::Run(Box::new(run::run(self, fields)?)),
            Kind::Step => Item::Step(Box::new(run::step(self, fields)?)),
            Kind::Message => Item::Message(Box::new(thread::message(self, fields)?)),
        })
    }
}

/// The fields of an object: those of the API, and those of assistd's own exports.
struct Fields {
    shown: Object,
    unshown: Option<Object>,
}

impl Fields {
    fn new(fields: Map<String, Value>) -> Read<Self> {
        let mut shown = Object::from_fields(fields);
        let unshown = shown.object(UNSHOWN)?;
        Ok(Self { shown, unshown })
    }

    /// A date: to the microsecond in assistd's own exports, else to the second.
    fn time(&mut self, name: &str) -> Read<Option<Timestamp>> {
        let exact = match &mut self.unshown {
            Some(unshown) => unshown.string(name, usize::MAX)?,
            None => None,
        };
        let path = self.shown.path(name);
        let shown: Option<Value> = self.shown.take(name).map(Json::read).transpose()?;
        if let Some(text) = exact {
            let wrong = |_| ParseError::new(format!("'{path}' is not a date."));
            let time = chrono::DateTime::parse_from_rfc3339(&text).map_err(wrong)?;
            return Ok(Some(time.to_utc()));
        }
        let Some(shown) = shown else {
            return Ok(None);
        };
        // Some scripts write decimals.
        let seconds = shown
            .as_i64()
            .or_else(|| shown.as_f64().map(|seconds| seconds as i64));
        let time = seconds.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
        let wrong = || ParseError::new(format!("'{path}' is not a date in Unix seconds."));
        time.map(Some).ok_or_else(wrong)
    }

    fn created_at(&mut self) -> Read<Timestamp> {
        self.time("created_at")?
            .ok_or_else(|| missing("created_at"))
    }

    fn unshown(&mut self, name: &str) -> Read<Option<Value>> {
        let value = self.unshown.as_mut().and_then(|unshown| unshown.take(name));
        value.map(Json::read).transpose()
    }

    /// A sampling setting. The API shows the default for both null and 1, which models may treat
    /// differently.
    fn sampling(&mut self, name: &str, shown: Option<f64>) -> Option<f64> {
        match &mut self.unshown {
            Some(unshown) => unshown.take(name).and_then(|value| value.read().ok()),
            None => shown.filter(|value| *value != 1.0),
        }
    }
}

/// Removes NUL characters from all strings in a JSON value. Returns the number of changed texts.
fn without_nul(value: &mut Value) -> usize {
    match value {
        Value::String(text) if text.contains('\0') => {
            text.retain(|character| character != '\0');
            1
        }
        Value::Array(values) => values.iter_mut().map(without_nul).sum(),
        Value::Object(fields) => fields.values_mut().map(without_nul).sum(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn stored<T: serde::de::DeserializeOwned>(name: &str, value: Value) -> Read<T> {
    serde_json::from_value(value)
        .map_err(|error| ParseError::new(format!("'{UNSHOWN}.{name}' is not readable: {error}")))
}

fn file(mut fields: Fields) -> Read<File> {
    let name = fields.shown.required_string("purpose", usize::MAX)?;
    let output = ("assistants_output", Purpose::AssistantsOutput);
    let mut known = Purpose::UPLOADABLE.into_iter().chain([output]);
    let purpose = known.find(|(known, _)| *known == name);
    let (_, purpose) = purpose.ok_or_else(|| {
        ParseError::new(format!("files for '{name}' have no place on this server."))
    })?;
    let bytes = fields.shown.integer("bytes", 0, i64::MAX)?;
    Ok(File {
        id: fields.shown.required_id("id")?,
        created_at: fields.created_at()?,
        expires_at: fields.time("expires_at")?,
        filename: fields.shown.required_string("filename", usize::MAX)?,
        bytes: bytes.ok_or_else(|| missing("bytes"))?,
        purpose,
    })
}

fn vector_store(mut fields: Fields) -> Read<VectorStore> {
    let created_at = fields.created_at()?;
    let expires_after_days = match fields.shown.object("expires_after")? {
        Some(mut after) => after.integer("days", 1, 365)?,
        None => None,
    };
    Ok(VectorStore {
        id: fields.shown.required_id("id")?,
        created_at,
        name: fields.shown.string("name", usize::MAX)?,
        description: fields.shown.string("description", usize::MAX)?,
        metadata: fields.shown.metadata()?.unwrap_or_default(),
        expires_after_days: expires_after_days.and_then(|days| i32::try_from(days).ok()),
        last_active_at: fields.time("last_active_at")?.unwrap_or(created_at),
        // Computed by the store.
        expires_at: None,
        is_expired: false,
        usage_bytes: 0,
        file_counts: FileCounts::default(),
    })
}

fn batch(mut fields: Fields) -> Read<Batch> {
    Ok(Batch {
        id: fields.shown.required_id("id")?,
        vector_store: fields.shown.required_id("vector_store_id")?,
        created_at: fields.created_at()?,
        is_cancelled: fields.shown.string("status", usize::MAX)?.as_deref() == Some("cancelled"),
        file_counts: FileCounts::default(),
    })
}

fn store_file(mut fields: Fields) -> Read<(VectorStoreFile, Option<BatchId>)> {
    let batch = fields.unshown("batch_id")?;
    let batch = batch.map(|id| crate::wire::value::id("batch_id", id));
    let status = fields.shown.string("status", usize::MAX)?;
    let last_error = match fields.shown.object("last_error")? {
        Some(mut error) => Some(IndexError {
            code: match error.string("code", usize::MAX)?.as_deref() {
                Some("unsupported_file") => IndexErrorCode::UnsupportedFile,
                Some("invalid_file") => IndexErrorCode::InvalidFile,
                Some(_) | None => IndexErrorCode::ServerError,
            },
            message: error.string("message", usize::MAX)?.unwrap_or_default(),
        }),
        None => None,
    };
    let (status, last_error) = match status.as_deref() {
        Some("cancelled") => (FileStatus::Cancelled, None),
        Some("failed") => {
            let unknown = IndexError {
                code: IndexErrorCode::ServerError,
                message: "It had failed before it was imported.".to_owned(),
            };
            (FileStatus::Failed, Some(last_error.unwrap_or(unknown)))
        }
        // The index is not in the export: the file is indexed once its content is attached.
        Some(_) | None => (FileStatus::Failed, Some(IndexError::without_contents())),
    };
    let file = VectorStoreFile {
        file: fields.shown.required_id("id")?,
        vector_store: fields.shown.required_id("vector_store_id")?,
        created_at: fields.created_at()?,
        status,
        last_error,
        usage_bytes: 0,
        chunking: chunking(&mut fields.shown)?,
        attributes: parse_attributes(&mut fields.shown)?.unwrap_or_default(),
    };
    Ok((file, batch.transpose()?))
}

/// The chunking of a file, if it is known: old files have the strategy `other`.
fn chunking(shown: &mut Object) -> Read<Chunking> {
    let strategy = shown.object("chunking_strategy")?;
    let fixed = match strategy {
        Some(mut strategy) => strategy.object("static")?,
        None => None,
    };
    let Some(mut fixed) = fixed else {
        return Ok(Chunking::AUTO);
    };
    let mut tokens = |name, min| fixed.integer(name, min, 4_096);
    let max = tokens("max_chunk_size_tokens", 100)?;
    let overlap = tokens("chunk_overlap_tokens", 0)?;
    let whole = |tokens: Option<i64>| tokens.and_then(|tokens| i32::try_from(tokens).ok());
    Ok(match (whole(max), whole(overlap)) {
        (Some(max_tokens), Some(overlap)) => Chunking {
            max_tokens,
            overlap_tokens: overlap.min(max_tokens / 2),
        },
        _ => Chunking::AUTO,
    })
}

fn assistant(mut fields: Fields) -> Read<Assistant> {
    let id = fields.shown.required_id("id")?;
    let created_at = fields.created_at()?;
    let mut config = parse_config(&mut fields.shown)?;
    config.temperature = fields.sampling("temperature", config.temperature);
    config.top_p = fields.sampling("top_p", config.top_p);
    Ok(Assistant {
        id,
        created_at,
        config,
        tool_resources: parse_tool_resources(&mut fields.shown)?,
        metadata: fields.shown.metadata()?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
