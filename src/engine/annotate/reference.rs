use crate::domain::message::AnnotationTarget;

/// What a text begins with, where it could be a reference. The numbers are lengths in bytes, of
/// plain text at least one.
#[derive(Debug, PartialEq)]
pub(super) enum Reference {
    /// More text is needed to decide.
    Incomplete,
    To(usize, AnnotationTarget),
    /// A reference to nothing that exists, which is left out of the text.
    Dangling(usize),
    Plain(usize),
}
