//! What a search result says about a question: its sentences that have most words in common.

use std::collections::BTreeSet;

use super::mention;

/// About how long a quotation is, in characters.
const LENGTH: usize = 300;

/// Most quotations.
const QUOTES_MAX: usize = 2;

/// A piece of a passage that is quoted as a whole.
struct Piece {
    /// The marker that cites its passage.
    marker: String,
    text: String,
    /// Its telling words.
    words: BTreeSet<String>,
    /// The words of what stands above it.
    heading: BTreeSet<String>,
}

/// The pieces of `result`, which file_search returned, that are nearest to the question, each in
/// quotation marks and with its marker, one a line. Without a word in common: how the first
/// passage, which fits best by meaning, begins.
pub(super) fn quotes(result: &str, question: &str) -> String {
    let asked: BTreeSet<String> = mention::words(question).into_iter().collect();
    let pieces = pieces(result);
    // A word that few pieces have tells more than one that all have.
    let weight = |word: &String| {
        let having = pieces.iter().filter(|piece| piece.has(word)).count();
        1.0 / having.max(1) as f64
    };
    let mut open = asked;
    let mut chosen: Vec<&Piece> = Vec::new();
    while chosen.len() < QUOTES_MAX {
        let scores = pieces.iter().map(|piece| {
            let shared =
                |words: &BTreeSet<String>| -> f64 { words.intersection(&open).map(weight).sum() };
            shared(&piece.words) + shared(&piece.heading) / 2.0
        });
        let best = scores.zip(&pieces).reduce(|best, next| {
            // The first of equals: passages come best first.
            if next.0 > best.0 { next } else { best }
        });
        let Some((score, best)) = best.filter(|(score, _)| *score > 0.0 || chosen.is_empty())
        else {
            break;
        };
        chosen.push(best);
        if score == 0.0 {
            break;
        }
        open.retain(|word| !best.has(word));
    }
    let quotes = chosen
        .iter()
        .map(|piece| format!("\u{201c}{}\u{201d}{}", piece.text, piece.marker));
    quotes.collect::<Vec<_>>().join("\n")
}

impl Piece {
    fn has(&self, word: &String) -> bool {
        self.words.contains(word) || self.heading.contains(word)
    }
}

/// The passages of a result, cut into paragraphs, items of lists and long paragraphs' sentences.
fn pieces(result: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut marker = String::new();
    let mut heading = BTreeSet::new();
    let mut paragraph = String::new();
    // The empty line at the end closes the last paragraph.
    for line in result.lines().chain([""]).map(str::trim) {
        let passage = end_of_marker(line);
        let title = line.strip_prefix('#').map(|rest| rest.trim_matches('#'));
        let is_item = line.starts_with(['-', '*', '|']);
        if line.is_empty() || passage.is_some() || title.is_some() || is_item {
            let texts = cut(&std::mem::take(&mut paragraph));
            pieces.extend(texts.into_iter().map(|text| Piece {
                marker: marker.clone(),
                words: mention::words(&text).into_iter().collect(),
                text,
                heading: heading.clone(),
            }));
        }
        if let Some(end) = passage {
            let (before, after) = line.split_at(end);
            marker = before.to_owned();
            heading = mention::words(after).into_iter().collect();
        } else if let Some(title) = title {
            heading = mention::words(title).into_iter().collect();
        } else if !line.starts_with('[') {
            // Brackets hold what the server says to the model.
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line.trim_start_matches(['-', '*']).trim_start());
        }
    }
    pieces.retain(|piece| !piece.text.is_empty());
    pieces
}

/// Where the marker ends that this line begins with, if it is the first of a passage. Names of files
/// may contain brackets, too.
fn end_of_marker(line: &str) -> Option<usize> {
    let numbers = line.strip_prefix('\u{3010}')?;
    let is_number = numbers.starts_with(|char: char| char.is_ascii_digit());
    let before_heading = line.split(" under \"").next().filter(|_| is_number)?;
    let end = before_heading.rfind('\u{3011}')?;
    Some(end + '\u{3011}'.len_utf8())
}

/// A paragraph in pieces of whole sentences, each about as long as a quotation may be.
fn cut(paragraph: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for sentence in paragraph.split_inclusive(['.', '!', '?', ';']) {
        let piece = pieces.last_mut().expect("there is always a last piece");
        let ended = piece.ends_with(['.', '!', '?', ';']) && sentence.starts_with(' ');
        if ended && piece.chars().count() + sentence.chars().count() > LENGTH {
            pieces.push(sentence.trim_start().to_owned());
        } else {
            piece.push_str(sentence);
        }
    }
    for piece in &mut pieces {
        if let Some((end, _)) = piece.char_indices().nth(2 * LENGTH) {
            piece.truncate(end);
            piece.push('\u{2026}');
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "\
【4:0†policy.md】 page 2 under \"Sales\"
# Refunds

Goods may be returned within 30 days.
After that, credit is given.

# Shipping

Parcels leave at 17:00. Delivery to other countries takes nine days.

【4:1†pets.txt】
- The cat is called Miso.
- The dog bites interns.

[Put the marker of each passage that you use behind it.]";

    #[test]
    fn the_nearest_sentences_are_quoted_with_their_markers() {
        for (question, expected) in [
            (
                "What is the refund policy?",
                "“Goods may be returned within 30 days. After that, credit is given.”【4:0†policy.md】",
            ),
            (
                "When do parcels leave?",
                "“Parcels leave at 17:00. Delivery to other countries takes nine days.”【4:0†policy.md】",
            ),
            (
                "Whom does the dog bite?",
                "“The dog bites interns.”【4:1†pets.txt】",
            ),
            (
                "When do parcels leave, and what is the cat called?",
                "“Parcels leave at 17:00. Delivery to other countries takes nine days.”【4:0†policy.md】\n\
                 “The cat is called Miso.”【4:1†pets.txt】",
            ),
            (
                "Quo vadis?",
                "“Goods may be returned within 30 days. After that, credit is given.”【4:0†policy.md】",
            ),
        ] {
            assert_eq!(quotes(RESULT, question), expected, "{question}");
        }
    }

    #[test]
    fn brackets_in_names_and_texts_do_not_end_a_marker() {
        let result =
            "【4:0†【重要】a.txt】 page 1 under \"【Notice】\"\n【Notice】 The office is closed.";
        assert_eq!(
            quotes(result, "Is the office closed?"),
            "“【Notice】 The office is closed.”【4:0†【重要】a.txt】"
        );
    }

    #[test]
    fn long_paragraphs_are_quoted_in_part() {
        let filler = "Nothing of interest is said here, at some length. ".repeat(20);
        let result = format!("【5:3†a.txt】\n{filler}The answer is 42. {filler}");
        let said = quotes(&result, "What is the answer?");
        assert!(said.contains("The answer is 42."), "{said}");
        assert!(said.chars().count() < LENGTH + 20, "{said}");
        let endless = quotes(&format!("【5:3†a.txt】\n{}", "x".repeat(5000)), "x");
        assert!(endless.ends_with("…”【5:3†a.txt】") && endless.chars().count() < 700);
        assert_eq!(quotes("[Nothing was found.]", "What is the answer?"), "");
    }
}
