//! Export of a project, in assistd's own format or in the manifest layout.
//!
//! Lists are read page by page while the server may be running, so what is created meanwhile may be
//! exported or not.

mod manifest;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::domain::ids::{FileId, ProjectId};
use crate::domain::message::Message;
use crate::domain::page::{Order, Page, PageRequest};
use crate::domain::run::Run;
use crate::domain::run_step::RunStep;
use crate::domain::thread::{Thread, ThreadFilter};
use crate::domain::vector_store::VectorStore;
use crate::files::blobs::{BlobError, Blobs};
use crate::store;
use crate::store::Pool;
use crate::store::workspace_files::WrittenFile;
use crate::transfer::write::{self, Shown};
use crate::transfer::{CONTENTS, FORMAT, Kind, OBJECTS, Progress, Stage, TransferError, VERSION};

use manifest::Manifest;

const PAGE: i64 = 500;

#[derive(Debug)]
pub struct Export<'a> {
    pub pool: &'a Pool,
    pub blobs: &'a Blobs,
    pub project: &'a str,
}

/// The target of an export. A folder must be empty or new, and gets the content of files as well; a
/// file must be new. All but `Manifest` get assistd's own format.
#[derive(Debug, Clone)]
pub enum Target {
    Folder(PathBuf),
    File(PathBuf),
    Stdout,
    Manifest(PathBuf),
}

#[derive(Debug, Default)]
pub struct Exported {
    pub objects: BTreeMap<Kind, u64>,
    /// Number of files exported with their content.
    pub contents: u64,
    pub without_contents: Vec<FileId>,
}

/// Writes objects, which come in the order of their dependencies.
enum Sink {
    Lines(Box<dyn Write + Send>),
    Manifest(Box<Manifest>),
}

/// A thread with its objects, each list oldest first.
struct WholeThread {
    thread: Thread,
    written: Vec<WrittenFile>,
    runs: Vec<(Run, Vec<RunStep>)>,
    messages: Vec<Message>,
}

pub async fn export(
    export: &Export<'_>,
    target: &Target,
    progress: Progress<'_>,
) -> Result<Exported, TransferError> {
    let project = store::projects::find_by_id_or_name(export.pool, export.project).await?;
    let project = project.ok_or_else(|| TransferError::NoProject(export.project.to_owned()))?;
    let project = project.id;
    let (mut sink, contents) = open(export, target)?;
    let mut exporter = Exporter {
        pool: export.pool,
        project: &project,
        exported: Exported::default(),
        progress,
    };
    let files = exporter.files(&mut sink).await?;
    exporter.vector_stores(&mut sink).await?;
    exporter.assistants(&mut sink).await?;
    exporter.threads(&mut sink).await?;
    sink.finish(target)?;
    let mut exported = exporter.exported;
    let Some(contents) = contents else {
        exported.without_contents = files;
        return Ok(exported);
    };
    for file in files {
        if copy(export.blobs, &file, &contents).await? {
            exported.contents += 1;
            progress(Stage::Contents, exported.contents, None);
        } else {
            exported.without_contents.push(file);
        }
    }
    Ok(exported)
}

/// Opens the target. Returns the sink, and the folder for the content of files.
fn open(export: &Export<'_>, target: &Target) -> Result<(Sink, Option<PathBuf>), TransferError> {
    let folder = match target {
        Target::Folder(folder) | Target::Manifest(folder) => Some(folder),
        Target::File(_) | Target::Stdout => None,
    };
    if let Some(folder) = folder {
        make_folder(folder)?;
        make_folder(&folder.join(CONTENTS))?;
    }
    let sink = match target {
        Target::Folder(folder) => Sink::Lines(new_file(&folder.join(OBJECTS))?),
        Target::File(path) => Sink::Lines(new_file(path)?),
        Target::Stdout => Sink::Lines(Box::new(BufWriter::new(std::io::stdout()))),
        Target::Manifest(folder) => Sink::Manifest(Box::new(Manifest::new(folder)?)),
    };
    let mut sink = sink;
    if let Sink::Lines(lines) = &mut sink {
        let header = json!({"object": FORMAT, "version": VERSION, "project": export.project});
        write_line(lines, &header).map_err(TransferError::file(target.path()))?;
    }
    Ok((sink, folder.map(|folder| folder.join(CONTENTS))))
}

impl Target {
    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::File(path) | Self::Manifest(path) => path,
            Self::Stdout => Path::new("standard output"),
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), TransferError> {
    std::fs::create_dir_all(folder).map_err(TransferError::file(folder))?;
    let mut entries = std::fs::read_dir(folder).map_err(TransferError::file(folder))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(TransferError::Occupied(folder.to_owned())),
    }
}

fn new_file(path: &Path) -> Result<Box<dyn Write + Send>, TransferError> {
    match File::create_new(path) {
        Ok(file) => Ok(Box::new(BufWriter::new(file))),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(TransferError::Occupied(path.to_owned()))
        }
        Err(error) => Err(TransferError::file(path)(error)),
    }
}

fn write_line(lines: &mut (impl Write + ?Sized), value: &Value) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, value)?;
    lines.write_all(b"\n")
}

/// Copies the content of a file. Returns whether it exists.
async fn copy(blobs: &Blobs, id: &FileId, folder: &Path) -> Result<bool, TransferError> {
    let mut contents = match blobs.get(id.as_str(), None).await {
        Ok(contents) => contents.stream,
        Err(BlobError::Missing { .. }) => return Ok(false),
        Err(error) => return Err(TransferError::contents(id, error)),
    };
    let path = folder.join(id.as_str());
    let failed = || TransferError::file(&path);
    let mut file = tokio::fs::File::create_new(&path).await.map_err(failed())?;
    while let Some(bytes) = contents.try_next().await.map_err(TransferError::blob(id))? {
        file.write_all(&bytes).await.map_err(failed())?;
    }
    file.flush().await.map_err(failed())?;
    Ok(true)
}

/// Requests all pages of a list, oldest first.
#[derive(Default)]
struct Pages {
    after: Option<String>,
    is_over: bool,
}

impl Pages {
    fn next(&self) -> Option<PageRequest> {
        (!self.is_over).then(|| PageRequest {
            limit: PAGE,
            order: Order::Asc,
            after: self.after.clone(),
            before: None,
        })
    }

    fn advance<T>(&mut self, page: &Page<T>, id: impl Fn(&T) -> String) {
        self.is_over = !page.has_more;
        self.after = page.data.last().map(id);
    }
}

struct Exporter<'a> {
    pool: &'a Pool,
    project: &'a ProjectId,
    exported: Exported,
    progress: Progress<'a>,
}

impl Exporter<'_> {
    fn count(&mut self, kind: Kind, more: usize) {
        *self.exported.objects.entry(kind).or_default() += more as u64;
        let all = self.exported.objects.values().sum();
        (self.progress)(Stage::Objects, all, None);
    }

    async fn files(&mut self, sink: &mut Sink) -> Result<Vec<FileId>, TransferError> {
        let mut ids = Vec::new();
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::files::list(self.pool, self.project, None, &request).await?;
            pages.advance(&page, |file| file.id.to_string());
            self.count(Kind::File, page.data.len());
            for file in page.data {
                sink.object(Kind::File, write::file(&file)?)?;
                ids.push(file.id);
            }
        }
        Ok(ids)
    }

    async fn assistants(&mut self, sink: &mut Sink) -> Result<(), TransferError> {
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::assistants::list(self.pool, self.project, &request).await?;
            pages.advance(&page, |assistant| assistant.id.to_string());
            self.count(Kind::Assistant, page.data.len());
            for assistant in page.data {
                sink.object(Kind::Assistant, write::assistant(&assistant)?)?;
            }
        }
        Ok(())
    }

    async fn vector_stores(&mut self, sink: &mut Sink) -> Result<(), TransferError> {
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::vector_stores::list(self.pool, self.project, &request).await?;
            pages.advance(&page, |store| store.id.to_string());
            self.count(Kind::VectorStore, page.data.len());
            for store in page.data {
                sink.object(Kind::VectorStore, write::vector_store(&store)?)?;
                self.vector_store_objects(sink, &store).await?;
            }
        }
        Ok(())
    }

    async fn vector_store_objects(
        &mut self,
        sink: &mut Sink,
        store: &VectorStore,
    ) -> Result<(), TransferError> {
        let (pool, project, id) = (self.pool, self.project, &store.id);
        let batches = store::vector_store_batches::list_all(pool, project, id).await?;
        self.count(Kind::Batch, batches.len());
        for batch in batches {
            sink.object(Kind::Batch, write::batch(&batch)?)?;
        }
        let batches = store::vector_store_files::list_batch_ids(pool, project, id).await?;
        let batches: HashMap<_, _> = batches.into_iter().collect();
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page =
                store::vector_store_files::list(pool, project, id, None, None, &request).await?;
            pages.advance(&page, |file| file.file.to_string());
            self.count(Kind::StoreFile, page.data.len());
            for file in page.data {
                let shown = write::store_file(&file, batches.get(&file.file))?;
                sink.object(Kind::StoreFile, shown)?;
            }
        }
        Ok(())
    }

    async fn threads(&mut self, sink: &mut Sink) -> Result<(), TransferError> {
        let everything = ThreadFilter::default();
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::threads::list(self.pool, self.project, &everything, &request).await?;
            pages.advance(&page, |thread| thread.id.to_string());
            for thread in page.data {
                let whole = self.read_thread(thread).await?;
                let steps = whole.runs.iter().map(|(_, steps)| steps.len()).sum();
                self.count(Kind::Thread, 1);
                self.count(Kind::Run, whole.runs.len());
                self.count(Kind::Step, steps);
                self.count(Kind::Message, whole.messages.len());
                match sink {
                    Sink::Lines(_) => sink.thread(&whole)?,
                    Sink::Manifest(manifest) => {
                        manifest.thread(self.pool, self.project, &whole).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a thread with its objects. Some of what a run writes meanwhile may be missing.
    async fn read_thread(&self, thread: Thread) -> Result<WholeThread, TransferError> {
        let (pool, project, id) = (self.pool, self.project, &thread.id);
        let mut runs = Vec::new();
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::runs::list(pool, project, id, &request).await?;
            pages.advance(&page, |run| run.id.to_string());
            for run in page.data {
                let mut steps = Vec::new();
                let mut pages = Pages::default();
                while let Some(request) = pages.next() {
                    let page = store::run_steps::list(pool, project, id, &run.id, &request).await?;
                    pages.advance(&page, |step| step.id.to_string());
                    steps.extend(page.data);
                }
                runs.push((run, steps));
            }
        }
        let mut messages = Vec::new();
        let mut pages = Pages::default();
        while let Some(request) = pages.next() {
            let page = store::messages::list(pool, project, id, None, &request).await?;
            pages.advance(&page, |message| message.id.to_string());
            messages.extend(page.data);
        }
        let written = store::workspace_files::written_files(pool, project, id).await?;
        Ok(WholeThread {
            thread,
            written,
            runs,
            messages,
        })
    }
}

impl Sink {
    fn object(&mut self, kind: Kind, object: Shown) -> Result<(), TransferError> {
        match self {
            Self::Lines(lines) => {
                write_line(lines, &object.whole()).map_err(TransferError::file(OBJECTS))
            }
            Self::Manifest(manifest) => {
                manifest.object(kind, object);
                Ok(())
            }
        }
    }

    fn thread(&mut self, whole: &WholeThread) -> Result<(), TransferError> {
        self.object(Kind::Thread, write::thread(&whole.thread, &whole.written)?)?;
        for (run, steps) in &whole.runs {
            self.object(Kind::Run, write::run(run)?)?;
            for step in steps {
                self.object(Kind::Step, write::step(step)?)?;
            }
        }
        for message in &whole.messages {
            self.object(Kind::Message, write::message(message)?)?;
        }
        Ok(())
    }

    fn finish(self, target: &Target) -> Result<(), TransferError> {
        match self {
            Self::Lines(mut lines) => lines.flush().map_err(TransferError::file(target.path())),
            Self::Manifest(manifest) => manifest.finish(),
        }
    }
}
