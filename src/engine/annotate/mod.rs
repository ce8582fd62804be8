//! Finds the references in a model's text while it is being written: links to files and citations.
//! A reference is held back until it is complete, so that readers get it in one piece, together with
//! its annotation.

mod citations;
mod links;
mod reference;
mod spelling;
#[cfg(test)]
mod tests;

use crate::domain::event::ContentDelta;
use crate::domain::ids::FileId;
use crate::domain::message::{Annotation, AnnotationTarget};
pub(super) use crate::engine::annotate::citations::CitablePassages;
use crate::engine::annotate::links::Links;
use crate::engine::annotate::reference::Reference;

/// How much of the emitted text is kept, in bytes: a link to a bare path is recognised by the text
/// before it.
const CONTEXT_BYTES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Annotator {
    links: Links,
    /// `None` if the run does not offer file_search: then citations are plain text.
    passages: Option<CitablePassages>,
    held: String,
    context: String,
    /// Length of the emitted text in code points.
    length: usize,
    annotations: usize,
}

impl Annotator {
    pub(super) fn new(paths: Vec<(String, FileId)>, passages: Option<CitablePassages>) -> Self {
        Self {
            links: Links::new(paths),
            passages,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, text: &str) -> Vec<ContentDelta> {
        if self.links.is_empty() && self.passages.is_none() {
            return self.plain(text).into_iter().collect();
        }
        self.held.push_str(text);
        self.read(false)
    }

    /// Ends the text, and returns the rest of it. The annotator can be used for another text.
    pub(super) fn finish(&mut self) -> Vec<ContentDelta> {
        let pieces = self.read(true);
        self.context.clear();
        self.length = 0;
        self.annotations = 0;
        pieces
    }

    fn read(&mut self, is_complete: bool) -> Vec<ContentDelta> {
        let mut pieces = Vec::new();
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_str();
        // The text before this offset is plain, and is emitted with what follows it.
        let mut plain = 0;
        while let Some((at, reference)) = self.next(rest, plain, is_complete) {
            match reference {
                Reference::Incomplete => {
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
                Reference::Dangling(length) => {
                    pieces.extend(self.plain(&rest[..at]));
                    rest = &rest[at + length..];
                    plain = 0;
                }
                Reference::Plain(length) => plain = at + length,
            }
        }
        pieces.extend(self.plain(rest));
        pieces
    }

    fn next(&self, text: &str, from: usize, is_complete: bool) -> Option<(usize, Reference)> {
        text[from..].char_indices().find_map(|(at, _)| {
            let at = from + at;
            let (before, rest) = text.split_at(at);
            let citation = self
                .passages
                .as_ref()
                .and_then(|it| it.read(rest, is_complete));
            let link = || {
                self.links
                    .read(rest, [&self.context, context(before)], is_complete)
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
        let index = self.annotations;
        self.annotations += 1;
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

fn context(text: &str) -> &str {
    let excess = text.len().saturating_sub(CONTEXT_BYTES);
    &text[text.ceil_char_boundary(excess)..]
}
