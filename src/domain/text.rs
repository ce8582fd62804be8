//! Text that comes from outside: models, upstreams, code, documents, tool outputs.

use std::borrow::Cow;

/// What replaces a character that cannot be stored.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Replaces every U+0000 by U+FFFD. PostgreSQL stores it neither in `text` nor in `jsonb`, so one
/// in a model's answer would make every attempt to store that answer fail.
pub fn without_nul(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', REPLACEMENT.encode_utf8(&mut [0; 4]));
    }
    text
}

/// Replaces every escape of a lone surrogate in JSON by one of U+FFFD. JavaScript and Python write
/// them for text that was cut within a character; no UTF-8 text has them, so parsers refuse them.
pub fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let (mut copied, mut rest) = (0, 0);
    while let Some(at) = json[rest..].find('\\').map(|at| rest + at) {
        match escaped_unit(&json[at..]) {
            None => rest = (at + 2).min(json.len()),
            Some(0xd800..=0xdbff)
                if matches!(escaped_unit(&json[at + 6..]), Some(0xdc00..=0xdfff)) =>
            {
                rest = at + 12;
            }
            Some(0xd800..=0xdfff) => {
                clean.push_str(&json[copied..at]);
                clean.push_str("\\ufffd");
                rest = at + 6;
                copied = rest;
            }
            Some(_) => rest = at + 6,
        }
        rest = json.ceil_char_boundary(rest);
    }
    if clean.is_empty() {
        return Cow::Borrowed(json);
    }
    clean.push_str(&json[copied..]);
    Cow::Owned(clean)
}

/// The UTF-16 unit that JSON begins with, if that is an escape `\uXXXX`.
fn escaped_unit(json: &str) -> Option<u16> {
    let digits = json.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_everything_else_stays() {
        for (json, expected) in [
            (r#""a\ud800b\udc00""#, r#""a\ufffdb\ufffd""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud800""#, r#""\\ud800""#),
            (r#""\\\ud800""#, r#""\\\ufffd""#),
            (r#""\u00e9 \uD8""#, r#""\u00e9 \uD8""#),
            ("\"\\\u{1f600}\\ud800", "\"\\\u{1f600}\\ufffd"),
            ("\\", "\\"),
            ("", ""),
        ] {
            assert_eq!(without_lone_surrogates(json), expected, "{json}");
        }
    }

    #[test]
    fn a_character_that_cannot_be_stored_is_replaced() {
        assert_eq!(without_nul("a\0b\0".into()), "a\u{fffd}b\u{fffd}");
        assert_eq!(without_nul("\u{1}é".into()), "\u{1}é");
    }
}
