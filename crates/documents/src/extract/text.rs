//! Bytes of a text in any encoding → text.

use chardetng::EncodingDetector;
use chardetng::Iso2022JpDetection;
use chardetng::Utf8Detection;
use encoding_rs::Encoding;
use encoding_rs::UTF_16BE;
use encoding_rs::UTF_16LE;

use crate::ExtractError;

/// How much of a file is looked at to tell text from other data.
pub(super) const SAMPLE_BYTES: usize = 64 * 1024;

/// Decodes by byte order mark, else as UTF-8, else by what the bytes look most like.
///
/// Data that is no text in any encoding is [`ExtractError::Unsupported`]; nothing but white space
/// is [`ExtractError::Empty`].
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

/// Whether the beginning has hardly a character that no text has.
pub(super) fn looks_like_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let wide = wide_encoding(sample);
    let (controls, all) = match wide {
        Some(encoding) => {
            let text = encoding.decode(sample).0;
            let odd = |c: &char| (c.is_control() && !c.is_whitespace()) || *c == '\u{fffd}';
            (text.chars().filter(odd).count(), text.chars().count())
        }
        None => {
            // ESC belongs to ISO-2022 encodings and to terminal logs, BS to manual pages.
            let odd = |b: &&u8| matches!(**b, 0..=7 | 14..=26 | 28..=31 | 127);
            (sample.iter().filter(odd).count(), sample.len())
        }
    };
    controls * 50 <= all
}

/// The encoding, where it is not UTF-8 or nearly so.
fn encoding_of(bytes: &[u8]) -> Option<&'static Encoding> {
    if let Some(encoding) = wide_encoding(bytes) {
        return Some(encoding);
    }
    let (mut broken, mut good) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    // A UTF-8 text with a few broken characters is still one; a Latin-1 text is full of them.
    if broken * 10 <= good {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    Some(detector.guess(None, Utf8Detection::Deny))
}

/// UTF-16, with a mark or without; a mark of UTF-8 counts too, and is then taken off.
fn wide_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return Some(encoding);
    }
    // Western text in UTF-16 has a zero in nearly every pair, and always on the same side.
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
