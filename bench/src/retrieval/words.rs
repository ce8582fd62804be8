//! Texts of made-up words with the frequencies of a natural language (Zipf).

use super::random::Random;
use super::random::mix;
use super::vectors;
use std::collections::HashSet;
use std::fmt::Write;

/// Stop words, which a search ignores.
const STOP_WORDS: [&str; 30] = [
    "the", "of", "and", "to", "a", "in", "is", "that", "for", "it", "with", "as", "was", "on",
    "by", "this", "are", "be", "at", "from", "or", "not", "but", "which", "they", "can", "has",
    "been", "its", "were",
];

/// The number of other words.
const VOCABULARY: usize = 30_000;

/// Words of a topic; topics may share some.
const WORDS_PER_TOPIC: u64 = 120;

/// Words that are too frequent to belong to a topic.
const FREQUENT: u64 = 500;

/// The share of stop words in a text.
const STOPS: f64 = 0.42;

/// The share of topic words among the other words.
const TOPICAL: f64 = 0.25;

/// The vocabulary. Words are identified by number.
pub(super) struct Words {
    words: Vec<String>,
    /// Cumulative frequencies, without stop words and topics.
    up_to: Vec<f64>,
}

impl Words {
    pub(super) fn new() -> Self {
        let mut words: Vec<String> = STOP_WORDS.map(str::to_owned).to_vec();
        let mut known: HashSet<String> = words.iter().cloned().collect();
        let mut random = Random::new(7);
        while words.len() < STOP_WORDS.len() + VOCABULARY {
            let word = invent(&mut random);
            if known.insert(word.clone()) {
                words.push(word);
            }
        }
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=VOCABULARY)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|share| *share /= sum);
        Self { words, up_to }
    }

    /// All words by number.
    pub(super) fn all(&self) -> &[String] {
        &self.words
    }

    /// The words of a chunk, 200 to 400.
    pub(super) fn of_chunk(&self, chunk: u64) -> Vec<usize> {
        let mut random = Random::new(mix(chunk ^ 0x77));
        let length = 200 + random.below(201);
        let topic = vectors::topic(chunk);
        (0..length)
            .map(|_| match random.unit() {
                share if share < STOPS => random.below(STOP_WORDS.len() as u64) as usize,
                _ if random.unit() < TOPICAL => topical(topic, &mut random),
                _ => self.frequent(&mut random),
            })
            .collect()
    }

    /// Writes words as text, in sentences and paragraphs.
    pub(super) fn write(&self, words: &[usize], out: &mut String) {
        for (n, word) in words.iter().enumerate() {
            match n {
                0 => {}
                _ if n % 72 == 0 => out.push_str(".\n\n"),
                _ if n % 12 == 0 => out.push_str(". "),
                _ => out.push(' '),
            }
            out.push_str(&self.words[*word]);
        }
        out.push('.');
    }

    /// A text of this many bytes, different for every number.
    pub(super) fn text(&self, number: u64, bytes: usize) -> String {
        let mut text = format!("Report {number}\n\n");
        let first = mix(number) % (1 << 40) * vectors::CHUNKS_PER_TOPIC;
        for chunk in first.. {
            if text.len() >= bytes {
                break;
            }
            self.write(&self.of_chunk(chunk), &mut text);
            text.push_str("\n\n");
        }
        text.truncate(bytes);
        text
    }

    /// A query for a chunk: a few words of its topic and a few random ones.
    pub(super) fn query(&self, chunk: u64) -> String {
        let mut random = Random::new(mix(chunk ^ 0x9));
        let topic = vectors::topic(chunk);
        let mut text = String::from("what is the");
        for _ in 0..3 {
            let word = topical(topic, &mut random);
            write!(text, " {}", self.words[word]).expect("a String takes all");
        }
        text.push_str(" of a");
        for _ in 0..2 {
            let word = self.frequent(&mut random);
            write!(text, " {}", self.words[word]).expect("a String takes all");
        }
        write!(text, " q{chunk}").expect("a String takes all");
        text
    }

    /// A random word by frequency.
    fn frequent(&self, random: &mut Random) -> usize {
        let share = random.unit();
        let rank = self.up_to.partition_point(|up_to| *up_to <= share);
        STOP_WORDS.len() + rank.min(VOCABULARY - 1)
    }
}

fn topical(topic: u64, random: &mut Random) -> usize {
    let word = mix(topic * WORDS_PER_TOPIC + random.below(WORDS_PER_TOPIC));
    STOP_WORDS.len() + (FREQUENT + word % (VOCABULARY as u64 - FREQUENT)) as usize
}

fn invent(random: &mut Random) -> String {
    const BEGINNINGS: [&str; 20] = [
        "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "cl",
        "st", "tr", "pl",
    ];
    const MIDDLES: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "ou"];
    const ENDS: [&str; 8] = ["", "", "n", "r", "l", "s", "m", "t"];
    const ENDINGS: [&str; 10] = ["", "", "", "s", "s", "ing", "ed", "er", "ation", "al"];
    let mut word = String::new();
    for _ in 0..2 + random.below(2) {
        for part in [BEGINNINGS.as_slice(), &MIDDLES, &ENDS] {
            word.push_str(part[random.below(part.len() as u64) as usize]);
        }
    }
    word.push_str(ENDINGS[random.below(ENDINGS.len() as u64) as usize]);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_the_words_that_are_asked_for() {
        let words = Words::new();
        let asked = words.query(4711);
        assert_eq!(asked, words.query(4711));
        assert!(asked.ends_with(" q4711"), "{asked}");
        let mut text = String::new();
        words.write(&words.of_chunk(4711), &mut text);
        let has = |word: &str| text.contains(word);
        assert!(asked.split(' ').skip(3).any(has), "{asked} in {text}");
        assert_eq!(words.text(1, 4_000).len(), 4_000);
        assert_ne!(words.text(1, 4_000), words.text(2, 4_000));
    }
}
