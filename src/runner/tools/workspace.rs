//! A thread's `/mnt/data`: which files belong there, and under which names.

use std::collections::{BTreeMap, HashSet};

use crate::domain::ids::FileId;
use crate::domain::run::Run;
use crate::store::Pool;
use crate::store::StoreError;
use crate::store::workspace_files::{self, Given, Written};

/// Where it is in the sandbox.
pub(in crate::runner) const FOLDER: &str = "/mnt/data/";

/// The line before the list of files.
const HEADING: &str = "Files available to code_interpreter:";

/// Longest name of a file that is given; longer ones are cut.
const NAME_BYTES: usize = 200;

/// The files of a thread's `/mnt/data`.
#[derive(Debug, Clone, Default)]
pub(in crate::runner) struct Workspace {
    given: Vec<Item>,
    /// By path.
    written: BTreeMap<String, Item>,
}

/// A file and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runner) struct Item {
    /// The stored file.
    pub(in crate::runner) file: FileId,
    /// Path below the folder.
    pub(in crate::runner) path: String,
}

impl Workspace {
    /// What the assistant and the thread of a run have now.
    pub(in crate::runner) async fn load(pool: &Pool, run: &Run) -> Result<Self, StoreError> {
        let given = workspace_files::given(pool, &run.project, &run.assistant, &run.thread).await?;
        let written = workspace_files::written(pool, &run.project, &run.thread).await?;
        Ok(Self::new(given, written))
    }

    fn new(given: Vec<Given>, written: Vec<Written>) -> Self {
        let mut names = HashSet::new();
        let given = given.into_iter().map(|file| Item {
            path: own_name(&file.filename, &mut names),
            file: file.id,
        });
        let mut workspace = Self {
            given: given.collect(),
            written: BTreeMap::new(),
        };
        for file in written {
            workspace.wrote(file.path, file.file_id);
        }
        workspace
    }

    /// Notes that code has written a file.
    pub(in crate::runner) fn wrote(&mut self, path: String, file: FileId) {
        let key = path.clone();
        self.written.insert(key, Item { file, path });
    }

    /// What the client gave. Each has its id as a second name.
    pub(in crate::runner) fn given(&self) -> &[Item] {
        &self.given
    }

    /// What code has written.
    pub(in crate::runner) fn written(&self) -> impl Iterator<Item = &Item> {
        self.written.values()
    }

    /// Whether code has written something else where a given file was.
    pub(in crate::runner) fn is_overwritten(&self, given: &Item) -> bool {
        self.written.contains_key(&given.path)
    }

    /// What the model is told, if there is anything to tell. What code writes is told with the
    /// code's output, so that this stays the same from turn to turn.
    pub(in crate::runner) fn describe(&self) -> Option<String> {
        if self.given.is_empty() {
            return None;
        }
        let mut text = HEADING.to_owned();
        for item in &self.given {
            let Item { path, file } = item;
            text.push_str(&format!("\n- {FOLDER}{path} (also {FOLDER}{file})"));
        }
        Some(text)
    }

    /// Every path below the folder with the file that has its content.
    pub(in crate::runner) fn links(&self) -> Vec<(String, FileId)> {
        let given = self.given.iter().flat_map(|item| {
            [item.path.clone(), item.file.to_string()].map(|path| (path, item.file.clone()))
        });
        let written = self
            .written
            .values()
            .map(|item| (item.path.clone(), item.file.clone()));
        // What was written counts before what was given.
        let links: BTreeMap<String, FileId> = given.chain(written).collect();
        links.into_iter().collect()
    }
}

/// A file's own name, as far as it can be a name in one folder, and unlike those before it.
fn own_name(filename: &str, taken: &mut HashSet<String>) -> String {
    let last = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|char| !char.is_control()).collect();
    let clean = match clean.trim() {
        "" | "." | ".." => "file",
        name => &name[..name.floor_char_boundary(NAME_BYTES)],
    };
    let (stem, extension) = match clean.rfind('.') {
        Some(dot) if dot > 0 => clean.split_at(dot),
        _ => (clean, ""),
    };
    let mut name = clean.to_owned();
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{stem}-{count}{extension}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &str, filename: &str) -> Given {
        Given {
            id: id.parse().expect("it is an id"),
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
            given("file-e", &"ä".repeat(300)),
        ];
        let workspace = Workspace::new(files, Vec::new());
        let paths: Vec<&str> = workspace.given.iter().map(|item| &*item.path).collect();
        let long = "ä".repeat(NAME_BYTES / 2);
        assert_eq!(
            paths,
            ["sales.csv", "sales-2.csv", "file", "ab.txt", &*long]
        );
        let told = workspace.describe().expect("there are files");
        assert!(told.contains("\n- /mnt/data/sales-2.csv (also /mnt/data/file-b)\n"));
    }

    #[test]
    fn what_code_wrote_counts_before_what_was_given() {
        let mut workspace = Workspace::new(vec![given("file-a", "sales.csv")], Vec::new());
        let new: FileId = "file-new".parse().expect("it is an id");
        workspace.wrote("sales.csv".into(), new.clone());
        assert!(workspace.is_overwritten(&workspace.given()[0].clone()));
        let links = workspace.links();
        let link = |path: &str| links.iter().find(|(at, _)| at == path).map(|(_, id)| id);
        assert_eq!(link("sales.csv"), Some(&new));
        assert_eq!(link("file-a").map(FileId::as_str), Some("file-a"));
    }
}
