//! Sources of an import: folders, files and streams of JSON.
//!
//! An export in assistd's own format is streamed. Of other formats, one unit is in memory at a
//! time: a thread of the manifest layout, or a whole plain list.

mod gather;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::transfer::{CONTENTS, FORMAT, Kind, MANIFEST, OBJECTS, TransferError, VERSION};

/// Approximate number of objects per transaction; a thread is never split.
const CHUNK: usize = 500;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Debug)]
pub(super) struct SourceObject {
    pub(super) kind: Kind,
    pub(super) fields: Map<String, Value>,
    /// Name of the file that contains it.
    pub(super) at: Arc<str>,
}

impl SourceObject {
    pub(super) fn id(&self) -> &str {
        let id = self.fields.get("id").and_then(Value::as_str);
        id.unwrap_or("an object without an id")
    }

    /// Id of the thread that it is or belongs to.
    pub(super) fn thread(&self) -> Option<&str> {
        let field = match self.kind {
            Kind::Thread => "id",
            kind if kind.is_of_thread() => "thread_id",
            _ => return None,
        };
        Some(
            self.fields
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )
    }
}

#[derive(Debug)]
pub struct Source {
    /// Units of files that are read together.
    units: VecDeque<Vec<Input>>,
    /// An export in assistd's own format that is being read.
    own: Option<Values>,
    chunker: Chunker,
    ready: VecDeque<Vec<SourceObject>>,
    skipped: BTreeMap<String, u64>,
    contents: Option<PathBuf>,
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

#[derive(Debug, Clone)]
enum Input {
    Stdin,
    File(PathBuf),
}

impl Source {
    /// Opens a folder or a file; `-` is standard input. The format is detected from the content.
    pub fn open(path: &Path) -> Result<Self, TransferError> {
        let mut contents = None;
        let units = if path.as_os_str() == "-" {
            vec![vec![Input::Stdin]]
        } else if path.is_dir() {
            let folder = path.join(CONTENTS);
            contents = folder.is_dir().then_some(folder);
            units_of_folder(path)?
        } else if is_manifest(path)? {
            units_of_folder(path.parent().unwrap_or(Path::new(".")))?
        } else {
            vec![vec![Input::File(path.to_owned())]]
        };
        let mut total = Some(0);
        for input in units.iter().flatten() {
            let size = match input {
                Input::Stdin => None,
                Input::File(path) => {
                    Some(path.metadata().map_err(TransferError::file(path))?.len())
                }
            };
            total = total.zip(size).map(|(total, size)| total + size);
        }
        Ok(Self {
            units: units.into(),
            own: None,
            chunker: Chunker::default(),
            ready: VecDeque::new(),
            skipped: BTreeMap::new(),
            contents,
            read: Arc::default(),
            total,
        })
    }

    pub(super) fn contents(&self) -> Option<&Path> {
        self.contents.as_deref()
    }

    /// The number of bytes read, and the total if it is known.
    pub(super) fn progress(&self) -> (u64, Option<u64>) {
        (self.read.load(Ordering::Relaxed), self.total)
    }

    pub(super) fn skipped(&self) -> impl Iterator<Item = String> {
        let remark = |(what, count): (&String, &u64)| format!("passed over: {what} ({count})");
        self.skipped.iter().map(remark)
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<SourceObject>>, TransferError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            if let Some(own) = &mut self.own {
                match own.next()? {
                    Some(value) => {
                        let mut objects = Vec::new();
                        gather::gather(value, &own.at, &mut objects, &mut self.skipped);
                        let chunks = objects
                            .into_iter()
                            .filter_map(|object| self.chunker.push(object));
                        self.ready.extend(chunks);
                    }
                    None => {
                        self.own = None;
                        self.ready.extend(self.chunker.remaining());
                    }
                }
                continue;
            }
            match self.units.pop_front() {
                Some(unit) => self.read_unit(&unit)?,
                None => return Ok(None),
            }
        }
    }

    /// Reads a unit of files; an export in assistd's own format is only opened.
    fn read_unit(&mut self, unit: &[Input]) -> Result<(), TransferError> {
        let mut objects = Vec::new();
        for input in unit {
            let mut values = Values::open(input, self.read.clone())?;
            let Some(first) = values.next()? else {
                continue;
            };
            if first.get("object").and_then(Value::as_str) == Some(FORMAT) {
                check_version(&first, &values.at)?;
                if unit.len() == 1 {
                    self.own = Some(values);
                    return Ok(());
                }
            } else {
                gather::gather(first, &values.at, &mut objects, &mut self.skipped);
            }
            while let Some(value) = values.next()? {
                gather::gather(value, &values.at, &mut objects, &mut self.skipped);
            }
        }
        sort(&mut objects);
        let chunks = objects
            .into_iter()
            .filter_map(|object| self.chunker.push(object));
        self.ready.extend(chunks);
        self.ready.extend(self.chunker.remaining());
        Ok(())
    }
}

fn check_version(header: &Value, at: &str) -> Result<(), TransferError> {
    let version = header.get("version").and_then(Value::as_u64);
    if version.is_some_and(|version| version <= VERSION) {
        return Ok(());
    }
    Err(TransferError::Format {
        at: at.to_owned(),
        problem: format!(
            "this export is of a newer version than this program reads, which is {VERSION}"
        ),
    })
}

/// Sorts parents before children, and all objects of a thread together.
fn sort(objects: &mut [SourceObject]) {
    let mut threads: HashMap<String, usize> = HashMap::new();
    for object in &*objects {
        if let Some(thread) = object.thread() {
            let next = threads.len();
            threads.entry(thread.to_owned()).or_insert(next);
        }
    }
    objects.sort_by_cached_key(|object| match object.thread() {
        None => (false, 0, object.kind),
        Some(thread) => (true, threads.get(thread).copied().unwrap_or(0), object.kind),
    });
}

#[derive(Debug, Default)]
struct Chunker {
    pending: Vec<SourceObject>,
}

impl Chunker {
    fn push(&mut self, next: SourceObject) -> Option<Vec<SourceObject>> {
        let last = self.pending.last();
        let same_thread =
            last.is_some_and(|last| last.thread().is_some() && last.thread() == next.thread());
        let chunk = self.pending.len() >= CHUNK && !same_thread;
        let chunk = chunk.then(|| std::mem::take(&mut self.pending));
        self.pending.push(next);
        chunk
    }

    fn remaining(&mut self) -> Option<Vec<SourceObject>> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then_some(rest)
    }
}

fn units_of_folder(folder: &Path) -> Result<Vec<Vec<Input>>, TransferError> {
    let own = folder.join(OBJECTS);
    if own.is_file() {
        return Ok(vec![vec![Input::File(own)]]);
    }
    let manifest = folder.join("manifest.json");
    if is_manifest(&manifest)? {
        let mut lists = json_files(folder, false)?;
        lists.retain(|path| *path != manifest);
        let mut units = vec![lists.into_iter().map(Input::File).collect()];
        let threads = folder.join("threads");
        if threads.is_dir() {
            let threads = json_files(&threads, false)?;
            units.extend(threads.into_iter().map(|path| vec![Input::File(path)]));
        }
        return Ok(units);
    }
    let files = json_files(folder, true)?;
    if files.is_empty() {
        return Err(TransferError::Format {
            at: folder.display().to_string(),
            problem: "there is nothing to import: no .json and no .jsonl".to_owned(),
        });
    }
    Ok(vec![files.into_iter().map(Input::File).collect()])
}

fn is_manifest(path: &Path) -> Result<bool, TransferError> {
    if path.file_name().is_none_or(|name| name != "manifest.json") || !path.is_file() {
        return Ok(false);
    }
    let text = std::fs::read(path).map_err(TransferError::file(path))?;
    let manifest: Value = serde_json::from_slice(
        text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text),
    )
    .map_err(|error| TransferError::Format {
        at: path.display().to_string(),
        problem: error.to_string(),
    })?;
    let schema = manifest.get("export_schema").or(manifest.get("schema"));
    Ok(schema.and_then(Value::as_str) == Some(MANIFEST))
}

/// The JSON files in a folder, with `deep` also in its subfolders, sorted by name. The content of
/// exported files may be JSON as well and is skipped.
fn json_files(folder: &Path, deep: bool) -> Result<Vec<PathBuf>, TransferError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TransferError::file(folder))? {
        let path = entry.map_err(TransferError::file(folder))?.path();
        if path.is_dir() {
            if deep && path.file_name().is_some_and(|name| name != CONTENTS) {
                files.extend(json_files(&path, deep)?);
            }
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("json" | "jsonl" | "ndjson")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The JSON values of a file: a single one, or one per line.
struct Values {
    at: Arc<str>,
    stream: serde_json::StreamDeserializer<'static, serde_json::de::IoRead<Reader>, Value>,
}

type Reader = BufReader<Box<dyn Read + Send>>;

impl Values {
    fn open(input: &Input, read: Arc<AtomicU64>) -> Result<Self, TransferError> {
        let (at, path): (_, &Path) = match input {
            Input::Stdin => ("standard input".to_owned(), Path::new("-")),
            Input::File(path) => (path.display().to_string(), path),
        };
        let failed = || TransferError::file(path);
        let bytes: Box<dyn Read + Send> = match input {
            Input::Stdin => Box::new(std::io::stdin()),
            Input::File(path) => Box::new(File::open(path).map_err(failed())?),
        };
        let bytes = Counting { bytes, read };
        let mut reader: Reader = BufReader::with_capacity(1 << 16, Box::new(bytes));
        if reader
            .fill_buf()
            .map_err(failed())?
            .starts_with(BYTE_ORDER_MARK)
        {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(Self {
            at: at.into(),
            stream: serde_json::Deserializer::from_reader(reader).into_iter(),
        })
    }

    fn next(&mut self) -> Result<Option<Value>, TransferError> {
        let value = self.stream.next().transpose();
        value.map_err(|error| TransferError::Format {
            at: self.at.to_string(),
            problem: error.to_string(),
        })
    }
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Values").field(&self.at).finish()
    }
}

struct Counting {
    bytes: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
