//! Plain text: detects the encoding and decodes.

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
    // In Western text as UTF-16, nearly every code unit has a zero byte at the same position.
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let pairs = sample.len() / 2;
    let zeros = |side: usize| {
        sample
            .iter()
            .skip(side)
            .step_by(2)
            .filter(|&&b| b == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    if odd * 2 > pairs && even * 20 < pairs {
        Some(UTF_16LE)
    } else if even * 2 > pairs && odd * 20 < pairs {
        Some(UTF_16BE)
    } else {
        None
    }
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
        assert_eq!(decode(b" \n\t "), Err(ExtractError::Empty));
    }
}
