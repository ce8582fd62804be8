//! Links to files in the sandbox, such as `sandbox:/mnt/data/report.csv`, however they are spelt.

use unicode_normalization::char::is_combining_mark;

use crate::domain::ids::FileId;
use crate::domain::message::AnnotationTarget;
use crate::engine::annotate::Reference;
use crate::engine::annotate::spelling::{self, PathChar};

/// The scheme that models give links to files. Such links may stand anywhere.
const SCHEME: &str = "sandbox:";

/// What may stand in its place where a link's target is expected.
const TARGET_PREFIXES: [&str; 2] = ["file:", "/"];

/// What stands before the target of a link in Markdown, of a link's definition, and in HTML.
const BEFORE_TARGET: [&str; 6] = ["](", "]:", "href=\"", "href='", "src=\"", "src='"];

/// The folder of the files, as paths are compared.
const FOLDER: &str = "mnt/data/";

/// Longest spelling of a character of a path, in bytes, such as `%25F0%259F%2598%2580`.
const SPELLING_BYTES: usize = 24;

/// The files that may be linked to.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: Vec<Known>,
    /// The length of the longest path, in characters.
    longest: usize,
}

#[derive(Debug)]
struct Known {
    /// Path below the folder.
    path: String,
    /// The whole path, as paths are compared.
    compared: Vec<char>,
    file: FileId,
}

/// The text may yet become a link, or its path may go on.
struct Incomplete;

impl Links {
    /// Links to these paths below the folder.
    pub(super) fn new(paths: Vec<(String, FileId)>) -> Self {
        let known = paths.into_iter().map(|(path, file)| {
            let spelt = spelling::read(&format!("{FOLDER}{path}"), usize::MAX, true);
            Known {
                path,
                compared: spelt.into_iter().map(|it| it.char).collect(),
                file,
            }
        });
        let known: Vec<Known> = known.collect();
        let longest = known.iter().map(|known| known.compared.len()).max();
        Self {
            known,
            longest: longest.unwrap_or(0),
        }
    }

    /// Whether there is nothing to link to.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What the text begins with, if that is a link or may become one. `before` is the text before
    /// it, in two parts; with `whole`, no more of it comes.
    pub(super) fn read(&self, text: &str, before: [&str; 2], whole: bool) -> Option<Reference> {
        let first = text.chars().next()?;
        let prefixes: &[&str] = match first {
            _ if self.is_empty() => &[],
            's' | 'S' => &[SCHEME],
            'f' | 'F' | '/' if is_before_target(before) => &TARGET_PREFIXES,
            _ => &[],
        };
        let begun = prefixes.iter().find_map(|prefix| {
            let length = text.len().min(prefix.len());
            let (text, begun) = (&text.as_bytes()[..length], &prefix.as_bytes()[..length]);
            text.eq_ignore_ascii_case(begun).then_some(*prefix)
        });
        let prefix = begun?;
        let Some(path) = text.get(prefix.len()..) else {
            return (!whole).then_some(Reference::Unsure);
        };
        Some(match self.find(path, prefix == SCHEME, whole) {
            Ok(Some((end, file))) => {
                let target = AnnotationTarget::FilePath(file.clone());
                Reference::To(prefix.len() + end, target)
            }
            Ok(None) => Reference::None(prefix.len()),
            Err(Incomplete) => Reference::Unsure,
        })
    }

    /// The longest known path that this text begins with: where it ends, and its file. `is_scheme`
    /// says that it stands behind `sandbox:`, where models leave the folder out at times.
    fn find(
        &self,
        text: &str,
        is_scheme: bool,
        whole: bool,
    ) -> Result<Option<(usize, &FileId)>, Incomplete> {
        let whole = whole || text.len() > SPELLING_BYTES * (self.longest + 1);
        let spelt = spelling::read(text, self.longest, whole);
        let mut best = None;
        for known in &self.known {
            let path = known.compared.as_slice();
            let in_root = &path[FOLDER.len()..];
            let paths = [Some(path), Some(in_root).filter(|_| is_scheme)];
            for path in paths.into_iter().flatten() {
                let pairs = spelt.iter().zip(path);
                let shared = pairs.take_while(|(a, b)| a.char == **b).count();
                if shared == spelt.len() && !whole {
                    return Err(Incomplete);
                }
                let last = spelt.get(path.len().wrapping_sub(1));
                let Some(last) = last.filter(|last| shared == path.len() && last.is_last) else {
                    continue;
                };
                if ends(&text[last.end..], spelt.get(path.len())) {
                    let likeness = likeness(&text[..last.end], &known.path);
                    best = best.max(Some((last.end, likeness, &known.file)));
                }
            }
        }
        Ok(best.map(|(end, _, file)| (end, file)))
    }
}

/// Whether a link's target is to be expected behind this text.
fn is_before_target(before: [&str; 2]) -> bool {
    let before = before.concat();
    let before = before.trim_end_matches([' ', '<']);
    BEFORE_TARGET.iter().any(|it| before.ends_with(it))
}

/// Whether a path ends where this text begins, whose first character is `next`.
fn ends(text: &str, next: Option<&PathChar>) -> bool {
    let next = match text.chars().next() {
        Some('%' | '\\' | '&') => next.map(|it| it.char),
        first => first,
    };
    !next.is_some_and(|char| {
        char.is_alphanumeric() || is_combining_mark(char) || matches!(char, '_' | '-' | '/')
    })
}

/// How alike a spelling is to the path that it stands for: files may have names that are compared as
/// equal, such as `a b.csv` and `a+b.csv`.
fn likeness(text: &str, path: &str) -> u8 {
    match (text.ends_with(path), spelling::decode(text).ends_with(path)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}
