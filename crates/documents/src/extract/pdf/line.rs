//! Repairs what a PDF's drawing order does to words: accents apart from their letters, and phrases
//! in a line of the other direction.

use unicode_normalization::char::compose;

/// Puts together letters and accents that were drawn one over the other, as TeX does with its
/// older fonts: "r´esz", "franc¸ais".
pub(super) fn compose_accents(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = out.chars().next_back();
        let composed = match (combining(character), characters.peek()) {
            // Before the word, it is a quotation mark.
            (Some(GRAVE), _) if !last.is_some_and(char::is_alphabetic) => None,
            (Some(CEDILLA), _) => last
                .and_then(|letter| compose(letter, CEDILLA))
                .inspect(|_| {
                    out.pop();
                }),
            (Some(accent), Some(&letter)) => compose(with_dot(letter), accent).inspect(|_| {
                characters.next();
            }),
            _ => None,
        };
        out.push(composed.unwrap_or(character));
    }
    out
}

const GRAVE: char = '\u{300}';
const CEDILLA: char = '\u{327}';

/// The combining form of an accent.
fn combining(accent: char) -> Option<char> {
    Some(match accent {
        '`' => GRAVE,
        '´' => '\u{301}',
        'ˆ' => '\u{302}',
        '˜' => '\u{303}',
        '¯' => '\u{304}',
        '˘' => '\u{306}',
        '˙' => '\u{307}',
        '¨' => '\u{308}',
        '˚' => '\u{30a}',
        '˝' => '\u{30b}',
        'ˇ' => '\u{30c}',
        '¸' => CEDILLA,
        _ => return None,
    })
}

/// An accent replaces the dot of these letters, so it is set over a letter without one.
fn with_dot(letter: char) -> char {
    match letter {
        'ı' => 'i',
        'ȷ' => 'j',
        letter => letter,
    }
}

/// Direction of a character, as PDFium divides lines.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Left,
    Right,
    /// Digits, and the punctuation of numbers.
    Number,
    Neutral,
}

fn direction(character: char) -> Direction {
    match character {
        '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}'
            if character.is_alphabetic() =>
        {
            Direction::Right
        }
        '+' | '-' | '.' | ',' | '/' | ':' | '%' | '#' | '$' => Direction::Number,
        digit if digit.is_numeric() => Direction::Number,
        letter if letter.is_alphabetic() => Direction::Left,
        _ => Direction::Neutral,
    }
}

/// Puts the words of each phrase in order. In a line of two directions PDFium turns words around,
/// but leaves the words of a phrase of the lesser direction as they stand on paper:
/// "policy Refund" in a Hebrew line.
pub(super) fn order_phrases(line: &str) -> String {
    let segments = segments(line);
    let count = |wanted| segments.iter().filter(|(it, _)| *it == wanted).count();
    let (left, right) = (count(Direction::Left), count(Direction::Right));
    if left == 0 || right == 0 {
        return line.to_owned();
    }
    let (lesser, greater) = match right >= left {
        true => (Direction::Left, Direction::Right),
        false => (Direction::Right, Direction::Left),
    };
    let mut ordered: Vec<&str> = Vec::with_capacity(segments.len());
    let mut rest = segments.as_slice();
    while let Some(start) = rest.iter().position(|(it, _)| *it == lesser) {
        let after = rest[start..].iter().position(|(it, _)| *it == greater);
        let phrase = &rest[start..after.map_or(rest.len(), |after| start + after)];
        let words = phrase
            .iter()
            .rposition(|(it, _)| *it == lesser)
            .unwrap_or(0)
            + 1;
        ordered.extend(rest[..start].iter().map(|(_, text)| text));
        ordered.extend(phrase[..words].iter().rev().map(|(_, text)| text));
        rest = &rest[start + words..];
    }
    ordered.extend(rest.iter().map(|(_, text)| text));
    ordered.concat()
}

/// Divides a line where the direction changes.
fn segments(line: &str) -> Vec<(Direction, &str)> {
    let mut segments: Vec<(Direction, &str)> = Vec::new();
    let mut start = 0;
    let mut current = None;
    for (index, character) in line.char_indices() {
        let next = direction(character);
        if let Some(ended) = current.replace(next).filter(|ended| *ended != next) {
            segments.push((ended, &line[start..index]));
            start = index;
        }
    }
    segments.extend(current.map(|last| (last, &line[start..])));
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_that_were_set_apart_join_their_letters() {
        for (drawn, written) in [
            ("r´esz ´es sz¨oveg, h˝os", "rész és szöveg, hős"),
            (
                "franc¸ais, tr`es na¨ıve, ˇCesk´a",
                "français, très naïve, Česká",
            ),
            ("`and` ¨ x´ 5´ a", "`and` ¨ x´ 5´ a"),
        ] {
            assert_eq!(compose_accents(drawn), written);
        }
    }

    #[test]
    fn a_phrase_of_the_other_direction_is_put_in_order() {
        for (read, written) in [
            (
                "החזר כספי לפי policy Refund בתוך שלושים",
                "החזר כספי לפי Refund policy בתוך שלושים",
            ),
            (
                "Refund policy כספי החזר thirty",
                "Refund policy החזר כספי thirty",
            ),
            ("מחיר 1,250.50 שקל בשנת 2024", "מחיר 1,250.50 שקל בשנת 2024"),
            ("שלום עולם", "שלום עולם"),
            ("No other direction", "No other direction"),
        ] {
            assert_eq!(order_phrases(read), written);
        }
    }
}
