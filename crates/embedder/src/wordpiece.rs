//! The uncased BERT tokenizer: removes control characters and accents, converts to lower case,
//! splits at white space and punctuation, and divides words into the longest known subwords
//! (WordPiece).
//!
//! It differs from Hugging Face's tokenizer in two points. Names of special tokens, such as
//! `[SEP]`, are ordinary text, so that a document cannot insert special tokens. Character classes
//! are those of a newer Unicode version, which affects 693 rare characters.

use std::collections::HashMap;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::GeneralCategory;
use unicode_properties::GeneralCategoryGroup;
use unicode_properties::UnicodeGeneralCategory;

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
    /// Subwords at the start of a word; `continuing` has those within a word, without their prefix.
    initial: HashMap<Box<str>, u32>,
    continuing: HashMap<Box<str>, u32>,
    subword_bytes_max: usize,
    /// Words with more characters than this become the unknown token.
    word_chars_max: usize,
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
        let (mut initial, mut continuing) = (HashMap::new(), HashMap::new());
        let mut subword_bytes_max = 0;
        for (subword, id) in model.vocab {
            subword_bytes_max = subword_bytes_max.max(subword.len());
            match subword.strip_prefix(&model.continuing_subword_prefix) {
                Some(rest) if !rest.is_empty() => continuing.insert(rest.into(), id),
                _ => initial.insert(subword.into(), id),
            };
        }
        Ok(Self {
            initial,
            continuing,
            subword_bytes_max,
            word_chars_max: model.max_input_chars_per_word,
            unknown,
            start,
            end,
            vocabulary_size: largest as usize + 1,
        })
    }

    /// The largest token id plus one.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The tokens of a text, without special tokens.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let clean = text
            .chars()
            .filter(|&it| !is_removed(it))
            .nfd()
            .filter(|it| it.general_category() != GeneralCategory::NonspacingMark)
            .flat_map(char::to_lowercase);
        let mut tokens = Vec::new();
        let mut word = String::new();
        for character in clean {
            if character.is_whitespace() {
                self.push_word(&mut word, &mut tokens);
            } else if is_punctuation(character) || is_chinese(character) {
                self.push_word(&mut word, &mut tokens);
                word.push(character);
                self.push_word(&mut word, &mut tokens);
            } else {
                word.push(character);
            }
        }
        self.push_word(&mut word, &mut tokens);
        tokens
    }

    pub(crate) fn add_special_tokens(&self, tokens: &[u32]) -> Vec<u32> {
        let mut input = Vec::with_capacity(tokens.len() + 2);
        input.push(self.start);
        input.extend(tokens);
        input.push(self.end);
        input
    }

    /// Appends the tokens of a word and clears it. A word that cannot be divided completely becomes
    /// one unknown token.
    fn push_word(&self, word: &mut String, tokens: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let before = tokens.len();
        let mut rest = word.as_str();
        let mut subwords = &self.initial;
        if word.chars().count() > self.word_chars_max {
            tokens.push(self.unknown);
            rest = "";
        }
        while !rest.is_empty() {
            let Some((length, token)) = longest_prefix(subwords, rest, self.subword_bytes_max)
            else {
                tokens.truncate(before);
                tokens.push(self.unknown);
                break;
            };
            tokens.push(token);
            rest = &rest[length..];
            subwords = &self.continuing;
        }
        word.clear();
    }
}

/// The longest prefix of `text` in `subwords`: its length in bytes and its token.
fn longest_prefix(
    subwords: &HashMap<Box<str>, u32>,
    text: &str,
    bytes_max: usize,
) -> Option<(usize, u32)> {
    (1..=text.len().min(bytes_max))
        .rev()
        .filter_map(|length| text.get(..length))
        .find_map(|prefix| subwords.get(prefix).map(|&token| (prefix.len(), token)))
}

fn is_removed(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\u{fffd}' => true,
        _ => matches!(
            character.general_category(),
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        ),
    }
}

/// BERT counts ASCII symbols such as `+` and `$` as punctuation, too.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || character.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// Han characters, each of which is a word of its own. Kana and Hangul are not included.
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

    /// A vocabulary in which the token of a subword is its index in this list.
    const SUBWORDS: [&str; 14] = [
        "[UNK]", "[CLS]", "[SEP]", "wing", "##s", "##spa", "##n", "un", "##wing", "!", "中", "ß",
        "##", "e",
    ];

    fn tokenizer() -> Tokenizer {
        let vocab: serde_json::Map<_, _> = (0..)
            .zip(SUBWORDS)
            .map(|(token, subword)| (subword.to_owned(), serde_json::Value::from(token)))
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
        let config = serde_json::from_value(config).expect("all used fields are present");
        Tokenizer::new(config).expect("the tokenizer is supported")
    }

    fn subwords(text: &str) -> Vec<&'static str> {
        let tokens = tokenizer().encode(text);
        tokens.iter().map(|&it| SUBWORDS[it as usize]).collect()
    }

    #[test]
    fn words_are_cut_into_the_longest_known_pieces() {
        assert_eq!(
            subwords("wings wingspan"),
            ["wing", "##s", "wing", "##spa", "##n"]
        );
        assert_eq!(subwords("unwing"), ["un", "##wing"]);
    }

    #[test]
    fn a_word_with_an_unknown_rest_is_unknown_as_a_whole() {
        assert_eq!(subwords("wingx wing"), ["[UNK]", "wing"]);
        assert_eq!(subwords("🛩️"), ["[UNK]"]);
    }

    #[test]
    fn a_word_beyond_the_limit_is_unknown() {
        assert_eq!(subwords("wingwingss"), ["wing", "##wing", "##s", "##s"]);
        assert_eq!(subwords("wingwingsss"), ["[UNK]"]);
    }

    #[test]
    fn case_accents_and_invisible_characters_do_not_matter() {
        assert_eq!(
            subwords("WINGS Ẁĩn\u{ad}g\u{301} \u{feff}é"),
            ["wing", "##s", "wing", "e"]
        );
        assert_eq!(subwords("ß\0\u{fffd}\u{7}"), ["ß"]);
    }

    #[test]
    fn punctuation_and_han_characters_are_words() {
        assert_eq!(subwords("wing!!wing"), ["wing", "!", "!", "wing"]);
        assert_eq!(subwords("wing中中e"), ["wing", "中", "中", "e"]);
        assert_eq!(subwords(" \t\r\n\u{a0}\u{3000}"), [""; 0]);
    }

    #[test]
    fn a_text_cannot_name_special_tokens() {
        assert_eq!(subwords("[SEP]"), ["[UNK]"; 3]);
        assert_eq!(tokenizer().add_special_tokens(&[3, 4]), [1, 3, 4, 2]);
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
        let config = serde_json::from_value(config).expect("all used fields are present");
        assert!(Tokenizer::new(config).is_err());
    }
}
