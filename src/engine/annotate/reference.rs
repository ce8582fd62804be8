use crate::domain::message::AnnotationTarget;

/// What a text begins with, where it could be a reference.
#[derive(Debug, PartialEq)]
pub(super) enum Reference {
    /// More text is needed to decide.
    Incomplete,
    /// This many bytes of the text refer to a file.
    To(usize, AnnotationTarget),
    /// This many bytes of the text refer to nothing that exists, and are left out.
    Dangling(usize),
    /// This many bytes of the text, at least one, are plain text.
    Plain(usize),
}
