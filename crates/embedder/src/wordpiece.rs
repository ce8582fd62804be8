//! Text to tokens, as the uncased BERT tokenizer does it: clean, lower case, accents off, split at
//! spaces and punctuation, then the longest known pieces of each word.
//!
//! Equal to Hugging Face's tokenizer but for two things. The names of special tokens, such as
//! `[SEP]`, are plain text here, so that a document cannot end its own input. And characters are
//! classed by a newer Unicode, which makes a difference for 693 rare ones.

use std::collections::HashMap;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::GeneralCategory;
use unicode_properties::GeneralCategoryGroup;
use unicode_properties::UnicodeGeneralCategory;

/// What is used of `tokenizer.json`.
#[derive(Deserialize)]
pub(crate) struct Config {
    normalizer: Normalizer,
    model: Model,
}

#[derive(Deserialize)]
struct Normalizer {
    #[serde(rename = "type")]
    kind: String,
    lowercase: bool,
    strip_accents: Option<bool>,
    clean_text: bool,
    handle_chinese_chars: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
}

pub(crate) struct Tokenizer {
    /// Pieces that begin a word.
    first: HashMap<Box<str>, u32>,
    /// Pieces that go on with one, without their prefix.
    later: HashMap<Box<str>, u32>,
    /// The longest piece, in bytes.
    longest: usize,
    /// Words of more characters than this are unknown.
    longest_word: usize,
    unknown: u32,
    start: u32,
    end: u32,
    vocabulary_size: usize,
}

impl Tokenizer {
    pub(crate) fn new(config: Config) -> Result<Self, &'static str> {
        let Config { normalizer, model } = config;
        let uncased = normalizer.kind == "BertNormalizer"
            && normalizer.lowercase
            && normalizer.strip_accents.unwrap_or(true)
            && normalizer.clean_text
            && normalizer.handle_chinese_chars;
        if !uncased {
            return Err("it is not the uncased BERT tokenizer");
        }
        let special = |name| model.vocab.get(name).copied();
        let (Some(unknown), Some(start), Some(end)) =
            (special("[UNK]"), special("[CLS]"), special("[SEP]"))
        else {
            return Err("it lacks [UNK], [CLS] or [SEP]");
        };
        let largest = model.vocab.values().max().copied().unwrap_or_default();
        let (mut first, mut later) = (HashMap::new(), HashMap::new());
        let mut longest = 0;
        for (piece, id) in model.vocab {
            longest = longest.max(piece.len());
            match piece.strip_prefix(&model.continuing_subword_prefix) {
                Some(rest) if !rest.is_empty() => later.insert(rest.into(), id),
                _ => first.insert(piece.into(), id),
            };
        }
        Ok(Self {
            first,
            later,
            longest,
            longest_word: model.max_input_chars_per_word,
            unknown,
            start,
            end,
            vocabulary_size: largest as usize + 1,
        })
    }

    /// One more than the largest token there is.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The tokens of a text, without the marks of its start and end.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let clean = text
            .chars()
            .filter(|&it| !is_dropped(it))
            .nfd()
            .filter(|it| it.general_category() != GeneralCategory::NonspacingMark)
            .flat_map(char::to_lowercase);
        let mut tokens = Vec::new();
        let mut word = String::new();
        for character in clean {
            if character.is_whitespace() {
                self.finish(&mut word, &mut tokens);
            } else if is_punctuation(character) || is_chinese(character) {
                self.finish(&mut word, &mut tokens);
                word.push(character);
                self.finish(&mut word, &mut tokens);
            } else {
                word.push(character);
            }
        }
        self.finish(&mut word, &mut tokens);
        tokens
    }

    /// Tokens between the marks of start and end, as the model reads them.
    pub(crate) fn mark(&self, tokens: &[u32]) -> Vec<u32> {
        let mut marked = Vec::with_capacity(tokens.len() + 2);
        marked.push(self.start);
        marked.extend(tokens);
        marked.push(self.end);
        marked
    }

    /// Appends the tokens of a word and clears it. A word that does not come out even is unknown
    /// as a whole.
    fn finish(&self, word: &mut String, tokens: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let before = tokens.len();
        let mut rest = word.as_str();
        let mut known = &self.first;
        if word.chars().count() > self.longest_word {
            tokens.push(self.unknown);
            rest = "";
        }
        while !rest.is_empty() {
            let Some((length, token)) = longest_piece(known, rest, self.longest) else {
                tokens.truncate(before);
                tokens.push(self.unknown);
                break;
            };
            tokens.push(token);
            rest = &rest[length..];
            known = &self.later;
        }
        word.clear();
    }
}

/// The longest beginning of `text` that is in `known`, and its token.
fn longest_piece(
    known: &HashMap<Box<str>, u32>,
    text: &str,
    longest: usize,
) -> Option<(usize, u32)> {
    (1..=text.len().min(longest))
        .rev()
        .filter_map(|length| text.get(..length))
        .find_map(|piece| known.get(piece).map(|&token| (piece.len(), token)))
}

/// Whether cleaning takes the character away: what has no meaning in a text.
fn is_dropped(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\u{fffd}' => true,
        _ => matches!(
            character.general_category(),
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        ),
    }
}

/// BERT also counts the symbols of ASCII as punctuation, such as `+` and `$`.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || character.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The Han characters, each of which is a word. Kana and Hangul are not among them.
fn is_chinese(character: char) -> bool {
    matches!(character,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary in which the token of a piece is its place in this list.
    const PIECES: [&str; 14] = [
        "[UNK]", "[CLS]", "[SEP]", "wing", "##s", "##spa", "##n", "un", "##wing", "!", "中", "ß",
        "##", "e",
    ];

    fn tokenizer() -> Tokenizer {
        let vocab: serde_json::Map<_, _> = (0..)
            .zip(PIECES)
            .map(|(token, piece)| (piece.to_owned(), serde_json::Value::from(token)))
            .collect();
        let config = serde_json::json!({
            "normalizer": {
                "type": "BertNormalizer", "lowercase": true, "strip_accents": null,
                "clean_text": true, "handle_chinese_chars": true,
            },
            "model": {
                "vocab": vocab, "continuing_subword_prefix": "##", "max_input_chars_per_word": 10,
            },
        });
        let config = serde_json::from_value(config).expect("it has what is read");
        Tokenizer::new(config).expect("it is of the right kind")
    }

    fn pieces(text: &str) -> Vec<&'static str> {
        let tokens = tokenizer().encode(text);
        tokens.iter().map(|&it| PIECES[it as usize]).collect()
    }

    #[test]
    fn words_are_cut_into_the_longest_known_pieces() {
        assert_eq!(
            pieces("wings wingspan"),
            ["wing", "##s", "wing", "##spa", "##n"]
        );
        assert_eq!(pieces("unwing"), ["un", "##wing"]);
    }

    #[test]
    fn a_word_with_an_unknown_rest_is_unknown_as_a_whole() {
        assert_eq!(pieces("wingx wing"), ["[UNK]", "wing"]);
        assert_eq!(pieces("🛩️"), ["[UNK]"]);
    }

    #[test]
    fn a_word_beyond_the_limit_is_unknown() {
        assert_eq!(pieces("wingwingss"), ["wing", "##wing", "##s", "##s"]);
        assert_eq!(pieces("wingwingsss"), ["[UNK]"]);
    }

    #[test]
    fn case_accents_and_invisible_characters_do_not_matter() {
        assert_eq!(
            pieces("WINGS Ẁĩn\u{ad}g\u{301} \u{feff}é"),
            ["wing", "##s", "wing", "e"]
        );
        assert_eq!(pieces("ß\0\u{fffd}\u{7}"), ["ß"]);
    }

    #[test]
    fn punctuation_and_han_characters_are_words() {
        assert_eq!(pieces("wing!!wing"), ["wing", "!", "!", "wing"]);
        assert_eq!(pieces("wing中中e"), ["wing", "中", "中", "e"]);
        assert_eq!(pieces(" \t\r\n\u{a0}\u{3000}"), [""; 0]);
    }

    #[test]
    fn a_text_cannot_name_special_tokens() {
        assert_eq!(pieces("[SEP]"), ["[UNK]"; 3]);
        assert_eq!(tokenizer().mark(&[3, 4]), [1, 3, 4, 2]);
    }

    #[test]
    fn tokenizers_of_other_kinds_are_refused() {
        let config = serde_json::json!({
            "normalizer": {
                "type": "BertNormalizer", "lowercase": false, "strip_accents": null,
                "clean_text": true, "handle_chinese_chars": true,
            },
            "model": {
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2},
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            },
        });
        let config = serde_json::from_value(config).expect("it has what is read");
        assert!(Tokenizer::new(config).is_err());
    }
}
