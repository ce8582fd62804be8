//! Text from models, code, documents and tool outputs.

const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Replaces every U+0000 by U+FFFD. PostgreSQL stores U+0000 neither in `text` nor in `jsonb`, so
/// one in a model's answer would make every attempt to store the answer fail.
pub fn without_nul(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', REPLACEMENT.encode_utf8(&mut [0; 4]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_cannot_be_stored_is_replaced() {
        assert_eq!(without_nul("a\0b\0".into()), "a\u{fffd}b\u{fffd}");
        assert_eq!(without_nul("\u{1}é".into()), "\u{1}é");
    }
}
