//! Rich text (RTF).

use std::collections::HashMap;

use encoding_rs::BIG5;
use encoding_rs::EUC_KR;
use encoding_rs::Encoding;
use encoding_rs::GBK;
use encoding_rs::SHIFT_JIS;
use encoding_rs::WINDOWS_1252;

use crate::ExtractError;

use super::output::Output;

/// Groups whose content is not text. Groups that begin with `\*` are left out as well.
const HIDDEN_GROUPS: &[&str] = &[
    "fonttbl",
    "colortbl",
    "stylesheet",
    "listtable",
    "listoverridetable",
    "info",
    "pict",
    "object",
    "themedata",
    "fldinst",
    "xmlnstbl",
    "rsidtbl",
    "generator",
];

pub(super) fn extract(bytes: &[u8], output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut parser = Parser::new(bytes);
    parser.run();
    parser.flush();
    output.push(None, &[], &parser.text)
}

/// State that ends with its group.
#[derive(Clone, Copy)]
struct Group {
    is_hidden: bool,
    /// Bytes after `\u` that repeat its character for older readers.
    fallback_bytes: usize,
    /// That of the font, if it has one of its own.
    encoding: Option<&'static Encoding>,
}

struct Parser<'a> {
    rest: &'a [u8],
    text: String,
    /// Bytes of the document's code page that are not decoded yet: a character may have several.
    encoded: Vec<u8>,
    encoding: &'static Encoding,
    /// The encodings of fonts by their numbers, and the font that is being defined.
    fonts: HashMap<i32, &'static Encoding>,
    font: i32,
    group: Group,
    outer: Vec<Group>,
    /// The first half of a character of two UTF-16 units.
    surrogate: Option<u16>,
    skipped: usize,
}

impl<'a> Parser<'a> {
    fn new(rest: &'a [u8]) -> Self {
        let group = Group {
            is_hidden: false,
            fallback_bytes: 1,
            encoding: None,
        };
        Self {
            rest,
            text: String::new(),
            encoded: Vec::new(),
            encoding: WINDOWS_1252,
            fonts: HashMap::new(),
            font: 0,
            group,
            outer: Vec::new(),
            surrogate: None,
            skipped: 0,
        }
    }

    fn run(&mut self) {
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'{' => self.outer.push(self.group),
                b'}' => {
                    self.flush();
                    if let Some(group) = self.outer.pop() {
                        self.group = group;
                    }
                }
                b'\\' => self.control(),
                b'\r' | b'\n' => {}
                byte => self.byte(byte),
            }
        }
    }

    fn control(&mut self) {
        let Some((&first, rest)) = self.rest.split_first() else {
            return;
        };
        if first.is_ascii_alphabetic() {
            let (word, number) = self.control_word();
            return self.word(word, number);
        }
        self.rest = rest;
        match first {
            b'\'' => {
                let code = self
                    .rest
                    .get(..2)
                    .and_then(|hex| std::str::from_utf8(hex).ok());
                if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    self.rest = &self.rest[2..];
                    self.byte(byte);
                }
            }
            b'*' => self.group.is_hidden = true,
            b'~' => self.push(' '),
            b'_' => self.push('-'),
            b'\r' | b'\n' => self.push('\n'),
            b'{' | b'}' | b'\\' => self.byte(first),
            _ => {}
        }
    }

    /// Takes a word such as `par` or `u8364`, with the space that ends it.
    fn control_word(&mut self) -> (&'a str, Option<i32>) {
        let bytes = self.rest;
        let letters = bytes.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let sign = usize::from(bytes.get(letters) == Some(&b'-'));
        let number = bytes[letters + sign..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        let end = if number > 0 {
            letters + sign + number
        } else {
            letters
        };
        let space = usize::from(bytes.get(end) == Some(&b' '));
        self.rest = &bytes[end + space..];
        let text = |range| std::str::from_utf8(&bytes[range]).unwrap_or_default();
        (text(0..letters), text(letters..end).parse().ok())
    }

    fn word(&mut self, word: &str, number: Option<i32>) {
        match (word, number) {
            ("par" | "line" | "row" | "sect" | "page", _) => self.push('\n'),
            ("tab" | "cell", _) => self.push('\t'),
            ("emdash", _) => self.push('—'),
            ("endash", _) => self.push('–'),
            ("lquote", _) => self.push('‘'),
            ("rquote", _) => self.push('’'),
            ("ldblquote", _) => self.push('“'),
            ("rdblquote", _) => self.push('”'),
            ("bullet", _) => self.push('•'),
            ("uc", Some(count)) => {
                self.group.fallback_bytes = usize::try_from(count).unwrap_or(0).min(8);
            }
            ("u", Some(code)) => self.unicode(code),
            ("ansicpg", Some(page)) => {
                self.encoding = of_code_page(page).unwrap_or(WINDOWS_1252);
            }
            ("f", Some(font)) => {
                self.flush();
                self.font = font;
                self.group.encoding = self.fonts.get(&font).copied();
            }
            ("fcharset", Some(charset)) => {
                if let Some(encoding) = of_charset(charset) {
                    self.fonts.insert(self.font, encoding);
                }
            }
            ("bin", Some(count)) => {
                let count = usize::try_from(count).unwrap_or(0);
                self.rest = self.rest.get(count..).unwrap_or_default();
            }
            (word, _) if HIDDEN_GROUPS.contains(&word) => self.group.is_hidden = true,
            _ => {}
        }
    }

    /// A UTF-16 unit, which old writers give as a signed number.
    fn unicode(&mut self, code: i32) {
        self.flush();
        self.skipped = self.group.fallback_bytes;
        let unit = (code & 0xffff) as u16;
        let units = self.surrogate.take().into_iter().chain([unit]);
        match char::decode_utf16(units).next() {
            Some(Ok(character)) if !self.group.is_hidden => self.text.push(character),
            Some(Err(error)) if (0xd800..0xdc00).contains(&error.unpaired_surrogate()) => {
                self.surrogate = Some(unit);
            }
            _ => {}
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.skipped > 0 {
            self.skipped -= 1;
        } else if !self.group.is_hidden {
            self.encoded.push(byte);
        }
    }

    fn push(&mut self, character: char) {
        self.flush();
        if !self.group.is_hidden {
            self.text.push(character);
        }
    }

    fn flush(&mut self) {
        let encoding = self.group.encoding.unwrap_or(self.encoding);
        let text = encoding.decode_without_bom_handling(&self.encoded).0;
        self.text.push_str(&text);
        self.encoded.clear();
    }
}

fn of_code_page(page: i32) -> Option<&'static Encoding> {
    Some(match page {
        932 => SHIFT_JIS,
        936 => GBK,
        949 => EUC_KR,
        950 => BIG5,
        page => return Encoding::for_label(format!("windows-{page}").as_bytes()),
    })
}

/// The encoding of a font's character set, by its number in Windows.
fn of_charset(charset: i32) -> Option<&'static Encoding> {
    of_code_page(match charset {
        128 => 932,
        129 => 949,
        134 => 936,
        136 => 950,
        161 => 1253,
        162 => 1254,
        163 => 1258,
        177 => 1255,
        178 => 1256,
        186 => 1257,
        204 => 1251,
        222 => 874,
        238 => 1250,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(rtf: &str) -> String {
        let mut text = String::new();
        let mut write = |section: crate::Section| {
            text.push_str(&section.text);
            Ok(())
        };
        extract(rtf.as_bytes(), &mut Output::new(10_000, &mut write)).expect("it is text");
        text
    }

    #[test]
    fn words_are_read_and_styles_are_not() {
        for (rtf, text) in [
            (
                r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\*\generator Word;}\f0 Gr\'fc\'dfe\par {\b fett}\tab x}",
                "Grüße\nfett\tx",
            ),
            (r"{\rtf1\uc1 caf\u233? \u8364\'80 5}", "café € 5"),
            (r"{\rtf1 \u-10179?\u-8704? ok}", "😀 ok"),
            (r"{\rtf1\ansicpg1251 \'cf\'f0\'e8\'e2\'e5\'f2}", "Привет"),
            (
                r"{\rtf1\ansicpg1252{\fonttbl{\f0 Arial;}{\f1\fcharset204 Arial;}}\'e9 {\f1 \'cf\'f0} \'e9}",
                "é Пр é",
            ),
            (r"{\rtf1\ansicpg932 \'8c\'5f\'96\'f1}", "契約"),
            (
                r"{\rtf1 a\{b\}\\c {\pict 0102}{\field{\*\fldinst LINK}{\fldrslt here}}}",
                "a{b}\\c here",
            ),
            (r"{\rtf1 cut {\b off", "cut off"),
            (r"{\rtf1 \bin3 {{{end}", "end"),
        ] {
            assert_eq!(text_of(rtf), text, "{rtf}");
        }
    }
}
