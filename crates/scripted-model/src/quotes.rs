//! Quotations from what `file_search` returned.

use std::collections::BTreeSet;

use crate::words::words;

/// About the longest quotation, in characters.
const MAX_LENGTH: usize = 300;
const MAX_QUOTATIONS: usize = 2;

struct Quotation {
    marker: String,
    text: String,
    words: BTreeSet<String>,
}

/// The sentences of `result` that share most words with the question, in quotation marks and with
/// their markers, one per line; a second one only if it shares words that the first does not. If
/// none shares a word, the beginning of the first passage: passages come best first.
pub(crate) fn quotes(result: &str, question: &str) -> String {
    let quotations = quotations(result);
    let mut wanted: BTreeSet<String> = words(question).collect();
    let mut lines = Vec::new();
    while lines.len() < MAX_QUOTATIONS {
        let shared = |quotation: &Quotation| quotation.words.intersection(&wanted).count();
        // In reverse, since `max_by_key` returns the last of equals.
        let best = quotations.iter().rev().max_by_key(|it| shared(it));
        let Some(best) = best.filter(|best| lines.is_empty() || shared(best) > 0) else {
            break;
        };
        lines.push(format!("\u{201c}{}\u{201d}{}", best.text, best.marker));
        wanted.retain(|word| !best.words.contains(word));
    }
    lines.join("\n")
}

/// The paragraphs and list items of the passages, split where they are long. Headings are left out.
fn quotations(result: &str) -> Vec<Quotation> {
    let mut quotations = Vec::new();
    let mut marker = "";
    let mut paragraph = String::new();
    // The empty line at the end closes the last paragraph.
    for line in result.lines().chain([""]).map(str::trim) {
        let marker_length = marker_length(line);
        if line.is_empty() || marker_length.is_some() || line.starts_with(['#', '-', '*', '|']) {
            let texts = split(&std::mem::take(&mut paragraph));
            quotations.extend(texts.into_iter().map(|text| Quotation {
                marker: marker.to_owned(),
                words: words(&text).collect(),
                text,
            }));
        }
        if let Some(length) = marker_length {
            marker = &line[..length];
        } else if !line.starts_with(['#', '[']) {
            // Lines in brackets are notes of the server to the model.
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line.trim_start_matches(['-', '*']).trim_start());
        }
    }
    quotations
}

/// The length of the marker at the start of a line, if a passage begins there. The file name in it
/// may hold brackets, and so may the heading behind it.
fn marker_length(line: &str) -> Option<usize> {
    let numbers = line.strip_prefix('\u{3010}')?;
    let is_marker = numbers.starts_with(|char: char| char.is_ascii_digit());
    let before_heading = line.split(" under \"").next().filter(|_| is_marker)?;
    let end = before_heading.rfind('\u{3011}')?;
    Some(end + '\u{3011}'.len_utf8())
}

/// Splits a paragraph between sentences, so that no piece is much longer than a quotation may be.
fn split(paragraph: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for sentence in paragraph.split_inclusive(". ") {
        match pieces.last_mut() {
            Some(piece) if piece.chars().count() + sentence.chars().count() <= MAX_LENGTH => {
                piece.push_str(sentence);
            }
            Some(_) | None => pieces.push(sentence.to_owned()),
        }
    }
    for piece in &mut pieces {
        piece.truncate(piece.trim_end().len());
        if let Some((end, _)) = piece.char_indices().nth(2 * MAX_LENGTH) {
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
        let quoted = quotes(&result, "What is the answer?");
        assert!(quoted.contains("The answer is 42."), "{quoted}");
        assert!(quoted.chars().count() < MAX_LENGTH + 20, "{quoted}");
        let endless = quotes(&format!("【5:3†a.txt】\n{}", "x".repeat(5000)), "x");
        assert!(endless.ends_with("…”【5:3†a.txt】") && endless.chars().count() < 700);
        assert_eq!(quotes("[Nothing was found.]", "What is the answer?"), "");
    }
}
