//! Citations of passages: `【search:result†file name】`.

use std::collections::{BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization;

use crate::domain::ids::FileId;
use crate::domain::message::AnnotationTarget;
use crate::domain::tool::name_in_marker;
use crate::engine::annotate::reference::Reference;

const OPENING: char = '\u{3010}';
const CLOSING: char = '\u{3011}';
const DAGGER: char = '\u{2020}';

/// Longest number of a citation, in bytes, with the blanks around it.
const NUMBERS_BYTES: usize = 40;

/// How long a citation may be after the part of its name that is known, in bytes.
const ALTERED_BYTES: usize = 600;

#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct CitablePassages {
    files: HashMap<(usize, usize), FileId>,
    /// File names as they stand in markers, also in composed form (NFC), which models tend to write.
    names: BTreeSet<String>,
}

enum Mismatch {
    Incomplete,
    Other,
}

impl CitablePassages {
    pub(in crate::engine) fn insert(
        &mut self,
        place: (usize, usize),
        file_name: &str,
        file: FileId,
    ) {
        self.files.insert(place, file);
        let name = name_in_marker(file_name);
        self.names.insert(name.nfc().collect());
        self.names.insert(name);
    }

    pub(super) fn read(&self, text: &str, is_complete: bool) -> Option<Reference> {
        let after = text.strip_prefix(OPENING)?;
        let plain = Reference::Plain(OPENING.len_utf8());
        let parsed = numbers(after).and_then(|(place, name)| {
            let end = self.end_of_name(name, is_complete)?;
            Ok((place, text.len() - name.len() + end))
        });
        Some(match parsed {
            Ok((place, length)) => match self.files.get(&place) {
                Some(file) => Reference::To(length, AnnotationTarget::FileCitation(file.clone())),
                None => Reference::Dangling(length),
            },
            Err(Mismatch::Incomplete) if !is_complete => Reference::Incomplete,
            // Brackets of this kind are quotation marks in Chinese and Japanese.
            Err(Mismatch::Incomplete | Mismatch::Other) => plain,
        })
    }

    /// The end of the marker whose file name this text begins with. Names may contain brackets.
    fn end_of_name(&self, text: &str, is_complete: bool) -> Result<usize, Mismatch> {
        if !is_complete && self.names.iter().any(|name| name.starts_with(text)) {
            return Err(Mismatch::Incomplete);
        }
        let ends = self.names.iter().filter_map(|name| {
            let rest = text.strip_prefix(name.as_str())?;
            rest.starts_with(CLOSING)
                .then_some(name.len() + CLOSING.len_utf8())
        });
        match ends.max() {
            Some(end) => Ok(end),
            None => self.end_of_altered_name(text, is_complete),
        }
    }

    /// The same for a name that the model has altered: truncated it, or written `source` instead.
    /// Brackets within the prefix that it shares with a known name belong to the name; others are
    /// paired.
    fn end_of_altered_name(&self, text: &str, is_complete: bool) -> Result<usize, Mismatch> {
        let shared = self.names.iter().map(|name| shared_bytes(name, text));
        let shared = shared.max().unwrap_or(0);
        let mut depth = 0_usize;
        let mut within_shared = None;
        for (at, char) in text.char_indices() {
            if char == '\n' || at > shared + ALTERED_BYTES {
                return within_shared.ok_or(Mismatch::Other);
            }
            let end = at + char.len_utf8();
            match char {
                OPENING => depth += 1,
                CLOSING if depth > 0 => depth -= 1,
                CLOSING if at >= shared => return Ok(end),
                CLOSING => within_shared = Some(end),
                _ => {}
            }
        }
        within_shared
            .filter(|_| is_complete)
            .ok_or(Mismatch::Incomplete)
    }
}

fn numbers(text: &str) -> Result<((usize, usize), &str), Mismatch> {
    let (search, rest) = number(text, ':')?;
    let (result, rest) = number(rest, DAGGER)?;
    Ok(((search, result), rest))
}

fn number(text: &str, end: char) -> Result<(usize, &str), Mismatch> {
    let digits = text.trim_start_matches(' ');
    let length = digits.find(|char: char| !char.is_ascii_digit());
    let (digits, rest) = digits.split_at(length.unwrap_or(digits.len()));
    let rest = rest.trim_start_matches(' ');
    if rest.is_empty() && text.len() < NUMBERS_BYTES {
        return Err(Mismatch::Incomplete);
    }
    let rest = rest.strip_prefix(end).ok_or(Mismatch::Other)?;
    let number = digits.parse().map_err(|_| Mismatch::Other)?;
    Ok((number, rest))
}

fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(char, _)| char.len_utf8())
        .sum()
}
