//! Sections → chunks of so many tokens, by the documented static strategy.
//!
//! The text is encoded once. A chunk is a window of its tokens; the ends of the window move by a
//! few tokens to where a paragraph, a line, a sentence or a word ends, and never fall within a
//! character. Equal text gives equal chunks.

use std::ops::Range;

use crate::Section;

/// What stands between two sections.
const BETWEEN: &str = "\n\n";

/// Text is encoded in pieces of about so many bytes, to notice soon that there is too much.
const PIECE_BYTES: usize = 64 * 1024;

/// How long chunks are, in tokens of `o200k_base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    max_tokens: u32,
    overlap_tokens: u32,
}

/// A strategy outside what the API documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// `max_chunk_size_tokens` is not between [`Strategy::MIN`] and [`Strategy::MAX`].
    #[error("a chunk must have {} to {} tokens", Strategy::MIN, Strategy::MAX)]
    Size,
    /// `chunk_overlap_tokens` is more than half of it.
    #[error("chunks must not overlap by more than half")]
    Overlap,
}

impl Strategy {
    /// The least `max_chunk_size_tokens`.
    pub const MIN: u32 = 100;
    /// The greatest `max_chunk_size_tokens`.
    pub const MAX: u32 = 4096;
    /// What the API calls `auto`.
    pub const AUTO: Self = Self {
        max_tokens: 800,
        overlap_tokens: 400,
    };

    /// From `max_chunk_size_tokens` and `chunk_overlap_tokens`.
    pub fn new(max_tokens: u32, overlap_tokens: u32) -> Result<Self, StrategyError> {
        if !(Self::MIN..=Self::MAX).contains(&max_tokens) {
            return Err(StrategyError::Size);
        }
        if overlap_tokens > max_tokens / 2 {
            return Err(StrategyError::Overlap);
        }
        Ok(Self {
            max_tokens,
            overlap_tokens,
        })
    }

    /// How far the end of a window may move to find a better place.
    fn slack(self) -> usize {
        // At least the tokens that one character can have.
        (self.max_tokens as usize / 16).max(8)
    }
}

/// A stretch of a document that is found, ranked and shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Consecutive chunks, less what they share, add up to the text of the document.
    pub text: String,
    /// How many bytes at its beginning the chunk before has too.
    pub repeats: usize,
    /// How many tokens of the document it has: at most what the strategy says.
    pub tokens: u32,
    /// Where its first word stands; see [`Section::page`].
    pub page: Option<u32>,
    /// Where its first word stands; see [`Section::headings`].
    pub headings: Vec<String>,
}

/// A document's text, encoded.
#[derive(Debug, Clone)]
pub struct Encoded {
    text: String,
    /// Where in the text each token ends.
    ends: Vec<usize>,
    /// Where in the text each section begins, and where in the document that is.
    places: Vec<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    at: usize,
    page: Option<u32>,
    headings: Vec<String>,
}

/// A document has more tokens than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document has more than {limit} tokens")]
pub struct TooManyTokens {
    /// What it may have.
    pub limit: usize,
}

impl Encoded {
    /// Encodes the sections, one after the other with an empty line between, if they have `limit`
    /// tokens at most. About two megabytes a second, and some seconds more at the first call of
    /// the process, which loads the vocabulary.
    pub fn new(sections: Vec<Section>, limit: usize) -> Result<Self, TooManyTokens> {
        let tokenizer = bpe_openai::o200k_base();
        let mut encoded = Self {
            text: String::new(),
            ends: Vec::new(),
            places: Vec::with_capacity(sections.len()),
        };
        for section in sections {
            if !encoded.text.is_empty() {
                encoded.text.push_str(BETWEEN);
            }
            encoded.places.push(Place {
                at: encoded.text.len(),
                page: section.page,
                headings: section.headings,
            });
            encoded.text.push_str(&section.text);
        }
        let mut end = 0;
        for piece in pieces(&encoded.text) {
            for token in tokenizer.encode(piece) {
                end += tokenizer.bpe.token_len(token);
                encoded.ends.push(end);
            }
            if encoded.ends.len() > limit {
                return Err(TooManyTokens { limit });
            }
        }
        Ok(encoded)
    }

    /// How many tokens it has.
    pub fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Cuts it up.
    pub fn chunks(&self, strategy: Strategy) -> impl Iterator<Item = Chunk> {
        let mut told = 0;
        self.windows(strategy).map(move |window| {
            let repeats = self.offset(told.max(window.start)) - self.offset(window.start);
            told = window.end;
            self.chunk(window, repeats)
        })
    }

    /// The tokens of each chunk.
    fn windows(&self, strategy: Strategy) -> impl Iterator<Item = Range<usize>> {
        let mut next = (self.tokens() > 0).then_some(0);
        std::iter::from_fn(move || {
            let from = next?;
            let to = self.end_of_window(from, strategy);
            next = (to < self.tokens()).then(|| self.start_after(from, to, strategy));
            Some(from..to)
        })
    }

    /// Where the window that begins at token `from` ends: the last of the best places near its
    /// full length.
    fn end_of_window(&self, from: usize, strategy: Strategy) -> usize {
        let full = from + strategy.max_tokens as usize;
        if full >= self.tokens() {
            return self.tokens();
        }
        let near = full - strategy.slack()..=full;
        near.max_by_key(|&token| self.rank(token)).unwrap_or(full)
    }

    /// Where the window after `from..to` begins: the first of the best places that share at most
    /// what the strategy says with it.
    fn start_after(&self, from: usize, to: usize, strategy: Strategy) -> usize {
        // Always forward, whatever the windows' ends moved by.
        let earliest = (to - (strategy.overlap_tokens as usize).min(to)).max(from + 1);
        let near = earliest..=to.min(earliest + strategy.slack());
        near.rev()
            .max_by_key(|&token| self.rank(token))
            .unwrap_or(to)
    }

    /// How good it is to cut before this token.
    fn rank(&self, token: usize) -> Rank {
        let at = self.offset(token);
        if !self.text.is_char_boundary(at) {
            return Rank::WithinCharacter;
        }
        let (before, after) = self.text.split_at(at);
        let meets_space =
            before.ends_with(char::is_whitespace) || after.starts_with(char::is_whitespace);
        if before.ends_with("\n\n") {
            Rank::Paragraph
        } else if before.ends_with('\n') {
            Rank::Line
        } else if before.ends_with(['。', '！', '？'])
            || (meets_space && before.trim_end().ends_with(['.', '!', '?', '…']))
        {
            Rank::Sentence
        } else if meets_space {
            Rank::Word
        } else {
            Rank::Anywhere
        }
    }

    fn offset(&self, token: usize) -> usize {
        token.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    fn chunk(&self, tokens: Range<usize>, repeats: usize) -> Chunk {
        let begin = self.offset(tokens.start);
        let text = &self.text[begin..self.offset(tokens.end)];
        let first_word = begin + (text.len() - text.trim_start().len());
        let place = self
            .places
            .partition_point(|place| place.at <= first_word)
            .checked_sub(1)
            .map(|index| &self.places[index]);
        Chunk {
            text: text.to_owned(),
            repeats,
            tokens: u32::try_from(tokens.len()).expect("a window has at most 4096 tokens"),
            page: place.and_then(|place| place.page),
            headings: place
                .map(|place| place.headings.clone())
                .unwrap_or_default(),
        }
    }
}

/// Places to cut at, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    WithinCharacter,
    Anywhere,
    Word,
    Sentence,
    Line,
    Paragraph,
}

/// The text in stretches that end at line ends, where it has any.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let line_end = rest
            .as_bytes()
            .iter()
            .skip(PIECE_BYTES)
            .position(|&byte| byte == b'\n');
        let length = line_end.map_or(rest.len(), |after| PIECE_BYTES + after + 1);
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use rand::seq::IndexedRandom;

    use super::*;

    fn section(text: &str, page: u32, heading: &str) -> Section {
        Section {
            text: text.to_owned(),
            page: Some(page),
            headings: vec![heading.to_owned()],
        }
    }

    fn encode(sections: Vec<Section>) -> Encoded {
        Encoded::new(sections, usize::MAX).expect("there is no limit")
    }

    /// Prose, CJK, characters of many tokens, long words without a place to cut, blank lines.
    fn any_text(random: &mut SmallRng) -> String {
        let stock = [
            "The tide turns at noon. ",
            "Why? ",
            "\n",
            "\n\n",
            "   ",
            "潮が満ちる。",
            "𓀀𓂀🏴‍☠️",
            "ｚｏ̈ｐｆ ",
            "0123456789abcdef",
            "x",
            ".",
        ];
        let length = random.random_range(0..3000);
        (0..length)
            .filter_map(|_| stock.choose(random))
            .copied()
            .collect()
    }

    #[test]
    fn chunks_cover_all_text_in_order_within_their_sizes() {
        let mut random = SmallRng::seed_from_u64(4);
        for _ in 0..60 {
            let sections = (1..=random.random_range(1..4))
                .map(|page| section(&any_text(&mut random), page, "h"))
                .collect();
            let encoded = encode(sections);
            let max = random.random_range(Strategy::MIN..=1000);
            let overlap = random.random_range(0..=max / 2);
            let strategy = Strategy::new(max, overlap).expect("within what is documented");
            let (max, overlap) = (max as usize, overlap as usize);
            let windows: Vec<_> = encoded.windows(strategy).collect();
            let chunks: Vec<_> = encoded.chunks(strategy).collect();

            assert_eq!(windows.first().map_or(0, |first| first.start), 0);
            assert_eq!(windows.last().map_or(0, |last| last.end), encoded.tokens());
            for (window, chunk) in windows.iter().zip(&chunks) {
                assert!((1..=max).contains(&window.len()));
                assert_eq!(chunk.tokens as usize, window.len());
                let place = encoded.offset(window.start)..encoded.offset(window.end);
                assert_eq!(encoded.text.get(place), Some(chunk.text.as_str()));
            }
            for pair in windows.windows(2) {
                assert!(pair[0].len() >= max - strategy.slack());
                assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end);
                let shared = pair[0].end - pair[1].start;
                assert!((overlap.saturating_sub(strategy.slack())..=overlap).contains(&shared));
            }
            assert_eq!(chunks, encoded.chunks(strategy).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_overlap_the_chunks_are_the_text() {
        let text = "Das Wasser steigt. Die Boote heben sich.\n".repeat(200);
        let strategy = Strategy::new(240, 0).expect("within what is documented");
        let chunks: Vec<_> = encode(vec![section(&text, 1, "h")])
            .chunks(strategy)
            .collect();
        let joined: String = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
        assert_eq!(joined, text);
        assert!(chunks.len() > 5);
        for chunk in chunks {
            assert!(chunk.text.ends_with(".\n"), "cut at {:?}", chunk.text);
        }
    }

    #[test]
    fn sentences_are_kept_whole() {
        let text = "A gull sat on the rail and looked at us. ".repeat(200);
        let strategy = Strategy::new(200, 100).expect("within what is documented");
        for chunk in encode(vec![section(text.trim(), 1, "h")]).chunks(strategy) {
            assert!(
                chunk.text.trim().starts_with("A gull"),
                "begins {:?}",
                chunk.text
            );
            assert!(
                chunk.text.trim().ends_with("at us."),
                "ends {:?}",
                chunk.text
            );
        }
    }

    #[test]
    fn a_chunk_knows_where_its_first_word_stands() {
        let pages = (1..=6).map(|page| {
            section(
                &format!("word{page} ").repeat(60),
                page,
                &format!("Part {page}"),
            )
        });
        let strategy = Strategy::new(100, 20).expect("within what is documented");
        let chunks: Vec<_> = encode(pages.collect()).chunks(strategy).collect();
        assert!(chunks.len() > 6);
        for chunk in chunks {
            let first = chunk
                .text
                .split_whitespace()
                .next()
                .expect("no chunk is blank");
            let page = chunk.page.expect("every section has a page");
            assert_eq!(first, format!("word{page}"));
            assert_eq!(chunk.headings, [format!("Part {page}")]);
        }
    }

    #[test]
    fn a_document_of_too_many_tokens_is_refused_before_all_of_it_is_encoded() {
        let text = "one two three\n".repeat(100_000);
        let refused = Encoded::new(vec![section(&text, 1, "h")], 1000).map(|_| ());
        assert_eq!(refused, Err(TooManyTokens { limit: 1000 }));
        assert!(pieces(&text).count() > 10);
        assert_eq!(pieces(&text).collect::<String>(), text);
    }

    #[test]
    fn strategies_are_those_documented() {
        assert_eq!(Strategy::new(800, 400), Ok(Strategy::AUTO));
        assert!(Strategy::new(100, 0).is_ok() && Strategy::new(4096, 2048).is_ok());
        assert_eq!(Strategy::new(99, 0), Err(StrategyError::Size));
        assert_eq!(Strategy::new(4097, 0), Err(StrategyError::Size));
        assert_eq!(Strategy::new(101, 51), Err(StrategyError::Overlap));
    }
}
