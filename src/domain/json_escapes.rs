//! Escapes in JSON that name characters which a Rust string or the database cannot hold.
//!
//! These are U+0000 and surrogates without their other half. Models write both; serde_json refuses
//! the second, and with it the whole text.

use std::borrow::Cow;

use serde_json::Value;

/// What stands for a character that cannot be stored.
const REPLACEMENT: &str = "\u{fffd}";

/// Parses JSON in which such escapes count as U+FFFD.
///
/// # Errors
/// When it is no JSON otherwise.
pub fn parse(json: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&replaced(json))
}

/// JSON text with U+FFFD in place of such escapes.
pub fn replaced(json: &str) -> Cow<'_, str> {
    rewritten(json, |_| REPLACEMENT.into())
}

/// JSON text whose strings, once parsed, [`HalfPairs`] reads: a surrogate without its other half is
/// written as U+0000 and four hexadecimal digits. U+0000 stands for nothing else in them.
pub fn marked(json: &str) -> Cow<'_, str> {
    rewritten(json, |unit| format!("\\u0000{unit:04x}").into())
}

fn rewritten(json: &str, lone: impl Fn(u16) -> Cow<'static, str>) -> Cow<'_, str> {
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

/// Reads the strings of [`marked`] JSON, one after the other: a pair whose halves are in two of them
/// is one character, and a half that stays alone is U+FFFD.
#[derive(Debug, Default)]
pub struct HalfPairs {
    /// The first half of a pair, at the end of the last string.
    high: Option<u16>,
}

impl HalfPairs {
    /// A string that nothing comes before or after.
    pub fn whole(marked: &str) -> String {
        let mut halves = Self::default();
        let mut text = halves.push(marked);
        text.extend(halves.finish());
        text
    }

    /// The text of the next string, without a first half at its end.
    pub fn push(&mut self, marked: &str) -> String {
        if self.high.is_none() && !marked.contains('\0') {
            return marked.to_owned();
        }
        let mut text = String::with_capacity(marked.len());
        let mut pieces = marked.split('\0');
        self.plain(pieces.next().unwrap_or_default(), &mut text);
        for piece in pieces {
            let digits = piece.get(..4);
            match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
                Some(unit) => {
                    self.unit(unit, &mut text);
                    self.plain(&piece[4..], &mut text);
                }
                // Not marked: U+0000 itself.
                None => {
                    self.plain(REPLACEMENT, &mut text);
                    self.plain(piece, &mut text);
                }
            }
        }
        text
    }

    /// What stands for a first half whose second one does not come.
    pub fn finish(&mut self) -> Option<&'static str> {
        self.high.take().map(|_| REPLACEMENT)
    }

    fn plain(&mut self, plain: &str, text: &mut String) {
        if !plain.is_empty() {
            text.extend(self.finish());
            text.push_str(plain);
        }
    }

    fn unit(&mut self, unit: u16, text: &mut String) {
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
            let marked: String = serde_json::from_str(&marked(json)).expect("JSON");
            assert_eq!(HalfPairs::whole(&marked), expected, "{json}");
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
        let mut halves = HalfPairs::default();
        let mut read = |json: &str| {
            let string: String = serde_json::from_str(&marked(json)).expect("JSON");
            halves.push(&string)
        };
        assert_eq!(read(r#""a\ud83d""#), "a");
        assert_eq!(read(r#""""#), "");
        assert_eq!(read(r#""\ude00b\ud83d""#), "😀b");
        assert_eq!(read(r#""c\ud83d""#), "\u{fffd}c");
        assert_eq!(read(r#""\ud83d\ude00""#), "\u{fffd}😀");
        assert_eq!(halves.finish(), None);
    }
}
