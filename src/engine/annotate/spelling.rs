//! Normalizes the spellings of a path in a link, so that paths can be compared.
//!
//! Decodes percent-encoding (once or twice), HTML entities and Markdown escapes, and removes `./`,
//! repeated slashes and zero-width characters. Composed and decomposed characters (NFC, NFD) become
//! equal, and so do characters that models interchange: kinds of blanks, quotation marks and
//! hyphens, and `+` for a blank.

use unicode_normalization::char::decompose_compatible;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathChar {
    pub(super) char: char,
    pub(super) end: usize,
    /// Whether it is the last of the characters with this spelling: a normalized `é` is two.
    pub(super) is_last: bool,
}

const ENTITIES: [(&str, char); 6] = [
    ("&amp;", '&'),
    ("&lt;", '<'),
    ("&gt;", '>'),
    ("&quot;", '"'),
    ("&apos;", '\''),
    ("&nbsp;", ' '),
];

/// Longest numeric entity, in bytes, such as `&#x1F600;`.
const NUMERIC_ENTITY_BYTES: usize = 10;

/// Normalizes the path at the beginning of a text, without leading slashes, up to one character more
/// than `longest`. Unless the text is complete, a spelling at its end that may continue is left out.
pub(super) fn read(text: &str, longest: usize, is_complete: bool) -> Vec<PathChar> {
    let mut path: Vec<PathChar> = Vec::new();
    let begins_segment = |path: &[PathChar]| path.last().is_none_or(|it| it.char == '/');
    for (char, end) in (Decoder {
        text,
        at: 0,
        is_complete,
    }) {
        if path.len() > longest {
            break;
        }
        if char == '/' {
            if let [before @ .., PathChar { char: '.', .. }] = &path[..]
                && begins_segment(before)
            {
                path.pop();
            }
            if begins_segment(&path) {
                continue;
            }
        }
        decompose_compatible(char, |char| {
            path.extend(normalized(char).map(|char| PathChar {
                char,
                end,
                is_last: false,
            }));
        });
        if let Some(last) = path.last_mut() {
            last.is_last = true;
        }
    }
    if let [before @ .., PathChar { char: '.', .. }] = &path[..]
        && begins_segment(before)
        && !is_complete
    {
        path.pop();
    }
    path
}

pub(super) fn decode(text: &str) -> String {
    let (at, is_complete) = (0, true);
    let decoder = Decoder {
        text,
        at,
        is_complete,
    };
    decoder.map(|(char, _)| char).collect()
}

fn normalized(char: char) -> Option<char> {
    Some(match char {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => return None,
        '\u{2060}'..='\u{2069}' | '\u{feff}' => return None,
        '\u{2018}'..='\u{201b}' | '\u{2032}' | '\u{2bc}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '+' => ' ',
        '\n' | '\r' => char,
        char if char.is_whitespace() => ' ',
        char => char,
    })
}

/// Iterates over the decoded characters of a text, each with the end offset of its encoded form. Stops
/// before an incomplete escape sequence, unless the text is complete.
struct Decoder<'a> {
    text: &'a str,
    at: usize,
    is_complete: bool,
}

impl Iterator for Decoder<'_> {
    type Item = (char, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let decoded = match first {
            '%' => percent_encoded(rest),
            '&' => entity(rest),
            '\\' => escaped(rest),
            _ => Decoded::Plain,
        };
        let (char, length) = match decoded {
            Decoded::To(char, length) => (char, length),
            Decoded::Incomplete if !self.is_complete => return None,
            Decoded::Incomplete if rest.starts_with("%25") => ('%', 3),
            Decoded::Incomplete | Decoded::Plain => (first, first.len_utf8()),
        };
        self.at += length;
        Some((char, self.at))
    }
}

enum Decoded<T = char> {
    /// A value, and how many bytes spell it.
    To(T, usize),
    Incomplete,
    Plain,
}

fn percent_encoded(text: &str) -> Decoded {
    // An encoded percent sign, before digits that do not encode a character.
    let percent_sign = match text.starts_with("%25") {
        true => Decoded::To('%', 3),
        false => Decoded::Plain,
    };
    let mut bytes = [0; 4];
    let (mut length, mut count, mut at) = (1, 0, 0);
    while count < length {
        match percent_encoded_byte(&text.as_bytes()[at..]) {
            Decoded::To(byte, spelling) => {
                if count == 0 {
                    length = match byte {
                        0x00..=0x7f => 1,
                        0xc0..=0xdf => 2,
                        0xe0..=0xef => 3,
                        0xf0..=0xf7 => 4,
                        _ => return percent_sign,
                    };
                }
                bytes[count] = byte;
                count += 1;
                at += spelling;
            }
            Decoded::Incomplete => return Decoded::Incomplete,
            Decoded::Plain if count == 0 => return Decoded::Plain,
            Decoded::Plain => return percent_sign,
        }
    }
    let char = str::from_utf8(&bytes[..count]).ok();
    let char = char.and_then(|text| text.chars().next());
    char.map_or(percent_sign, |char| Decoded::To(char, at))
}

/// One byte, such as `%C3`, or `%25C3` if the percent sign is encoded again.
fn percent_encoded_byte(text: &[u8]) -> Decoded<u8> {
    let Some(mut digits) = text.strip_prefix(b"%") else {
        return match text {
            [] => Decoded::Incomplete,
            _ => Decoded::Plain,
        };
    };
    let is_short = |digits: &[u8]| digits.len() < 2 && digits.iter().all(u8::is_ascii_hexdigit);
    loop {
        let Some((pair, rest)) = digits.split_at_checked(2) else {
            return match is_short(digits) {
                true => Decoded::Incomplete,
                false => Decoded::Plain,
            };
        };
        let byte = str::from_utf8(pair).ok();
        let byte = byte.filter(|_| pair.iter().all(u8::is_ascii_hexdigit));
        let Some(byte) = byte.and_then(|pair| u8::from_str_radix(pair, 16).ok()) else {
            return Decoded::Plain;
        };
        if byte == b'%' && is_short(rest) {
            return Decoded::Incomplete;
        }
        let goes_on = rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
        if byte != b'%' || !goes_on {
            return Decoded::To(byte, text.len() - rest.len());
        }
        digits = rest;
    }
}

fn entity(text: &str) -> Decoded {
    for (entity, char) in ENTITIES {
        if text.starts_with(entity) {
            return Decoded::To(char, entity.len());
        }
        if entity.starts_with(text) {
            return Decoded::Incomplete;
        }
    }
    let Some(number) = text.strip_prefix("&#") else {
        return Decoded::Plain;
    };
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let end = digits.find(|char: char| !char.is_digit(radix));
    let (digits, rest) = digits.split_at(end.unwrap_or(digits.len()));
    let length = text.len() - rest.len() + 1;
    let char = u32::from_str_radix(digits, radix).ok();
    match char.and_then(char::from_u32) {
        _ if rest.is_empty() && length <= NUMERIC_ENTITY_BYTES => Decoded::Incomplete,
        Some(char) if rest.starts_with(';') => Decoded::To(char, length),
        _ => Decoded::Plain,
    }
}

fn escaped(text: &str) -> Decoded {
    match text.chars().nth(1) {
        None => Decoded::Incomplete,
        Some(char) if char.is_ascii_punctuation() => Decoded::To(char, 2),
        Some(_) => Decoded::Plain,
    }
}
