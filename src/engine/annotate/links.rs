//! Links to files in the sandbox, such as `sandbox:/mnt/data/report.csv`, in any spelling.

use unicode_normalization::char::is_combining_mark;

use crate::domain::ids::FileId;
use crate::domain::message::AnnotationTarget;
use crate::engine::annotate::reference::Reference;
use crate::engine::annotate::spelling::{self, PathChar};

/// The URL scheme of links to files. Such links are recognised anywhere in a text.
const SCHEME: &str = "sandbox:";

/// What may replace the scheme in the target of a link.
const TARGET_PREFIXES: [&str; 2] = ["file:", "/"];

/// What precedes a link's target in Markdown links and link definitions, and in HTML.
const BEFORE_TARGET: [&str; 6] = ["](", "]:", "href=\"", "href='", "src=\"", "src='"];

/// The folder of the files, in the normalized form in which paths are compared.
const FOLDER: &str = "mnt/data/";

/// Longest spelling of one character of a path, in bytes, such as `%25F0%259F%2598%2580`.
const SPELLING_BYTES: usize = 24;

#[derive(Debug, Default)]
pub(super) struct Links {
    known: Vec<KnownPath>,
    longest: usize,
}

#[derive(Debug)]
struct KnownPath {
    path: String,
    compared: Vec<char>,
    file: FileId,
}

struct Incomplete;

impl Links {
    pub(super) fn new(paths: Vec<(String, FileId)>) -> Self {
        let known = paths.into_iter().map(|(path, file)| {
            let spelt = spelling::read(&format!("{FOLDER}{path}"), usize::MAX, true);
            KnownPath {
                path,
                compared: spelt.into_iter().map(|it| it.char).collect(),
                file,
            }
        });
        let known: Vec<KnownPath> = known.collect();
        let longest = known.iter().map(|known| known.compared.len()).max();
        Self {
            known,
            longest: longest.unwrap_or(0),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What the text begins with, if that is a link or may become one. `before` is the text before
    /// it, in two parts. `is_complete` says that no more of it follows.
    pub(super) fn read(
        &self,
        text: &str,
        before: [&str; 2],
        is_complete: bool,
    ) -> Option<Reference> {
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
            return (!is_complete).then_some(Reference::Incomplete);
        };
        Some(match self.find(path, prefix == SCHEME, is_complete) {
            Ok(Some((end, file))) => {
                let target = AnnotationTarget::FilePath(file.clone());
                Reference::To(prefix.len() + end, target)
            }
            Ok(None) => Reference::Plain(prefix.len()),
            Err(Incomplete) => Reference::Incomplete,
        })
    }

    /// The longest known path that this text begins with, as its end and its file. `has_scheme` says
    /// that `sandbox:` precedes it; then models sometimes leave the folder out.
    fn find(
        &self,
        text: &str,
        has_scheme: bool,
        is_complete: bool,
    ) -> Result<Option<(usize, &FileId)>, Incomplete> {
        let is_complete = is_complete || text.len() > SPELLING_BYTES * (self.longest + 1);
        let spelt = spelling::read(text, self.longest, is_complete);
        let mut best = None;
        for known in &self.known {
            let path = known.compared.as_slice();
            let in_root = &path[FOLDER.len()..];
            let paths = [Some(path), Some(in_root).filter(|_| has_scheme)];
            for path in paths.into_iter().flatten() {
                let pairs = spelt.iter().zip(path);
                let shared = pairs.take_while(|(a, b)| a.char == **b).count();
                if shared == spelt.len() && !is_complete {
                    return Err(Incomplete);
                }
                let last = spelt.get(path.len().wrapping_sub(1));
                let Some(last) = last.filter(|last| shared == path.len() && last.is_last) else {
                    continue;
                };
                if ends(&text[last.end..], spelt.get(path.len())) {
                    let similarity = similarity(&text[..last.end], &known.path);
                    best = best.max(Some((last.end, similarity, &known.file)));
                }
            }
        }
        Ok(best.map(|(end, _, file)| (end, file)))
    }
}

fn is_before_target(before: [&str; 2]) -> bool {
    let before = before.concat();
    let before = before.trim_end_matches([' ', '<']);
    BEFORE_TARGET.iter().any(|it| before.ends_with(it))
}

fn ends(text: &str, next: Option<&PathChar>) -> bool {
    let next = match text.chars().next() {
        Some('%' | '\\' | '&') => next.map(|it| it.char),
        first => first,
    };
    !next.is_some_and(|char| {
        char.is_alphanumeric() || is_combining_mark(char) || matches!(char, '_' | '-' | '/')
    })
}

/// How similar a spelling is to the path, to choose among paths that are compared as equal, such as
/// `a b.csv` and `a+b.csv`.
fn similarity(text: &str, path: &str) -> u8 {
    match (text.ends_with(path), spelling::decode(text).ends_with(path)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}
