//! Stores imported objects, one chunk per transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use sqlx::PgConnection;

use crate::domain::Timestamp;
use crate::domain::assistant::Assistant;
use crate::domain::file::File;
use crate::domain::ids::{BatchId, FileId, ProjectId, ThreadId};
use crate::domain::message::Message;
use crate::domain::run::Run;
use crate::domain::run_step::RunStep;
use crate::domain::thread::Thread;
use crate::domain::vector_store::{Batch, VectorStore, VectorStoreFile};
use crate::store;
use crate::store::StoreError;
use crate::store::imports::{Table, existing_ids};
use crate::store::workspace_files::WrittenFile;
use crate::transfer::contents::{self, Attached, FilesToAttach, Originals};
use crate::transfer::order::Contents;
use crate::transfer::read::{Item, Reader};
use crate::transfer::source::{Source, SourceObject};
use crate::transfer::{Import, Kind, Progress, Stage, TransferError};

/// Maximum number of rows per statement.
const ROWS: usize = 1_000;

#[derive(Debug, Default)]
pub struct Report {
    pub tallies: BTreeMap<Kind, Tally>,
    pub refused: Vec<String>,
    /// Objects that were changed, with reasons.
    pub remarks: Vec<String>,
    pub contents: Attached,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub new: u64,
    /// Existed before and were left unchanged.
    pub known: u64,
    pub refused: u64,
}

/// Imports objects, and attaches content to files that lack it. Existing objects are left
/// unchanged.
pub async fn import(
    import: &Import<'_>,
    source: Option<Source>,
    progress: Progress<'_>,
) -> Result<Report, TransferError> {
    let mut tx = import.pool.begin().await?;
    let project = store::projects::find_or_create(&mut *tx, import.project).await?;
    let now = store::database_time(&mut *tx).await?;
    let mut importer = Importer {
        project: &project,
        now,
        report: Report::default(),
        files: HashSet::new(),
        refusals: Refusals::default(),
    };
    let mut folders: Vec<&Path> = import.files.into_iter().collect();
    let mut source = source;
    if let Some(source) = &mut source {
        while let Some(chunk) = source.next()? {
            importer.chunk(&mut tx, chunk).await?;
            if !import.dry_run {
                tx.commit().await?;
                tx = import.pool.begin().await?;
            }
            let (done, total) = source.progress();
            progress(Stage::Objects, done, total);
        }
        importer.report.remarks.extend(source.skipped());
        if let Some(days) = store::projects::thread_retention(&mut *tx, &project).await?
            && importer.tally(Kind::Thread).new > 0
        {
            importer.report.remarks.push(format!(
                "this project deletes threads that are idle for {days} days, as imported ones may be"
            ));
        }
        folders.extend(source.contents());
    }
    let mut report = importer.report;
    report.refused = importer.refusals.into_lines();
    let files = FilesToAttach {
        imported: importer.files,
        originals: Originals::index(&folders)?,
    };
    report.contents = contents::attach(import, &mut tx, &project, &files, progress).await?;
    if !import.dry_run {
        tx.commit().await?;
    }
    Ok(report)
}

struct Importer<'a> {
    project: &'a ProjectId,
    now: Timestamp,
    report: Report,
    /// All files of the source, including those that existed before.
    files: HashSet<FileId>,
    refusals: Refusals,
}

/// Refused objects. The children of a refused object are refused for the same reason, and are
/// reported in its line.
#[derive(Default)]
struct Refusals {
    lines: Vec<(String, BTreeMap<Kind, u64>)>,
    by_object: HashMap<(Kind, String), usize>,
}

impl Refusals {
    fn refuse(&mut self, kind: Kind, id: String, reason: String) {
        self.by_object.insert((kind, id), self.lines.len());
        self.lines.push((reason, BTreeMap::new()));
    }

    /// Refuses an object if its parent was refused. Returns whether it was.
    fn refuse_with(&mut self, parent: &(Kind, String), kind: Kind, id: &str) -> bool {
        let Some(line) = self.by_object.get(parent).copied() else {
            return false;
        };
        *self.lines[line].1.entry(kind).or_default() += 1;
        self.by_object.insert((kind, id.to_owned()), line);
        true
    }

    fn refuse_all(&mut self, reason: String) {
        self.lines.push((reason, BTreeMap::new()));
    }

    fn contains(&self, kind: Kind, id: &str) -> bool {
        self.by_object.contains_key(&(kind, id.to_owned()))
    }

    fn into_lines(self) -> Vec<String> {
        let line = |(reason, with): (String, BTreeMap<Kind, u64>)| {
            if with.is_empty() {
                return reason;
            }
            let with = with
                .into_iter()
                .map(|(kind, n)| format!("{} ({n})", kind.plural()));
            format!(
                "{reason}; refused with it: {}",
                with.collect::<Vec<_>>().join(", ")
            )
        };
        self.lines.into_iter().map(line).collect()
    }
}

#[derive(Default)]
struct Sorted {
    files: Vec<File>,
    stores: Vec<VectorStore>,
    batches: Vec<Batch>,
    store_files: Vec<(VectorStoreFile, Option<BatchId>)>,
    assistants: Vec<Assistant>,
    threads: Vec<(Thread, Vec<WrittenFile>)>,
    /// Objects of threads, in the order in which the threads first occur.
    contents: Vec<(ThreadId, Contents)>,
    indexes: HashMap<ThreadId, usize>,
}

impl Sorted {
    fn push(&mut self, item: Item) {
        match item {
            Item::File(file) => self.files.push(file),
            Item::VectorStore(store) => self.stores.push(store),
            Item::Batch(batch) => self.batches.push(batch),
            Item::StoreFile(file, batch) => self.store_files.push((file, batch)),
            Item::Assistant(assistant) => self.assistants.push(assistant),
            Item::Thread(thread, written) => self.threads.push((thread, written)),
            Item::Run(run) => self.in_thread(&run.thread).runs.push(*run),
            Item::Step(step) => self.in_thread(&step.thread).steps.push(*step),
            Item::Message(message) => self.in_thread(&message.thread).messages.push(*message),
        }
    }

    fn in_thread(&mut self, thread: &ThreadId) -> &mut Contents {
        let next = self.contents.len();
        let index = *self.indexes.entry(thread.clone()).or_insert(next);
        if index == next {
            self.contents.push((thread.clone(), Contents::default()));
        }
        &mut self.contents[index].1
    }
}

impl Importer<'_> {
    async fn chunk(
        &mut self,
        conn: &mut PgConnection,
        chunk: Vec<SourceObject>,
    ) -> Result<(), TransferError> {
        let mut reader = Reader {
            project: self.project,
            now: self.now,
            remarks: Vec::new(),
        };
        let mut sorted = Sorted::default();
        for object in chunk {
            let (kind, id) = (object.kind, object.id().to_owned());
            let thread = object.thread().filter(|_| kind != Kind::Thread);
            if let Some(thread) = thread
                && self.refuse_with(Kind::Thread, thread, kind, &id)
            {
                continue;
            }
            let at = object.at;
            match reader.read(kind, object.fields) {
                Ok(item) => sorted.push(item),
                Err(problem) => {
                    self.refuse(kind, &id, format!("{at}: {id}: {problem}"));
                }
            }
        }
        self.report.remarks.append(&mut reader.remarks);
        self.outside_threads(conn, &mut sorted).await?;
        self.threads(conn, &mut sorted).await?;
        let mut inside = Contents::default();
        for (_, mut contents) in sorted.contents {
            contents.arrange();
            inside.runs.append(&mut contents.runs);
            inside.steps.append(&mut contents.steps);
            inside.messages.append(&mut contents.messages);
        }
        self.inside_threads(conn, inside).await
    }

    async fn outside_threads(
        &mut self,
        conn: &mut PgConnection,
        sorted: &mut Sorted,
    ) -> Result<(), StoreError> {
        let project = self.project;
        let files = std::mem::take(&mut sorted.files);
        self.files.extend(files.iter().map(|file| file.id.clone()));
        let id = |file: &File| file.id.to_string();
        self.put(
            conn,
            Kind::File,
            Table::Files,
            files,
            id,
            async |conn, rows| store::files::import(conn, project, rows).await,
        )
        .await?;

        let stores = std::mem::take(&mut sorted.stores);
        let id = |store: &VectorStore| store.id.to_string();
        let table = Table::VectorStores;
        self.put(
            conn,
            Kind::VectorStore,
            table,
            stores,
            id,
            async |conn, rows| store::vector_stores::import(conn, project, rows).await,
        )
        .await?;

        let batches = std::mem::take(&mut sorted.batches);
        let store = |batch: &Batch| batch.vector_store.to_string();
        let id = |batch: &Batch| batch.id.to_string();
        let parent = (Kind::VectorStore, table);
        let batches = self
            .with_parent(conn, Kind::Batch, batches, id, parent, store)
            .await?;
        let table = Table::VectorStoreBatches;
        self.put(conn, Kind::Batch, table, batches, id, async |conn, rows| {
            store::vector_store_batches::import(conn, project, rows).await
        })
        .await?;

        self.store_files(conn, std::mem::take(&mut sorted.store_files))
            .await?;

        let assistants = std::mem::take(&mut sorted.assistants);
        let id = |assistant: &Assistant| assistant.id.to_string();
        let table = Table::Assistants;
        self.put(
            conn,
            Kind::Assistant,
            table,
            assistants,
            id,
            async |conn, rows| store::assistants::import(conn, project, rows).await,
        )
        .await?;
        Ok(())
    }

    /// Stores files in vector stores, which have no ids of their own.
    async fn store_files(
        &mut self,
        conn: &mut PgConnection,
        files: Vec<(VectorStoreFile, Option<BatchId>)>,
    ) -> Result<(), StoreError> {
        let kind = Kind::StoreFile;
        let id = |file: &(VectorStoreFile, _)| format!("{} {}", file.0.vector_store, file.0.file);
        let store = |file: &(VectorStoreFile, _)| file.0.vector_store.to_string();
        let parent = (Kind::VectorStore, Table::VectorStores);
        let files = self
            .with_parent(conn, kind, files, id, parent, store)
            .await?;
        let file = |file: &(VectorStoreFile, _)| file.0.file.to_string();
        let parent = (Kind::File, Table::Files);
        let mut files = self
            .with_parent(conn, kind, files, id, parent, file)
            .await?;
        let batches = files.iter().flat_map(|(_, batch)| batch);
        let batches: Vec<&str> = batches.map(BatchId::as_str).collect();
        let batches = existing_ids(
            &mut *conn,
            self.project,
            Table::VectorStoreBatches,
            &batches,
        )
        .await?;
        for (_, batch) in &mut files {
            batch.take_if(|batch| !batches.ours.contains(batch.as_str()));
        }
        let project = self.project;
        self.insert(conn, kind, &files, async |conn, rows| {
            store::vector_store_files::import(conn, project, rows).await
        })
        .await
    }

    /// Stores threads, and creates those of which the source has only messages or runs.
    async fn threads(
        &mut self,
        conn: &mut PgConnection,
        sorted: &mut Sorted,
    ) -> Result<(), StoreError> {
        let project = self.project;
        let mut written = HashMap::new();
        let mut threads = Vec::new();
        for (thread, of_thread) in std::mem::take(&mut sorted.threads) {
            written.insert(thread.id.clone(), of_thread);
            threads.push(thread);
        }
        let named: Vec<&str> = sorted.contents.iter().map(|(id, _)| id.as_str()).collect();
        let existing = existing_ids(&mut *conn, project, Table::Threads, &named).await?;
        for (id, contents) in &sorted.contents {
            let text = id.as_str();
            let is_known = written.contains_key(id)
                || existing.ours.contains(text)
                || existing.others.contains(text)
                || self.refusals.contains(Kind::Thread, text);
            if let Some(created_at) = contents.oldest().filter(|_| !is_known) {
                self.report.remarks.push(format!(
                    "{id} itself is not in the export: it was made, as old as the oldest in it"
                ));
                threads.push(Thread {
                    id: id.clone(),
                    created_at,
                    metadata: Default::default(),
                    tool_resources: Default::default(),
                });
            }
        }
        let id = |thread: &Thread| thread.id.to_string();
        let new = self
            .put(
                conn,
                Kind::Thread,
                Table::Threads,
                threads,
                id,
                async |conn, rows| store::threads::import(conn, project, rows).await,
            )
            .await?;
        for thread in new {
            for WrittenFile { path, file_id } in written.remove(&thread.id).unwrap_or_default() {
                if store::files::lock(&mut *conn, project, &file_id).await? {
                    store::workspace_files::upsert(
                        &mut *conn, project, &thread.id, &path, &file_id,
                    )
                    .await?;
                }
            }
        }
        Ok(())
    }

    async fn inside_threads(
        &mut self,
        conn: &mut PgConnection,
        inside: Contents,
    ) -> Result<(), TransferError> {
        let project = self.project;
        let Contents {
            runs,
            steps,
            messages,
        } = inside;
        let thread = |run: &Run| run.thread.to_string();
        let id = |run: &Run| run.id.to_string();
        let parent = (Kind::Thread, Table::Threads);
        let runs = self
            .with_parent(conn, Kind::Run, runs, id, parent, thread)
            .await?;
        self.put(
            conn,
            Kind::Run,
            Table::Runs,
            runs,
            id,
            async |conn, rows| store::runs::import(conn, project, rows).await,
        )
        .await?;

        let run = |step: &RunStep| step.run.to_string();
        let id = |step: &RunStep| step.id.to_string();
        let steps = self
            .with_parent(conn, Kind::Step, steps, id, (Kind::Run, Table::Runs), run)
            .await?;
        self.put(
            conn,
            Kind::Step,
            Table::RunSteps,
            steps,
            id,
            async |conn, rows| store::run_steps::import(conn, project, rows).await,
        )
        .await?;

        let thread = |message: &Message| message.thread.to_string();
        let id = |message: &Message| message.id.to_string();
        let messages = self
            .with_parent(conn, Kind::Message, messages, id, parent, thread)
            .await?;
        let table = Table::Messages;
        self.put(
            conn,
            Kind::Message,
            table,
            messages,
            id,
            async |conn, rows| store::messages::import(conn, project, rows).await,
        )
        .await?;
        Ok(())
    }

    /// Stores objects that do not exist yet, and returns them.
    async fn put<T>(
        &mut self,
        conn: &mut PgConnection,
        kind: Kind,
        table: Table,
        mut items: Vec<T>,
        id: impl Fn(&T) -> String,
        import: impl AsyncFn(&mut PgConnection, &[T]) -> Result<u64, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut seen = HashSet::new();
        items.retain(|item| seen.insert(id(item)));
        let ids: Vec<&str> = seen.iter().map(String::as_str).collect();
        let existing = existing_ids(&mut *conn, self.project, table, &ids).await?;
        let mut new = Vec::new();
        for item in items {
            let id = id(&item);
            if existing.others.contains(&id) {
                let text = format!("{id}: this id belongs to another project of this server");
                self.refuse(kind, &id, text);
            } else if existing.ours.contains(&id) {
                self.tally(kind).known += 1;
            } else {
                new.push(item);
            }
        }
        self.insert(conn, kind, &new, import).await?;
        Ok(new)
    }

    async fn insert<T>(
        &mut self,
        conn: &mut PgConnection,
        kind: Kind,
        items: &[T],
        import: impl AsyncFn(&mut PgConnection, &[T]) -> Result<u64, StoreError>,
    ) -> Result<(), StoreError> {
        for rows in items.chunks(ROWS) {
            let new = import(&mut *conn, rows).await?;
            let tally = self.tally(kind);
            tally.new += new;
            tally.known += (rows.len() as u64).saturating_sub(new);
        }
        Ok(())
    }

    /// Returns the objects whose parents are the project's, and refuses the others.
    async fn with_parent<T>(
        &mut self,
        conn: &mut PgConnection,
        kind: Kind,
        items: Vec<T>,
        id: impl Fn(&T) -> String,
        (parent_kind, parents): (Kind, Table),
        parent: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, StoreError> {
        let ids: HashSet<String> = items.iter().map(&parent).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let ours = existing_ids(conn, self.project, parents, &ids).await?.ours;
        let mut orphans: BTreeMap<String, u64> = BTreeMap::new();
        let mut kept = Vec::new();
        for item in items {
            let parent = parent(&item);
            if ours.contains(&parent) {
                kept.push(item);
                continue;
            }
            if !self.refuse_with(parent_kind, &parent, kind, &id(&item)) {
                *orphans.entry(parent).or_default() += 1;
            }
        }
        for (parent, count) in orphans {
            self.tally(kind).refused += count;
            let objects = kind.plural();
            let reason = "which is neither in the export nor in this project";
            let line = format!("{count} {objects} of {parent}, {reason}");
            self.refusals.refuse_all(line);
        }
        Ok(kept)
    }

    fn tally(&mut self, kind: Kind) -> &mut Tally {
        self.report.tallies.entry(kind).or_default()
    }

    fn refuse(&mut self, kind: Kind, id: &str, reason: String) {
        self.tally(kind).refused += 1;
        self.refusals.refuse(kind, id.to_owned(), reason);
    }

    fn refuse_with(&mut self, parent_kind: Kind, parent: &str, kind: Kind, id: &str) -> bool {
        let parent = (parent_kind, parent.to_owned());
        let is_refused = self.refusals.refuse_with(&parent, kind, id);
        self.tally(kind).refused += u64::from(is_refused);
        is_refused
    }
}
