//! Plain text: detects the encoding and decodes.

use std::collections::HashMap;

use chardetng::EncodingDetector;
use chardetng::Iso2022JpDetection;
use chardetng::Utf8Detection;
use encoding_rs::Encoding;
use encoding_rs::UTF_16BE;
use encoding_rs::UTF_16LE;

use crate::ExtractError;

/// Number of bytes that are examined to distinguish text from other data.
pub(super) const SAMPLE_BYTES: usize = 64 * 1024;

/// Decodes text by its byte order mark, or as UTF-8, or by the most probable encoding.
///
/// # Errors
/// [`ExtractError::Unsupported`] if the data is not text; [`ExtractError::Empty`] if it is only
/// white space.
pub(super) fn decode(bytes: &[u8]) -> Result<String, ExtractError> {
    if !looks_like_text(bytes) {
        return Err(ExtractError::Unsupported {
            found: "binary data of an unknown kind".to_owned(),
        });
    }
    let text = match encoding_of(bytes) {
        Some(encoding) => encoding.decode(bytes).0.into_owned(),
        None => String::from_utf8_lossy(bytes).into_owned(),
    };
    if text.trim().is_empty() {
        return Err(ExtractError::Empty);
    }
    Ok(text)
}

/// Whether at most 2 % of the characters of the sample are control characters or invalid.
pub(super) fn looks_like_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let wide = wide_encoding(sample);
    let (unusual, all) = match wide {
        Some(encoding) => {
            let text = encoding.decode(sample).0;
            let is_unusual = |c: &char| (c.is_control() && !c.is_whitespace()) || *c == '\u{fffd}';
            (
                text.chars().filter(is_unusual).count(),
                text.chars().count(),
            )
        }
        None => {
            // ESC occurs in ISO-2022 encodings and terminal logs, BS in manual pages.
            let is_unusual = |b: &&u8| matches!(**b, 0..=7 | 14..=26 | 28..=31 | 127);
            (sample.iter().filter(is_unusual).count(), sample.len())
        }
    };
    unusual * 50 <= all
}

/// The encoding; `None` for UTF-8, even with a few invalid bytes.
fn encoding_of(bytes: &[u8]) -> Option<&'static Encoding> {
    if let Some(encoding) = wide_encoding(bytes) {
        return Some(encoding);
    }
    let (mut invalid, mut valid) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    // Damaged UTF-8 has few invalid sequences; Latin-1 text has many.
    if invalid * 10 <= valid {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    Some(detector.guess(None, Utf8Detection::Deny))
}

/// The encoding of a byte order mark, UTF-8 included, or UTF-16 without one.
fn wide_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return Some(encoding);
    }
    utf16_without_mark(&bytes[..bytes.len().min(SAMPLE_BYTES)])
}

/// UTF-16 without a byte order mark, if one of its orders gives text of one script. Other encodings
/// of text have no zero bytes; UTF-16 has them in digits, spaces and line ends, of which a Chinese
/// or Japanese text may have none.
fn utf16_without_mark(sample: &[u8]) -> Option<&'static Encoding> {
    let has_zeros = sample.contains(&0);
    let is_latin = |b: &&u8| b.is_ascii_alphabetic() || **b == b' ';
    let latin = sample.iter().filter(is_latin).count();
    let is_narrow = latin * 10 > sample.len() * 7;
    if is_narrow || (!has_zeros && std::str::from_utf8(sample).is_ok()) {
        return None;
    }
    [UTF_16LE, UTF_16BE].into_iter().find(|encoding| {
        let text = encoding
            .decode_without_bom_handling(&sample[..sample.len() & !1])
            .0;
        is_of_one_script(&text, has_zeros)
    })
}

/// Whether nearly all letters belong to one script. Without zero bytes only Chinese and Japanese
/// count, and there must be characters that older encodings of them cannot imitate.
fn is_of_one_script(text: &str, has_zeros: bool) -> bool {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let (mut all, mut neutral, mut characteristic) = (0_usize, 0, 0);
    for character in text.chars() {
        all += 1;
        match character {
            '\t'
            | '\n'
            | '\r'
            | '\u{c}'
            | ' '..='~'
            | '\u{a0}'..='\u{ff}'
            | '\u{2010}'..='\u{203a}' => {
                neutral += 1;
            }
            '\u{3000}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ff00}'..='\u{ffee}' => {
                *counts.entry(HAN).or_default() += 1;
                characteristic += usize::from(matches!(
                    character,
                    '\u{3000}'..='\u{30ff}' | '\u{4e00}'..='\u{80ff}' | '\u{ff00}'..='\u{ffee}'
                ));
            }
            '\u{ac00}'..='\u{d7a3}' => *counts.entry(HANGUL).or_default() += 1,
            letter if letter.is_alphanumeric() || is_mark(letter) => {
                *counts.entry(u32::from(letter) >> 8).or_default() += 1;
            }
            _ => {}
        }
    }
    let main = counts.values().copied().max().unwrap_or(0);
    if has_zeros {
        (main + neutral) * 20 >= all * 19 && all > 0
    } else {
        let han = counts.get(&HAN).copied().unwrap_or(0);
        han * 20 >= all * 19 && characteristic * 2 > all
    }
}

/// Keys of scripts that have more than one block of 256 characters.
const HAN: u32 = u32::MAX;
const HANGUL: u32 = u32::MAX - 1;

/// Vowels and tones of Indic scripts, Hebrew, Arabic and Thai.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{6ed}' | '\u{900}'..='\u{eff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str =
        "Grüße aus Köln: die Übung fällt heute früh aus, weil es für alle zu kühl wäre.";

    #[test]
    fn texts_of_old_encodings_are_read() {
        let (latin1, ..) = encoding_rs::WINDOWS_1252.encode(WORDS);
        let wide: Vec<u8> = WORDS.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(WORDS.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
        let (japanese, ..) =
            encoding_rs::SHIFT_JIS.encode("これは日本語の文章です。今日は天気がいいですね。");
        assert_eq!(decode(&latin1).as_deref(), Ok(WORDS));
        assert_eq!(decode(&wide).as_deref(), Ok(WORDS));
        assert_eq!(decode(&marked).as_deref(), Ok(WORDS));
        assert_eq!(
            decode(format!("\u{feff}{WORDS}").as_bytes()).as_deref(),
            Ok(WORDS)
        );
        assert_eq!(
            decode(&japanese).as_deref(),
            Ok("これは日本語の文章です。今日は天気がいいですね。")
        );
    }

    #[test]
    fn utf_16_without_a_mark_is_read_in_every_script() {
        for text in [
            "合同编号十七在北京签署。甲方与乙方同意以下条款，并于当日生效。",
            "契約は東京で締結されました。期間は一年です。",
            "Договор подписан в Москве 5 мая.",
            "Το συμβόλαιο υπογράφηκε στην Αθήνα.",
            "החוזה נחתם בירושלים ביום ראשון.",
            "계약은 서울에서 체결되었다.",
            "สัญญา ลงนาม ที่กรุงเทพ",
            WORDS,
        ] {
            for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes: Vec<u8> = text.encode_utf16().flat_map(to_bytes).collect();
                assert_eq!(decode(&bytes).as_deref(), Ok(text));
            }
        }
    }

    #[test]
    fn older_encodings_are_not_taken_for_utf_16() {
        for (encoding, text) in [
            (
                encoding_rs::GBK,
                "合同编号十七在北京签署甲方与乙方同意以下条款并于当日生效",
            ),
            (
                encoding_rs::BIG5,
                "合約編號十七在北京簽署甲方與乙方同意以下條款並於當日生效",
            ),
            (
                encoding_rs::SHIFT_JIS,
                "契約は東京で締結されました。期間は一年です。",
            ),
            (
                encoding_rs::EUC_JP,
                "契約は東京で締結されました。期間は一年です。",
            ),
            (
                encoding_rs::EUC_KR,
                "계약은 서울에서 체결되었다. 기간은 일년이다.",
            ),
            (
                encoding_rs::WINDOWS_1251,
                "Договор подписан в Москве пятого мая.",
            ),
            (encoding_rs::WINDOWS_1252, WORDS),
        ] {
            let (bytes, ..) = encoding.encode(text);
            assert_eq!(decode(&bytes).as_deref(), Ok(text), "{}", encoding.name());
        }
    }

    #[test]
    fn a_few_broken_characters_do_not_change_the_encoding() {
        let mut bytes = WORDS.repeat(3).into_bytes();
        bytes.push(0xff);
        assert_eq!(decode(&bytes), Ok(WORDS.repeat(3) + "\u{fffd}"));
    }

    #[test]
    fn data_is_not_taken_for_text() {
        let data: Vec<u8> = (0..4096_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        assert!(matches!(
            decode(&data),
            Err(ExtractError::Unsupported { .. })
        ));
        assert!(matches!(
            decode(b"Eel\0grass."),
            Err(ExtractError::Unsupported { .. })
        ));
        assert_eq!(decode(b" \n\t "), Err(ExtractError::Empty));
    }
}
