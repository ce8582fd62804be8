//! Finds what a model's text refers to, while it is being written. A reference is held back until
//! it is whole, so that readers get it in one piece with its annotation.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::domain::event::ContentDelta;
use crate::domain::ids::FileId;
use crate::domain::message::{Annotation, AnnotationTarget};

/// How models link to what their code wrote.
const LINK: &str = "sandbox:/mnt/data/";

/// What a link's path keeps unescaped, if a model escapes it at all.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~');

/// Reads a text as it comes.
#[derive(Debug, Default)]
pub(super) struct Annotator {
    /// Paths that a link may have, in every way of writing them, and their files.
    links: Vec<(String, FileId)>,
    /// What may yet become a reference.
    held: String,
    /// Code points given out.
    length: usize,
    /// References given out.
    found: usize,
}

impl Annotator {
    /// Looks for links to these paths below `/mnt/data`.
    pub(super) fn new(paths: Vec<(String, FileId)>) -> Self {
        let written = paths.into_iter().flat_map(|(path, file)| {
            let escaped = utf8_percent_encode(&path, PATH).to_string();
            let differs = escaped != path;
            let escaped = differs.then(|| (escaped, file.clone()));
            [(path, file)].into_iter().chain(escaped)
        });
        Self {
            links: written.collect(),
            ..Self::default()
        }
    }

    /// What can be shown once this much more is there.
    pub(super) fn push(&mut self, text: &str) -> Vec<ContentDelta> {
        if self.links.is_empty() {
            return self.plain(text).into_iter().collect();
        }
        self.held.push_str(text);
        self.read(false)
    }

    /// What is left, now that nothing more comes. The next text begins anew.
    pub(super) fn finish(&mut self) -> Vec<ContentDelta> {
        let pieces = self.read(true);
        self.length = 0;
        self.found = 0;
        pieces
    }

    fn read(&mut self, whole: bool) -> Vec<ContentDelta> {
        let mut pieces = Vec::new();
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_str();
        // Text before this is given out with the next piece.
        let mut plain = 0;
        while let Some(at) = rest[plain..].find(LINK).map(|at| at + plain) {
            let path = &rest[at + LINK.len()..];
            if !whole && self.may_go_on(path) {
                pieces.extend(self.plain(&rest[..at]));
                self.held = rest[at..].to_owned();
                return pieces;
            }
            let Some((name, file)) = self.longest(path) else {
                plain = at + LINK.len();
                continue;
            };
            let end = at + LINK.len() + name.len();
            let file = file.clone();
            pieces.extend(self.plain(&rest[..at]));
            pieces.push(self.annotated(&rest[at..end], file));
            rest = &rest[end..];
            plain = 0;
        }
        let cut = if whole {
            rest.len()
        } else {
            rest.len() - beginning(rest)
        };
        pieces.extend(self.plain(&rest[..cut]));
        self.held = rest[cut..].to_owned();
        pieces
    }

    /// Whether a path that begins like this may become a longer known one, or is known and its end
    /// is still to be seen.
    fn may_go_on(&self, path: &str) -> bool {
        self.links.iter().any(|(known, _)| known.starts_with(path))
    }

    /// The longest known path that this text begins with.
    fn longest(&self, text: &str) -> Option<(&str, &FileId)> {
        let ends = |rest: &str| {
            let next = rest.chars().next();
            !next.is_some_and(|char| char.is_alphanumeric() || matches!(char, '_' | '-' | '/'))
        };
        self.links
            .iter()
            .filter(|(known, _)| text.strip_prefix(known.as_str()).is_some_and(ends))
            .max_by_key(|(known, _)| known.len())
            .map(|(known, file)| (known.as_str(), file))
    }

    fn plain(&mut self, text: &str) -> Option<ContentDelta> {
        self.length += text.chars().count();
        (!text.is_empty()).then(|| ContentDelta::Text(text.to_owned()))
    }

    fn annotated(&mut self, text: &str, file: FileId) -> ContentDelta {
        let start = self.length;
        self.length += text.chars().count();
        let index = self.found;
        self.found += 1;
        let annotation = Annotation {
            text: text.to_owned(),
            start,
            end: self.length,
            target: AnnotationTarget::FilePath(file),
        };
        ContentDelta::Annotated { index, annotation }
    }
}

/// How many bytes at the end of this text may be the beginning of a link.
fn beginning(text: &str) -> usize {
    (1..LINK.len())
        .rev()
        .find(|&length| text.ends_with(&LINK[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotator() -> Annotator {
        let file = |id: &str| id.parse::<FileId>().expect("it is an id");
        Annotator::new(vec![
            ("out.csv".into(), file("file-1")),
            ("my file (1).csv".into(), file("file-2")),
            ("out.csv.gz".into(), file("file-3")),
        ])
    }

    /// The text, with references in braces, the same however it is cut.
    fn read(text: &str) -> String {
        let read = |pieces: Vec<&str>| {
            let mut annotator = annotator();
            let mut found: Vec<ContentDelta> = Vec::new();
            for piece in pieces {
                found.extend(annotator.push(piece));
            }
            found.extend(annotator.finish());
            let mut shown = String::new();
            let mut plain = String::new();
            for piece in found {
                match piece {
                    ContentDelta::Text(text) => {
                        shown.push_str(&text);
                        plain.push_str(&text);
                    }
                    ContentDelta::Annotated { annotation, .. } => {
                        let AnnotationTarget::FilePath(file) = &annotation.target;
                        assert_eq!(annotation.start, plain.chars().count());
                        plain.push_str(&annotation.text);
                        assert_eq!(annotation.end, plain.chars().count());
                        shown.push_str(&format!("{{{} {file}}}", annotation.text));
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(plain, text);
            shown
        };
        let whole = read(vec![text]);
        let mut buffer = [0; 4];
        let mut pieces = Vec::new();
        for char in text.chars() {
            pieces.push(char.encode_utf8(&mut buffer).to_owned());
        }
        assert_eq!(read(pieces.iter().map(String::as_str).collect()), whole);
        whole
    }

    #[test]
    fn links_to_known_files_are_found_whole() {
        assert_eq!(
            read("Hä: [a](sandbox:/mnt/data/out.csv), sandbox:/mnt/data/out.csv."),
            "Hä: [a]({sandbox:/mnt/data/out.csv file-1}), {sandbox:/mnt/data/out.csv file-1}."
        );
        assert_eq!(
            read("(sandbox:/mnt/data/my file (1).csv) sandbox:/mnt/data/my%20file%20%281%29.csv"),
            "({sandbox:/mnt/data/my file (1).csv file-2}) \
             {sandbox:/mnt/data/my%20file%20%281%29.csv file-2}"
        );
        assert_eq!(
            read("sandbox:/mnt/data/out.csv.gz"),
            "{sandbox:/mnt/data/out.csv.gz file-3}"
        );
    }

    #[test]
    fn other_text_stays_text() {
        for text in [
            "",
            "sandbox:/mnt/data/",
            "sandbox:/mnt/data/other.csv and sandbox",
            "sandbox:/mnt/data/out.csv2",
            "sandbox:/mnt/data/out.cs",
            "sandsandbox:/mnt/dat",
        ] {
            assert_eq!(read(text), text);
        }
    }

    #[test]
    fn only_what_may_be_a_reference_waits() {
        let mut annotator = annotator();
        let text = |text: &str| vec![ContentDelta::Text(text.to_owned())];
        assert_eq!(annotator.push("Here: "), text("Here: "));
        assert_eq!(annotator.push("sandbox"), Vec::new());
        assert_eq!(annotator.push("ed."), text("sandboxed."));
        assert_eq!(annotator.push("[x](sandbox:/mnt/data/o"), text("[x]("));
        assert_eq!(annotator.push("ther"), text("sandbox:/mnt/data/other"));
    }
}
