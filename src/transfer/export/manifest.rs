//! The manifest layout, which other exporters of this API write too: `manifest.json`,
//! `assistants.json`, `threads/<id>.json`. Objects for which it has no file are in plain lists
//! beside them: `files.json`, `vector_stores.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{WholeThread, new_file};
use crate::domain::ids::{FileId, ProjectId};
use crate::domain::message::{AnnotationTarget, Content, Message};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::ToolCall;
use crate::store;
use crate::store::Pool;
use crate::transfer::write::{self, Shown};
use crate::transfer::{Kind, MANIFEST, THREAD, TransferError};

pub(super) struct Manifest {
    folder: PathBuf,
    exported_at: String,
    assistants: Vec<Value>,
    files: Vec<Value>,
    vector_stores: Vec<Value>,
    threads: u64,
}

impl Manifest {
    pub(super) fn new(folder: &Path) -> Result<Self, TransferError> {
        let threads = folder.join("threads");
        std::fs::create_dir(&threads).map_err(TransferError::file(&threads))?;
        Ok(Self {
            folder: folder.to_owned(),
            exported_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, false),
            assistants: Vec::new(),
            files: Vec::new(),
            vector_stores: Vec::new(),
            threads: 0,
        })
    }

    /// Adds an object that belongs to no thread.
    pub(super) fn object(&mut self, kind: Kind, object: Shown) {
        match kind {
            Kind::Assistant => self.assistants.push(object.plain()),
            Kind::File => self.files.push(object.whole()),
            // The layout does not define these objects, so they may have an additional field.
            _ => self.vector_stores.push(object.whole()),
        }
    }

    pub(super) async fn thread(
        &mut self,
        pool: &Pool,
        project: &ProjectId,
        whole: &WholeThread,
    ) -> Result<(), TransferError> {
        let mut files = BTreeMap::new();
        let mut errors = Vec::new();
        for id in referenced_files(whole) {
            match store::files::find(pool, project, &id).await? {
                Some(file) => {
                    files.insert(id.to_string(), write::file(&file)?.plain());
                }
                None => errors.push(json!({
                    "object": "file", "id": id, "error": "not_found_or_expired",
                    "detail": "The file was deleted.",
                })),
            }
        }
        let mut runs = Vec::new();
        for (run, steps) in &whole.runs {
            let mut run = write::run(run)?.plain();
            let mut shown = Vec::new();
            for step in steps {
                shown.push(write::step(step)?.plain());
            }
            run["steps"] = shown.into();
            runs.push(run);
        }
        let mut messages = Vec::new();
        for message in &whole.messages {
            messages.push(write::message(message)?.plain());
        }
        let id = &whole.thread.id;
        let record = json!({
            "export_schema": THREAD,
            "thread_id": id,
            "exported_at": self.exported_at,
            "thread": write::thread(&whole.thread, &[])?.plain(),
            "messages": messages,
            "runs": runs,
            "files": files,
            "errors": errors,
        });
        self.threads += 1;
        self.write(&format!("threads/{id}.json"), &record)
    }

    pub(super) fn finish(self) -> Result<(), TransferError> {
        let manifest = json!({
            "export_schema": MANIFEST,
            "script_version": concat!("assistd ", env!("CARGO_PKG_VERSION")),
            "exported_at": self.exported_at,
            "endpoint": "assistd",
            "assistants_count": self.assistants.len(),
            "threads_requested": self.threads,
            "threads_exported": self.threads,
            "threads_failed": [],
        });
        self.write("assistants.json", &json!(self.assistants))?;
        self.write("files.json", &json!(self.files))?;
        self.write("vector_stores.json", &json!(self.vector_stores))?;
        // Written last: a folder with a manifest holds a complete export.
        self.write("manifest.json", &manifest)
    }

    fn write(&self, name: &str, value: &Value) -> Result<(), TransferError> {
        let path = self.folder.join(name);
        let mut file = new_file(&path)?;
        let written = serde_json::to_writer_pretty(&mut file, value).map_err(Into::into);
        let written = written.and_then(|()| std::io::Write::flush(&mut file));
        written.map_err(TransferError::file(path))
    }
}

fn referenced_files(whole: &WholeThread) -> BTreeSet<FileId> {
    let messages = whole.messages.iter().flat_map(files_of_message);
    let steps = whole.runs.iter().flat_map(|(_, steps)| steps);
    messages
        .chain(steps.flat_map(files_of_step))
        .cloned()
        .collect()
}

fn files_of_message(message: &Message) -> Vec<&FileId> {
    let attachments = message.attachments.iter();
    let mut files: Vec<&FileId> = attachments.flat_map(|it| &it.file_id).collect();
    for content in &message.content {
        match content {
            Content::Text { annotations, .. } => {
                files.extend(
                    annotations
                        .iter()
                        .map(|annotation| match &annotation.target {
                            AnnotationTarget::FilePath(file)
                            | AnnotationTarget::FileCitation(file) => file,
                        }),
                );
            }
            Content::ImageFile { file, .. } => files.push(file),
            Content::Refusal { .. } | Content::ImageUrl { .. } => {}
        }
    }
    files
}

fn files_of_step(step: &RunStep) -> Vec<&FileId> {
    match &step.details {
        StepDetails::MessageCreation { .. } => Vec::new(),
        StepDetails::ToolCalls { calls } => calls.iter().flat_map(ToolCall::images).collect(),
    }
}
