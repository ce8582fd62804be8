//! Limits on the output of a cell.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sandbox_protocol::TextSource;

use crate::settings::Settings;
use crate::settings::mib_to_bytes;

/// Maximum number of text messages; a regular kernel sends one every few milliseconds at most.
const TEXTS_MAX: u32 = 20_000;

/// What a cell may still output.
pub struct OutputLimits {
    text_left: usize,
    traceback_left: usize,
    texts_left: u32,
    images_left: u32,
    image_bytes: u64,
    text_kib: u64,
    traceback_kib: u64,
    /// Whether text was truncated.
    cut: bool,
    /// Whether an image was dropped.
    dropped: bool,
}

/// A decoded image within the limits.
pub struct Image {
    /// The MIME type, detected from the first bytes.
    pub mime: &'static str,
    pub bytes: Vec<u8>,
}

impl OutputLimits {
    /// The limits of one cell.
    pub fn new(settings: &Settings) -> Self {
        let bytes = |kib: u64| usize::try_from(kib.saturating_mul(1024)).unwrap_or(usize::MAX);
        Self {
            text_left: bytes(settings.output_kib),
            traceback_left: bytes(settings.traceback_kib),
            texts_left: TEXTS_MAX,
            images_left: settings.images,
            image_bytes: mib_to_bytes(settings.image_mib),
            text_kib: settings.output_kib,
            traceback_kib: settings.traceback_kib,
            cut: false,
            dropped: false,
        }
    }

    /// Whether output was dropped.
    pub fn truncated(&self) -> bool {
        self.cut || self.dropped
    }

    /// Returns the part of `text` within the limits. The first truncation adds a notice.
    pub fn limit_text(&mut self, source: TextSource, mut text: String) -> Option<String> {
        let (left, kib, what) = match source {
            TextSource::Traceback => (&mut self.traceback_left, self.traceback_kib, "Traceback"),
            TextSource::Stdout | TextSource::Stderr | TextSource::Result => {
                (&mut self.text_left, self.text_kib, "Output")
            }
        };
        if self.texts_left == 0 {
            *left = 0;
        }
        self.texts_left = self.texts_left.saturating_sub(1);
        let end = text.floor_char_boundary((*left).min(text.len()));
        if end == text.len() {
            *left -= end;
            return Some(text);
        }
        text.truncate(end);
        // No text of this kind may follow the notice.
        *left = 0;
        if !self.cut {
            text.push_str(&format!(
                "\n[{what} cut off: a cell may write {kib} KiB.]\n"
            ));
        }
        self.cut = true;
        (!text.is_empty()).then_some(text)
    }

    /// Decodes an image; `None` if it exceeds a limit or has an unknown format.
    pub fn limit_image(&mut self, base64: &str) -> Option<Image> {
        let fits = base64.len() as u64 / 4 * 3 <= self.image_bytes + 3;
        let bytes = fits.then(|| BASE64_STANDARD.decode(base64).ok()).flatten();
        let image = bytes
            .filter(|bytes| bytes.len() as u64 <= self.image_bytes && self.images_left > 0)
            .and_then(|bytes| {
                Some(Image {
                    mime: mime_of(&bytes)?,
                    bytes,
                })
            });
        match &image {
            Some(_) => self.images_left -= 1,
            None => self.dropped = true,
        }
        image
    }
}

/// The MIME type of the two image formats that clients can show.
fn mime_of(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn limits(arguments: &[&str]) -> OutputLimits {
        let cli = Cli::try_parse_from([&["test"], arguments].concat()).expect("valid settings");
        OutputLimits::new(&cli.settings)
    }

    #[test]
    fn text_is_cut_between_characters_and_says_so_once() {
        let mut output = limits(&["--output-kib", "1"]);
        let first = output
            .limit_text(TextSource::Stdout, "ä".repeat(511))
            .expect("it fits");
        assert_eq!(first.len(), 1022);
        assert!(!output.truncated());
        let second = output
            .limit_text(TextSource::Stdout, "x€".into())
            .expect("part of it fits");
        assert!(
            second.starts_with("x\n[Output cut off: a cell may write 1 KiB"),
            "{second}"
        );
        assert!(output.truncated());
        assert_eq!(output.limit_text(TextSource::Stderr, "more".into()), None);
        assert_eq!(
            output
                .limit_text(TextSource::Traceback, "why".into())
                .as_deref(),
            Some("why")
        );
    }

    #[test]
    fn only_pictures_are_pictures() {
        let mut output = limits(&["--images", "2", "--image-mib", "1"]);
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let png = encode(b"\x89PNG\r\n\x1a\nrest");
        assert_eq!(
            output.limit_image(&png).expect("the first of two").mime,
            "image/png"
        );
        assert!(!output.truncated());
        for wrong in [
            encode(b"<svg onload=alert(1)>"),
            "%%%".into(),
            encode(&vec![0xff; 2 << 20]),
        ] {
            assert!(output.limit_image(&wrong).is_none());
        }
        assert!(output.truncated());
        let jpeg = encode(b"\xff\xd8\xff\xe0rest");
        assert_eq!(
            output.limit_image(&jpeg).expect("the second of two").mime,
            "image/jpeg"
        );
        assert!(output.limit_image(&png).is_none());
    }
}
