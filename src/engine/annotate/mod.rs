//! Finds what a model's text refers to, while it is being written. A reference is held back until
//! it is whole, so that readers get it in one piece with its annotation.

mod citations;
mod links;
mod spelling;
#[cfg(test)]
mod tests;

use crate::domain::event::ContentDelta;
use crate::domain::ids::FileId;
use crate::domain::message::{Annotation, AnnotationTarget};
pub(super) use crate::engine::annotate::citations::Passages;
use crate::engine::annotate::links::Links;

/// How much of the text that was given out is kept, in bytes: a link to a bare path is known by what
/// stands before it.
const CONTEXT_BYTES: usize = 16;

/// Reads a text as it comes.
#[derive(Debug, Default)]
pub(super) struct Annotator {
    links: Links,
    /// Passages that may be cited. `None` if nothing was offered that could be cited: then a
    /// citation is text like any other.
    passages: Option<Passages>,
    /// What may yet become a reference.
    held: String,
    /// The end of the text that was given out.
    context: String,
    /// Code points given out.
    length: usize,
    /// References given out.
    found: usize,
}

/// What a text may begin with that is no plain text.
#[derive(Debug, PartialEq)]
enum Reference {
    /// It takes more text to tell.
    Unsure,
    /// So many bytes of the text refer to a file.
    To(usize, AnnotationTarget),
    /// So many bytes of it refer to nothing, and are left out.
    Void(usize),
    /// So many bytes of it, at least one, are plain after all.
    None(usize),
}

impl Annotator {
    /// Looks for links to these paths below `/mnt/data`, and for citations of these passages.
    pub(super) fn new(paths: Vec<(String, FileId)>, passages: Option<Passages>) -> Self {
        Self {
            links: Links::new(paths),
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
        self.context.clear();
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
        while let Some((at, reference)) = self.next(rest, plain, whole) {
            match reference {
                Reference::Unsure => {
                    pieces.extend(self.plain(&rest[..at]));
                    self.held = rest[at..].to_owned();
                    return pieces;
                }
                Reference::To(length, target) => {
                    let end = at + length;
                    pieces.extend(self.plain(&rest[..at]));
                    pieces.push(self.annotated(&rest[at..end], target));
                    rest = &rest[end..];
                    plain = 0;
                }
                Reference::Void(length) => {
                    pieces.extend(self.plain(&rest[..at]));
                    rest = &rest[at + length..];
                    plain = 0;
                }
                Reference::None(length) => plain = at + length,
            }
        }
        pieces.extend(self.plain(rest));
        pieces
    }

    /// The next thing in the text from `from` on that begins like a reference, and where.
    fn next(&self, text: &str, from: usize, whole: bool) -> Option<(usize, Reference)> {
        text[from..].char_indices().find_map(|(at, _)| {
            let at = from + at;
            let (before, rest) = text.split_at(at);
            let citation = self.passages.as_ref().and_then(|it| it.read(rest, whole));
            let link = || {
                self.links
                    .read(rest, [&self.context, context(before)], whole)
            };
            Some((at, citation.or_else(link)?))
        })
    }

    fn plain(&mut self, text: &str) -> Option<ContentDelta> {
        self.advance(text);
        (!text.is_empty()).then(|| ContentDelta::Text(text.to_owned()))
    }

    fn annotated(&mut self, text: &str, target: AnnotationTarget) -> ContentDelta {
        let start = self.length;
        self.advance(text);
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

    fn advance(&mut self, text: &str) {
        self.length += text.chars().count();
        self.context.push_str(context(text));
        self.context = context(&self.context).to_owned();
    }
}

/// The end of a text, by which the beginning of a link is known.
fn context(text: &str) -> &str {
    let excess = text.len().saturating_sub(CONTEXT_BYTES);
    &text[text.ceil_char_boundary(excess)..]
}
