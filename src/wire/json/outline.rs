//! Measures JSON text without parsing it.

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) depth: usize,
    /// Upper bound of the number of values.
    pub(super) values: usize,
    /// Whether a string contains an escaped NUL. JSON allows no unescaped one.
    pub(super) has_nul: bool,
}

impl Outline {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut outline = Self {
            values: 1,
            ..Self::default()
        };
        let (mut depth, mut is_in_string) = (0_usize, false);
        let mut position = 0;
        while let Some(byte) = text.get(position) {
            position += 1;
            match byte {
                b'\\' if is_in_string => {
                    outline.has_nul |= text.get(position..position + 5) == Some(b"u0000");
                    position += 1;
                }
                b'"' => is_in_string = !is_in_string,
                _ if is_in_string => {}
                b'[' | b'{' => {
                    depth += 1;
                    outline.depth = outline.depth.max(depth);
                    outline.values += 1;
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => outline.values += 1,
                _ => {}
            }
        }
        outline
    }
}

/// The number of characters of a JSON string, given the text between its quotes.
pub(super) fn char_count(mut text: &[u8]) -> usize {
    let mut count = 0;
    while let [first, rest @ ..] = text {
        let is_continuation = (0x80..0xc0).contains(first);
        count += usize::from(!is_continuation);
        text = match (first, rest) {
            // A high surrogate: its escaped low surrogate belongs to the same character.
            (
                b'\\',
                [
                    b'u',
                    b'd' | b'D',
                    b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B',
                    ..,
                ],
            ) => rest.get(11..).unwrap_or_default(),
            (b'\\', [b'u', ..]) => rest.get(5..).unwrap_or_default(),
            (b'\\', _) => rest.get(1..).unwrap_or_default(),
            (_, _) => rest,
        };
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured_without_being_parsed() {
        let outline = |depth, values, has_nul| Outline {
            depth,
            values,
            has_nul,
        };
        let cases = [
            ("1", outline(0, 1, false)),
            ("[1,2,3]", outline(1, 4, false)),
            (r#"{"a":{"b":[]},"c":"[[,"}"#, outline(3, 5, false)),
            (r#""\u0000""#, outline(0, 1, true)),
            (r#""\\u0000 \" \u0001""#, outline(0, 1, false)),
        ];
        for (given, expected) in cases {
            assert_eq!(Outline::of(given.as_bytes()), expected, "{given}");
        }
    }
}
