//! The files of a thread's `/mnt/data` and their names.

use std::collections::{BTreeMap, HashSet};

use sandbox_protocol::PlacedFile;

use crate::domain::ids::FileId;
use crate::domain::run::Run;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::workspace_files::{self, ResourceFile, WrittenFile};

pub(in crate::engine) const FOLDER: &str = "/mnt/data/";

const HEADING: &str = "Files available to code_interpreter:";

/// Longest name of an uploaded file, in bytes. Longer names are truncated before their extension.
const NAME_BYTES: usize = 200;

/// Longest extension, in bytes. After the last dot of a sentence there is more text than that.
const EXTENSION_BYTES: usize = 16;

/// Extensions of compressed files, which follow the extension of the contents.
const COMPRESSED: [&str; 8] = ["gz", "bz2", "xz", "zst", "lz4", "br", "z", "lzma"];

/// The files of a thread's `/mnt/data`: those that the client gave to the assistant or the thread,
/// and those that code has written.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Workspace {
    given: Vec<WorkspaceFile>,
    written: BTreeMap<String, WorkspaceFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct WorkspaceFile {
    pub(in crate::engine) file: FileId,
    pub(in crate::engine) path: String,
}

impl Workspace {
    pub(in crate::engine) async fn load(pool: &Pool, run: &Run) -> Result<Self, StoreError> {
        let given =
            workspace_files::resource_files(pool, &run.project, &run.assistant, &run.thread)
                .await?;
        let written = workspace_files::written_files(pool, &run.project, &run.thread).await?;
        Ok(Self::new(given, written))
    }

    fn new(given: Vec<ResourceFile>, written: Vec<WrittenFile>) -> Self {
        let mut names = HashSet::new();
        let given = given.into_iter().map(|file| WorkspaceFile {
            path: unique_name(&file.filename, &mut names),
            file: file.id,
        });
        let mut workspace = Self {
            given: given.collect(),
            written: BTreeMap::new(),
        };
        for file in written {
            workspace.add_written(file.path, file.file_id);
        }
        workspace
    }

    pub(in crate::engine) fn add_written(&mut self, path: String, file: FileId) {
        let key = path.clone();
        self.written.insert(key, WorkspaceFile { file, path });
    }

    /// The files that the client gave. Each has its id as a second name.
    pub(in crate::engine) fn given(&self) -> &[WorkspaceFile] {
        &self.given
    }

    pub(in crate::engine) fn written(&self) -> impl Iterator<Item = &WorkspaceFile> {
        self.written.values()
    }

    pub(in crate::engine) fn is_overwritten(&self, given: &WorkspaceFile) -> bool {
        self.written.contains_key(&given.path)
    }

    /// Tags of files of a sandbox session that no longer belong there, or not under that path. A file
    /// that code has written is current unless a newer one was stored for its path.
    pub(in crate::engine) fn stale(&self, placed: &[PlacedFile]) -> Vec<String> {
        let belongs = |file: &PlacedFile| {
            let given = self
                .given
                .iter()
                .find(|item| item.file.as_str() == file.tag);
            let own_path = given.is_some_and(|item| {
                item.path == file.path || (self.is_overwritten(item) && file.path == file.tag)
            });
            let written = self.written.get(&file.path);
            own_path || written.is_some_and(|item| item.file.as_str() == file.tag)
        };
        let stale = placed.iter().filter(|file| !belongs(file));
        stale.map(|file| file.tag.clone()).collect()
    }

    /// The list of given files for the system message. `None` if there are none. Files that code
    /// writes are listed in the code's output instead, so that this stays the same from turn to turn.
    pub(in crate::engine) fn describe(&self) -> Option<String> {
        if self.given.is_empty() {
            return None;
        }
        let mut text = HEADING.to_owned();
        for item in &self.given {
            let WorkspaceFile { path, file } = item;
            text.push_str(&format!("\n- {FOLDER}{path} (also {FOLDER}{file})"));
        }
        Some(text)
    }

    pub(in crate::engine) fn links(&self) -> Vec<(String, FileId)> {
        let given = self.given.iter().flat_map(|item| {
            [item.path.clone(), item.file.to_string()].map(|path| (path, item.file.clone()))
        });
        let written = self
            .written
            .values()
            .map(|item| (item.path.clone(), item.file.clone()));
        // Later entries win: a written file replaces a given one of the same path.
        let links: BTreeMap<String, FileId> = given.chain(written).collect();
        links.into_iter().collect()
    }
}

/// A file name that is valid within one folder and differs from those taken before.
fn unique_name(filename: &str, taken: &mut HashSet<String>) -> String {
    let last = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|char| !char.is_control()).collect();
    let clean = match clean.trim() {
        "" | "." | ".." => "file",
        name => name,
    };
    let (stem, extension) = split_extension(clean);
    let fit = |number: &str| {
        let length = NAME_BYTES - number.len() - extension.len();
        let stem = &stem[..stem.floor_char_boundary(length)];
        format!("{stem}{number}{extension}")
    };
    let mut name = fit("");
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = fit(&format!("-{count}"));
    }
    name
}

fn split_extension(name: &str) -> (&str, &str) {
    let last_dot = |text: &str| {
        let dot = text.rfind('.').filter(|&dot| dot > 0)?;
        let extension = &text[dot + 1..];
        let is_extension =
            extension.len() <= EXTENSION_BYTES && !extension.contains(char::is_whitespace);
        is_extension.then_some(dot)
    };
    let Some(dot) = last_dot(name) else {
        return (name, "");
    };
    let is_compressed = COMPRESSED
        .iter()
        .any(|extension| name[dot + 1..].eq_ignore_ascii_case(extension));
    let dot = Some(dot)
        .filter(|_| is_compressed)
        .and_then(|dot| last_dot(&name[..dot]))
        .unwrap_or(dot);
    name.split_at(dot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &str, filename: &str) -> ResourceFile {
        ResourceFile {
            id: id.parse().expect("the test uses a valid id"),
            filename: filename.into(),
        }
    }

    #[test]
    fn files_have_their_own_names_and_no_two_the_same() {
        let files = vec![
            given("file-a", "sales.csv"),
            given("file-b", "q2/sales.csv"),
            given("file-c", "../.."),
            given("file-d", "a\nb\u{7f}.txt"),
        ];
        let workspace = Workspace::new(files, Vec::new());
        let paths: Vec<&str> = workspace.given.iter().map(|item| &*item.path).collect();
        assert_eq!(paths, ["sales.csv", "sales-2.csv", "file", "ab.txt"]);
        let described = workspace.describe().expect("the workspace has files");
        assert!(described.contains("\n- /mnt/data/sales-2.csv (also /mnt/data/file-b)\n"));
    }

    fn paths(names: &[&str]) -> Vec<String> {
        let files = names.iter().zip(0..);
        let files = files.map(|(name, number)| given(&format!("file-{number}"), name));
        let workspace = Workspace::new(files.collect(), Vec::new());
        let paths = workspace.given.into_iter().map(|item| item.path);
        paths.collect()
    }

    #[test]
    fn a_long_name_is_cut_before_its_extension() {
        for extension in [".csv", ".CSV", ".tar.gz", ".csv.GZ", ".parquet"] {
            let [path] = &paths(&[&format!("{}{extension}", "n".repeat(240))])[..] else {
                panic!("one file has one path");
            };
            assert_eq!((path.len(), path.ends_with(extension)), (NAME_BYTES, true));
        }
        // A sentence has no extension, nor has a name that begins with a dot.
        let sentence = format!("{}. And then some more words", "n".repeat(190));
        assert_eq!(paths(&[&sentence]), [&sentence[..NAME_BYTES]]);
        let hidden = format!(".{}", "n".repeat(240));
        assert_eq!(paths(&[&hidden]), [&hidden[..NAME_BYTES]]);
        assert_eq!(paths(&["v1.2.csv", "v1.2.csv"]), ["v1.2.csv", "v1.2-2.csv"]);
        assert_eq!(paths(&["a.tar.gz", "a.tar.gz"]), ["a.tar.gz", "a-2.tar.gz"]);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        for (name, cut) in [("ä", 98), ("漢", 65), ("𝄞", 49)] {
            let path = &paths(&[&format!("{}.csv", name.repeat(120))])[0];
            assert_eq!(*path, format!("{}.csv", name.repeat(cut)));
        }
    }

    #[test]
    fn long_names_with_the_same_beginning_stay_apart() {
        let name = |end| format!("{}{end}.csv", "n".repeat(240));
        let paths = paths(&[&name("a"), &name("b"), &name("c")]);
        let distinct: HashSet<&String> = paths.iter().collect();
        assert_eq!(distinct.len(), 3, "{paths:?}");
        for (path, end) in paths.iter().zip(["n.csv", "n-2.csv", "n-3.csv"]) {
            assert!(path.len() <= NAME_BYTES && path.ends_with(end), "{path}");
        }
    }

    #[test]
    fn what_a_session_has_is_stale_when_it_is_no_longer_listed_or_has_another_name() {
        let files = vec![given("file-a", "sales.csv"), given("file-b", "in.csv")];
        let mut workspace = Workspace::new(files, Vec::new());
        workspace.add_written(
            "in.csv".into(),
            "file-new".parse().expect("the test uses a valid id"),
        );
        let placed = |tag: &str, path: &str| PlacedFile {
            tag: tag.into(),
            path: path.into(),
        };
        let current = [
            placed("file-a", "sales.csv"),
            placed("file-b", "in.csv"),
            placed("file-b", "file-b"),
            placed("file-new", "in.csv"),
        ];
        assert_eq!(workspace.stale(&current), Vec::<String>::new());
        let stale = [
            placed("file-a", "sales-2.csv"),
            placed("file-gone", "old.csv"),
            placed("file-before", "in.csv"),
        ];
        let tags = ["file-a", "file-gone", "file-before"];
        assert_eq!(workspace.stale(&stale), tags);
    }

    #[test]
    fn what_code_wrote_counts_before_what_was_given() {
        let mut workspace = Workspace::new(vec![given("file-a", "sales.csv")], Vec::new());
        let new: FileId = "file-new".parse().expect("the test uses a valid id");
        workspace.add_written("sales.csv".into(), new.clone());
        assert!(workspace.is_overwritten(&workspace.given()[0].clone()));
        let links = workspace.links();
        let link = |path: &str| links.iter().find(|(at, _)| at == path).map(|(_, id)| id);
        assert_eq!(link("sales.csv"), Some(&new));
        assert_eq!(link("file-a").map(FileId::as_str), Some("file-a"));
    }
}
