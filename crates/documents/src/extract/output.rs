//! The common output of all format parsers.

use std::borrow::Cow;

use crate::ExtractError;
use crate::Section;

/// Maximum length of a heading in characters: some documents style whole pages as headings.
const MAX_HEADING_CHARS: usize = 200;

/// Added to the size of each section, so that the limit also bounds the number of sections.
const SECTION_OVERHEAD_BYTES: usize = 64;

/// Normalizes sections, drops blank ones and enforces the limit.
pub(super) struct Output<'a> {
    write: &'a mut dyn FnMut(Section) -> Result<(), ExtractError>,
    bytes_left: usize,
    is_empty: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        max_bytes: usize,
        write: &'a mut dyn FnMut(Section) -> Result<(), ExtractError>,
    ) -> Self {
        Self {
            write,
            bytes_left: max_bytes,
            is_empty: true,
        }
    }

    pub(super) fn push(
        &mut self,
        page: Option<u32>,
        headings: &[String],
        text: &str,
    ) -> Result<(), ExtractError> {
        let text = normalize(text);
        if text.is_empty() {
            return Ok(());
        }
        let headings: Vec<String> = headings
            .iter()
            .map(|heading| normalize_heading(heading))
            .filter(|heading| !heading.is_empty())
            .collect();
        let size =
            SECTION_OVERHEAD_BYTES + text.len() + headings.iter().map(String::len).sum::<usize>();
        self.bytes_left = self
            .bytes_left
            .checked_sub(size)
            .ok_or(ExtractError::TooMuchText)?;
        self.is_empty = false;
        (self.write)(Section {
            text,
            page,
            headings,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }
}

/// Normalizes text: Unix line ends, no control characters (PostgreSQL refuses U+0000), no white
/// space at line ends, at most two consecutive empty lines, none at the start and the end.
fn normalize(text: &str) -> String {
    let text = if text.contains("\r\n") {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Borrowed(text)
    };
    let mut out = String::with_capacity(text.len());
    let mut empty_lines = 0;
    for line in text.split(['\n', '\r', '\x0c', '\x0b', '\u{2028}', '\u{2029}']) {
        let line = line.trim_end();
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        if !out.is_empty() {
            out.extend(std::iter::repeat_n('\n', 1 + empty_lines.min(2)));
        }
        empty_lines = 0;
        out.extend(line.chars().filter(|&c| c == '\t' || !c.is_control()));
    }
    out
}

fn normalize_heading(heading: &str) -> String {
    let words: Vec<&str> = heading
        .split(char::is_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_HEADING_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_in_one_form_however_it_was_written() {
        assert_eq!(
            normalize("a  \r\nb\rc\0\u{7}\n\n\n\n\n\td\n \n"),
            "a\nb\nc\n\n\n\td"
        );
    }

    #[test]
    fn sections_without_end_are_stopped() {
        let mut count = 0;
        let mut write = |_| {
            count += 1;
            Ok(())
        };
        let mut output = Output::new(10_000, &mut write);
        let error = (0..).find_map(|_| output.push(None, &[], "a").err());
        assert_eq!(error, Some(ExtractError::TooMuchText));
        assert!(count < 200);
    }
}
