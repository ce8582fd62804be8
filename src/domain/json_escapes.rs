//! JSON escapes of characters that a Rust string or PostgreSQL cannot hold.
//!
//! These are U+0000 and lone surrogates. Models write both; serde_json rejects a text with a lone
//! surrogate as a whole.

use std::borrow::Cow;

use serde_json::Value;

const REPLACEMENT: &str = "\u{fffd}";

/// Parses JSON, reading such escapes as U+FFFD.
///
/// # Errors
/// If the text is not JSON otherwise.
pub fn parse(json: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&replace_unstorable(json))
}

/// Replaces such escapes by U+FFFD.
pub fn replace_unstorable(json: &str) -> Cow<'_, str> {
    rewrite(json, |_| REPLACEMENT.into())
}

/// Encodes lone surrogates for [`SurrogateDecoder`]: as U+0000 and four hexadecimal digits. U+0000
/// has no other meaning in the result.
pub fn mark_surrogates(json: &str) -> Cow<'_, str> {
    rewrite(json, |unit| format!("\\u0000{unit:04x}").into())
}

fn rewrite(json: &str, lone: impl Fn(u16) -> Cow<'static, str>) -> Cow<'_, str> {
    let mut rewritten = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(start) = json[at..].find('\\').map(|offset| at + offset) {
        let Some(unit) = unit_at(json, start) else {
            let is_pair = json[start + 1..].starts_with('\\');
            at = start + 1 + usize::from(is_pair);
            continue;
        };
        at = start + 6;
        let replacement = match unit {
            0 => REPLACEMENT.into(),
            0xd800..=0xdbff if matches!(unit_at(json, at), Some(0xdc00..=0xdfff)) => {
                at += 6;
                continue;
            }
            0xd800..=0xdfff => lone(unit),
            _ => continue,
        };
        rewritten.push_str(&json[copied..start]);
        rewritten.push_str(&replacement);
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    rewritten.push_str(&json[copied..]);
    Cow::Owned(rewritten)
}

/// The code unit of the escape `\uXXXX` at this position.
fn unit_at(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// Decodes the strings of [`mark_surrogates`] JSON one after the other. A surrogate pair that is
/// split over two strings becomes one character; a surrogate that stays alone becomes U+FFFD.
#[derive(Debug, Default)]
pub struct SurrogateDecoder {
    /// A high surrogate at the end of the previous string.
    high: Option<u16>,
}

impl SurrogateDecoder {
    pub fn decode(marked: &str) -> String {
        let mut decoder = Self::default();
        let mut text = decoder.push(marked);
        text.extend(decoder.finish());
        text
    }

    /// Decodes the next string, without a high surrogate at its end.
    pub fn push(&mut self, marked: &str) -> String {
        if self.high.is_none() && !marked.contains('\0') {
            return marked.to_owned();
        }
        let mut text = String::with_capacity(marked.len());
        let mut pieces = marked.split('\0');
        self.push_plain(pieces.next().unwrap_or_default(), &mut text);
        for piece in pieces {
            let digits = piece.get(..4);
            match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
                Some(unit) => {
                    self.push_surrogate(unit, &mut text);
                    self.push_plain(&piece[4..], &mut text);
                }
                // U+0000 itself, not a marker.
                None => {
                    self.push_plain(REPLACEMENT, &mut text);
                    self.push_plain(piece, &mut text);
                }
            }
        }
        text
    }

    /// The replacement of a high surrogate that no other one follows.
    pub fn finish(&mut self) -> Option<&'static str> {
        self.high.take().map(|_| REPLACEMENT)
    }

    fn push_plain(&mut self, plain: &str, text: &mut String) {
        if !plain.is_empty() {
            text.extend(self.finish());
            text.push_str(plain);
        }
    }

    fn push_surrogate(&mut self, unit: u16, text: &mut String) {
        let pair = self
            .high
            .map(|high| char::decode_utf16([high, unit]).next());
        if let Some(Some(Ok(char))) = pair {
            self.high = None;
            return text.push(char);
        }
        text.extend(self.finish());
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            _ => text.push_str(REPLACEMENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_held_is_replaced_and_everything_else_stays() {
        let cases = [
            (r#""\ud83d\ude00""#, "😀"),
            (r#""a\ud83db""#, "a\u{fffd}b"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\u0000\u00001""#, "\u{fffd}\u{fffd}1"),
            (
                r#""\\ud83d \\\ud83d \\\\u0000""#,
                "\\ud83d \\\u{fffd} \\\\u0000",
            ),
            (r#""\u00e4\uD83D\uDE00""#, "ä😀"),
            (r#""\ud83d\n\u0041""#, "\u{fffd}\nA"),
        ];
        for (json, expected) in cases {
            assert_eq!(parse(json).expect("JSON"), expected, "{json}");
            let marked: String = serde_json::from_str(&mark_surrogates(json)).expect("JSON");
            assert_eq!(SurrogateDecoder::decode(&marked), expected, "{json}");
        }
        for broken in [
            r#""\"#,
            r#""\u"#,
            r#""\ud8"#,
            "\\ä",
            r#""\u+123""#,
            "\\u00ä",
        ] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_pair_in_two_strings_is_one_character() {
        let mut decoder = SurrogateDecoder::default();
        let mut read = |json: &str| {
            let string: String = serde_json::from_str(&mark_surrogates(json)).expect("JSON");
            decoder.push(&string)
        };
        assert_eq!(read(r#""a\ud83d""#), "a");
        assert_eq!(read(r#""""#), "");
        assert_eq!(read(r#""\ude00b\ud83d""#), "😀b");
        assert_eq!(read(r#""c\ud83d""#), "\u{fffd}c");
        assert_eq!(read(r#""\ud83d\ude00""#), "\u{fffd}😀");
        assert_eq!(decoder.finish(), None);
    }
}
