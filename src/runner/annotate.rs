//! Finds what a model's text refers to, while it is being written. A reference is held back until
//! it is whole, so that readers get it in one piece with its annotation.

use std::collections::HashMap;

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

/// How a citation begins, and how it ends.
const CITATION: (char, char) = ('\u{3010}', '\u{3011}');

/// A citation is never longer, in bytes: names of files are not.
const CITATION_BYTES: usize = 600;

/// Reads a text as it comes.
#[derive(Debug, Default)]
pub(super) struct Annotator {
    /// Paths that a link may have, in every way of writing them, and their files.
    links: Vec<(String, FileId)>,
    /// Passages that may be cited, by number of search and result. `None` if nothing was offered
    /// that could be cited: then a citation is text like any other.
    passages: Option<Passages>,
    /// What may yet become a reference.
    held: String,
    /// Code points given out.
    length: usize,
    /// References given out.
    found: usize,
}

/// The files of passages, by number of search and result.
pub(super) type Passages = HashMap<(usize, usize), FileId>;

/// What a text may begin with that is no plain text.
enum Reference<'a> {
    /// It takes more text to tell.
    Unsure,
    /// This much of the text refers to a file.
    To(&'a str, AnnotationTarget),
    /// This much of it refers to nothing, and is left out.
    Void(&'a str),
    /// This much of it is plain after all.
    None(&'a str),
}

impl Annotator {
    /// Looks for links to these paths below `/mnt/data`, and for citations of these passages.
    pub(super) fn new(paths: Vec<(String, FileId)>, passages: Option<Passages>) -> Self {
        let written = paths.into_iter().flat_map(|(path, file)| {
            let escaped = utf8_percent_encode(&path, PATH).to_string();
            let differs = escaped != path;
            let escaped = differs.then(|| (escaped, file.clone()));
            [(path, file)].into_iter().chain(escaped)
        });
        Self {
            links: written.collect(),
            passages,
            ..Self::default()
        }
    }

    /// What can be shown once this much more is there.
    pub(super) fn push(&mut self, text: &str) -> Vec<ContentDelta> {
        if self.links.is_empty() && self.passages.is_none() {
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
        // Text before this is plain, and given out with what comes next.
        let mut plain = 0;
        while let Some(at) = self.next(&rest[plain..]).map(|at| at + plain) {
            match self.reference(&rest[at..], whole) {
                Reference::Unsure => {
                    pieces.extend(self.plain(&rest[..at]));
                    self.held = rest[at..].to_owned();
                    return pieces;
                }
                Reference::To(text, target) => {
                    let end = at + text.len();
                    pieces.extend(self.plain(&rest[..at]));
                    pieces.push(self.annotated(&rest[at..end], target));
                    rest = &rest[end..];
                    plain = 0;
                }
                Reference::Void(text) => {
                    let end = at + text.len();
                    pieces.extend(self.plain(&rest[..at]));
                    rest = &rest[end..];
                    plain = 0;
                }
                Reference::None(text) => plain = at + text.len(),
            }
        }
        let cut = match whole {
            true => rest.len(),
            false => rest.len() - beginning(rest),
        };
        pieces.extend(self.plain(&rest[..cut]));
        self.held = rest[cut..].to_owned();
        pieces
    }

    /// Where the next reference may begin.
    fn next(&self, text: &str) -> Option<usize> {
        let citation = self.passages.as_ref().and_then(|_| text.find(CITATION.0));
        let link = text.find(LINK);
        citation.into_iter().chain(link).min()
    }

    /// What the text begins with; with `whole`, no more of it comes.
    fn reference<'a>(&self, text: &'a str, whole: bool) -> Reference<'a> {
        match text.strip_prefix(LINK) {
            Some(path) if !whole && self.may_go_on(path) => Reference::Unsure,
            Some(path) => match self.longest(path) {
                Some((name, file)) => {
                    let target = AnnotationTarget::FilePath(file.clone());
                    Reference::To(&text[..LINK.len() + name.len()], target)
                }
                None => Reference::None(&text[..LINK.len()]),
            },
            None => self.citation(text, whole),
        }
    }

    fn citation<'a>(&self, text: &'a str, whole: bool) -> Reference<'a> {
        let opening = &text[..CITATION.0.len_utf8()];
        let Some(end) = text.find(CITATION.1) else {
            let may_end = !whole && text.len() < CITATION_BYTES && !text.contains('\n');
            return match may_end {
                true => Reference::Unsure,
                false => Reference::None(opening),
            };
        };
        let numbers = text[opening.len()..end].split_once('\u{2020}');
        let numbers = numbers.and_then(|(numbers, _)| numbers.split_once(':'));
        let numbers = numbers.and_then(|(search, result)| {
            Some((search.trim().parse().ok()?, result.trim().parse().ok()?))
        });
        let Some(numbers) = numbers else {
            // Brackets of this kind are quotation marks elsewhere.
            return Reference::None(opening);
        };
        let text = &text[..end + CITATION.1.len_utf8()];
        match self.passages.as_ref().and_then(|known| known.get(&numbers)) {
            Some(file) => Reference::To(text, AnnotationTarget::FileCitation(file.clone())),
            None => Reference::Void(text),
        }
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

    fn annotated(&mut self, text: &str, target: AnnotationTarget) -> ContentDelta {
        let start = self.length;
        self.length += text.chars().count();
        let index = self.found;
        self.found += 1;
        let annotation = Annotation {
            text: text.to_owned(),
            start,
            end: self.length,
            target,
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
        let paths = vec![
            ("out.csv".into(), file("file-1")),
            ("my file (1).csv".into(), file("file-2")),
            ("out.csv.gz".into(), file("file-3")),
        ];
        let passages = HashMap::from([((4, 0), file("file-4")), ((4, 12), file("file-5"))]);
        Annotator::new(paths, Some(passages))
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
                        let (AnnotationTarget::FilePath(file)
                        | AnnotationTarget::FileCitation(file)) = &annotation.target;
                        assert_eq!(annotation.start, plain.chars().count());
                        plain.push_str(&annotation.text);
                        assert_eq!(annotation.end, plain.chars().count());
                        shown.push_str(&format!("{{{} {file}}}", annotation.text));
                    }
                    other => panic!("{other:?}"),
                }
            }
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
    fn citations_of_passages_are_found_and_others_left_out() {
        assert_eq!(
            read("Ä cake\u{3010}4:0\u{2020}a b.txt\u{3011}\u{3010}4:12\u{2020}source\u{3011}."),
            "Ä cake{\u{3010}4:0\u{2020}a b.txt\u{3011} file-4}\
             {\u{3010}4:12\u{2020}source\u{3011} file-5}."
        );
        assert_eq!(read("No\u{3010}5:0\u{2020}a.txt\u{3011}ne."), "None.");
        assert_eq!(
            read("\u{3010}Note\u{3011} \u{3010}4:0"),
            "\u{3010}Note\u{3011} \u{3010}4:0"
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
