//! Divides sections into chunks of a number of tokens, by the API's static chunking strategy.
//!
//! The text is tokenized once. A chunk is a window of tokens; its boundaries move by a few tokens
//! to the end of a paragraph, line, sentence or word, and never fall within a character. The result
//! is deterministic.

use std::ops::Range;

use crate::Section;

const SECTION_SEPARATOR: &str = "\n\n";

/// Text is tokenized in segments of about this many bytes, so that the token limit is checked
/// early.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Size and overlap of chunks, in tokens of `o200k_base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    max_tokens: u32,
    overlap_tokens: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    #[error("a chunk must have {} to {} tokens", Strategy::MIN, Strategy::MAX)]
    Size,
    #[error("chunks must not overlap by more than half")]
    Overlap,
}

impl Strategy {
    pub const MIN: u32 = 100;
    pub const MAX: u32 = 4096;
    /// The strategy that the API calls `auto`.
    pub const AUTO: Self = Self {
        max_tokens: 800,
        overlap_tokens: 400,
    };

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

    /// By how many tokens a boundary may move to a better position: at least as many as a single
    /// character can have.
    fn slack(self) -> usize {
        (self.max_tokens as usize / 16).max(8)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Without their overlaps, consecutive chunks add up to the text of the document.
    pub text: String,
    /// Length of the overlap with the previous chunk in bytes.
    pub overlap_bytes: usize,
    pub tokens: u32,
    /// The [`Section::page`] of the first word; `headings` are those of the same word.
    pub page: Option<u32>,
    pub headings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct TokenizedText {
    text: String,
    /// Byte offset of the end of each token.
    token_ends: Vec<usize>,
    sections: Vec<SectionStart>,
}

#[derive(Debug, Clone)]
struct SectionStart {
    offset: usize,
    page: Option<u32>,
    headings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document has more than {limit} tokens")]
pub struct TooManyTokens {
    pub limit: usize,
}

impl TokenizedText {
    /// Tokenizes the sections, separated by empty lines. Processes about 2 MB per second; the first
    /// call of a process takes seconds longer, because it loads the vocabulary.
    ///
    /// # Errors
    /// If there are more than `limit` tokens.
    pub fn new(sections: Vec<Section>, limit: usize) -> Result<Self, TooManyTokens> {
        let tokenizer = bpe_openai::o200k_base();
        let mut tokenized = Self {
            text: String::new(),
            token_ends: Vec::new(),
            sections: Vec::with_capacity(sections.len()),
        };
        for section in sections {
            if !tokenized.text.is_empty() {
                tokenized.text.push_str(SECTION_SEPARATOR);
            }
            tokenized.sections.push(SectionStart {
                offset: tokenized.text.len(),
                page: section.page,
                headings: section.headings,
            });
            tokenized.text.push_str(&section.text);
        }
        let mut end = 0;
        for segment in segments(&tokenized.text) {
            for token in tokenizer.encode(segment) {
                end += tokenizer.bpe.token_len(token);
                tokenized.token_ends.push(end);
            }
            if tokenized.token_ends.len() > limit {
                return Err(TooManyTokens { limit });
            }
        }
        Ok(tokenized)
    }

    pub fn tokens(&self) -> usize {
        self.token_ends.len()
    }

    pub fn chunks(&self, strategy: Strategy) -> impl Iterator<Item = Chunk> {
        let mut previous_end = 0;
        self.windows(strategy).map(move |window| {
            let overlap_end = previous_end.max(window.start);
            let overlap_bytes = self.offset(overlap_end) - self.offset(window.start);
            previous_end = window.end;
            self.chunk(window, overlap_bytes)
        })
    }

    fn windows(&self, strategy: Strategy) -> impl Iterator<Item = Range<usize>> {
        let mut next = (self.tokens() > 0).then_some(0);
        std::iter::from_fn(move || {
            let start = next?;
            let end = self.window_end(start, strategy);
            next = (end < self.tokens()).then(|| self.next_start(start, end, strategy));
            Some(start..end)
        })
    }

    /// The end of the window that starts at token `start`: the last of the best boundaries within
    /// the slack below the maximum length.
    fn window_end(&self, start: usize, strategy: Strategy) -> usize {
        let full = start + strategy.max_tokens as usize;
        if full >= self.tokens() {
            return self.tokens();
        }
        let candidates = full - strategy.slack()..=full;
        candidates
            .max_by_key(|&token| self.boundary(token))
            .unwrap_or(full)
    }

    /// The start of the window after `start..end`: the first of the best boundaries whose overlap
    /// is at most that of the strategy.
    fn next_start(&self, start: usize, end: usize, strategy: Strategy) -> usize {
        // Windows always advance, even if their boundaries have moved.
        let earliest = (end - (strategy.overlap_tokens as usize).min(end)).max(start + 1);
        let candidates = earliest..=end.min(earliest + strategy.slack());
        candidates
            .rev()
            .max_by_key(|&token| self.boundary(token))
            .unwrap_or(end)
    }

    fn boundary(&self, token: usize) -> Boundary {
        let offset = self.offset(token);
        if !self.text.is_char_boundary(offset) {
            return Boundary::WithinCharacter;
        }
        let (before, after) = self.text.split_at(offset);
        let is_at_space =
            before.ends_with(char::is_whitespace) || after.starts_with(char::is_whitespace);
        if before.ends_with("\n\n") {
            Boundary::Paragraph
        } else if before.ends_with('\n') {
            Boundary::Line
        } else if before.ends_with(['。', '！', '？'])
            || (is_at_space && before.trim_end().ends_with(['.', '!', '?', '…']))
        {
            Boundary::Sentence
        } else if is_at_space {
            Boundary::Word
        } else {
            Boundary::Anywhere
        }
    }

    fn offset(&self, token: usize) -> usize {
        token
            .checked_sub(1)
            .map_or(0, |previous| self.token_ends[previous])
    }

    fn chunk(&self, tokens: Range<usize>, overlap_bytes: usize) -> Chunk {
        let start = self.offset(tokens.start);
        let text = &self.text[start..self.offset(tokens.end)];
        let first_word = start + (text.len() - text.trim_start().len());
        let section = self
            .sections
            .partition_point(|section| section.offset <= first_word)
            .checked_sub(1)
            .map(|index| &self.sections[index]);
        Chunk {
            text: text.to_owned(),
            overlap_bytes,
            tokens: u32::try_from(tokens.len()).expect("a window has at most 4096 tokens"),
            page: section.and_then(|section| section.page),
            headings: section
                .map(|section| section.headings.clone())
                .unwrap_or_default(),
        }
    }
}

/// Kinds of chunk boundaries, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Boundary {
    WithinCharacter,
    Anywhere,
    Word,
    Sentence,
    Line,
    Paragraph,
}

/// Divides the text into segments of at least [`SEGMENT_BYTES`] that end at line ends.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let line_end = rest
            .as_bytes()
            .iter()
            .skip(SEGMENT_BYTES)
            .position(|&byte| byte == b'\n');
        let length = line_end.map_or(rest.len(), |after| SEGMENT_BYTES + after + 1);
        let (segment, after) = rest.split_at(length);
        rest = after;
        (!segment.is_empty()).then_some(segment)
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

    fn tokenize(sections: Vec<Section>) -> TokenizedText {
        TokenizedText::new(sections, usize::MAX).expect("the limit is not reached")
    }

    fn random_text(random: &mut SmallRng) -> String {
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
                .map(|page| section(&random_text(&mut random), page, "h"))
                .collect();
            let tokenized = tokenize(sections);
            let max = random.random_range(Strategy::MIN..=1000);
            let overlap = random.random_range(0..=max / 2);
            let strategy = Strategy::new(max, overlap).expect("the strategy is valid");
            let (max, overlap) = (max as usize, overlap as usize);
            let windows: Vec<_> = tokenized.windows(strategy).collect();
            let chunks: Vec<_> = tokenized.chunks(strategy).collect();

            assert_eq!(windows.first().map_or(0, |first| first.start), 0);
            assert_eq!(
                windows.last().map_or(0, |last| last.end),
                tokenized.tokens()
            );
            for (window, chunk) in windows.iter().zip(&chunks) {
                assert!((1..=max).contains(&window.len()));
                assert_eq!(chunk.tokens as usize, window.len());
                let range = tokenized.offset(window.start)..tokenized.offset(window.end);
                assert_eq!(tokenized.text.get(range), Some(chunk.text.as_str()));
            }
            for pair in windows.windows(2) {
                assert!(pair[0].len() >= max - strategy.slack());
                assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end);
                let shared = pair[0].end - pair[1].start;
                assert!((overlap.saturating_sub(strategy.slack())..=overlap).contains(&shared));
            }
            assert_eq!(chunks, tokenized.chunks(strategy).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_overlap_the_chunks_are_the_text() {
        let text = "Das Wasser steigt. Die Boote heben sich.\n".repeat(200);
        let strategy = Strategy::new(240, 0).expect("the strategy is valid");
        let chunks: Vec<_> = tokenize(vec![section(&text, 1, "h")])
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
        let strategy = Strategy::new(200, 100).expect("the strategy is valid");
        for chunk in tokenize(vec![section(text.trim(), 1, "h")]).chunks(strategy) {
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
        let strategy = Strategy::new(100, 20).expect("the strategy is valid");
        let chunks: Vec<_> = tokenize(pages.collect()).chunks(strategy).collect();
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
    fn a_document_of_too_many_tokens_is_refused_before_all_of_it_is_tokenized() {
        let text = "one two three\n".repeat(100_000);
        let refused = TokenizedText::new(vec![section(&text, 1, "h")], 1000).map(|_| ());
        assert_eq!(refused, Err(TooManyTokens { limit: 1000 }));
        assert!(segments(&text).count() > 10);
        assert_eq!(segments(&text).collect::<String>(), text);
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
