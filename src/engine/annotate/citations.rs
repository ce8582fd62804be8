//! Citations of passages: `【search:result†file name】`.

use std::collections::{BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization;

use crate::domain::ids::FileId;
use crate::domain::message::AnnotationTarget;
use crate::domain::tool::name_in_marker;
use crate::engine::annotate::Reference;

const OPENING: char = '\u{3010}';
const CLOSING: char = '\u{3011}';
const DAGGER: char = '\u{2020}';

/// A citation's numbers are never longer, in bytes, with the blanks between them.
const NUMBERS_BYTES: usize = 40;

/// How much a citation may have behind what is like a known name, in bytes.
const ALTERED_BYTES: usize = 600;

/// The passages that may be cited.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Passages {
    /// By number of search and result.
    files: HashMap<(usize, usize), FileId>,
    /// Names of files as markers have them, also composed (NFC), as models like to write them.
    names: BTreeSet<String>,
}

/// Why a text is not the beginning of a citation.
enum Mismatch {
    /// It may yet be.
    Incomplete,
    /// It is something else.
    Other,
}

impl Passages {
    /// Adds the passage that has this place among the results of searches.
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

    /// What the text begins with, if that is a citation or may become one; with `whole`, no more of
    /// it comes.
    pub(super) fn read(&self, text: &str, whole: bool) -> Option<Reference> {
        let after = text.strip_prefix(OPENING)?;
        let plain = Reference::None(OPENING.len_utf8());
        let parsed = numbers(after).and_then(|(place, name)| {
            let end = self.end_of_name(name, whole)?;
            Ok((place, text.len() - name.len() + end))
        });
        Some(match parsed {
            Ok((place, length)) => match self.files.get(&place) {
                Some(file) => Reference::To(length, AnnotationTarget::FileCitation(file.clone())),
                None => Reference::Void(length),
            },
            Err(Mismatch::Incomplete) if !whole => Reference::Unsure,
            // Brackets of this kind are quotation marks elsewhere.
            Err(Mismatch::Incomplete | Mismatch::Other) => plain,
        })
    }

    /// Where the marker ends whose name this text begins with. Names may contain brackets.
    fn end_of_name(&self, text: &str, whole: bool) -> Result<usize, Mismatch> {
        if !whole && self.names.iter().any(|name| name.starts_with(text)) {
            return Err(Mismatch::Incomplete);
        }
        let ends = self.names.iter().filter_map(|name| {
            let rest = text.strip_prefix(name.as_str())?;
            rest.starts_with(CLOSING)
                .then_some(name.len() + CLOSING.len_utf8())
        });
        match ends.max() {
            Some(end) => Ok(end),
            None => self.end_of_altered_name(text, whole),
        }
    }

    /// The same for a name that is not as the model was given it: cut, or `source`. Brackets within
    /// what it shares with a known name belong to the name, others come in pairs.
    fn end_of_altered_name(&self, text: &str, whole: bool) -> Result<usize, Mismatch> {
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
        within_shared.filter(|_| whole).ok_or(Mismatch::Incomplete)
    }
}

/// The numbers of search and result, and the text behind them.
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

/// How many bytes both texts begin with.
fn shared_bytes(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(char, _)| char.len_utf8())
        .sum()
}
