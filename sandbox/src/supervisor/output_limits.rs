//! Holds what a cell shows within its limits.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sandbox_protocol::TextSource;

use crate::settings::Settings;
use crate::settings::mib;

/// Most pieces of text; they come at most every few milliseconds from a kernel that means well.
const TEXTS_MAX: u32 = 20_000;

/// How much a cell may still show.
pub struct Output {
    text_left: usize,
    traceback_left: usize,
    texts_left: u32,
    images_left: u32,
    image_bytes: u64,
    text_kib: u64,
    traceback_kib: u64,
    cut: bool,
    dropped: bool,
}

/// A picture that may be shown.
pub struct Image {
    /// By its first bytes.
    pub mime: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Output {
    /// All that one cell may show.
    pub fn new(settings: &Settings) -> Self {
        let bytes = |kib: u64| usize::try_from(kib.saturating_mul(1024)).unwrap_or(usize::MAX);
        Self {
            text_left: bytes(settings.output_kib),
            traceback_left: bytes(settings.traceback_kib),
            texts_left: TEXTS_MAX,
            images_left: settings.images,
            image_bytes: mib(settings.image_mib),
            text_kib: settings.output_kib,
            traceback_kib: settings.traceback_kib,
            cut: false,
            dropped: false,
        }
    }

    /// Whether something was dropped.
    pub fn truncated(&self) -> bool {
        self.cut || self.dropped
    }

    /// What of this text may be shown. Where it is the first to be cut, it ends in a notice.
    pub fn text(&mut self, source: TextSource, mut text: String) -> Option<String> {
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
        let room = text.floor_char_boundary((*left).min(text.len()));
        if room == text.len() {
            *left -= room;
            return Some(text);
        }
        text.truncate(room);
        // Nothing of that kind may follow the notice.
        *left = 0;
        if !self.cut {
            text.push_str(&format!(
                "\n[{what} cut off: a cell may write {kib} KiB.]\n"
            ));
        }
        self.cut = true;
        (!text.is_empty()).then_some(text)
    }

    /// The picture in this base64, if it is one and may be shown.
    pub fn image(&mut self, base64: &str) -> Option<Image> {
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

/// The two kinds of pictures that clients can show, by their first bytes.
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
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn output(line: &[&str]) -> Output {
        let line = Line::try_parse_from([&["x"], line].concat()).expect("known settings");
        Output::new(&line.settings)
    }

    #[test]
    fn text_is_cut_between_characters_and_says_so_once() {
        let mut output = output(&["--output-kib", "1"]);
        let first = output
            .text(TextSource::Stdout, "ä".repeat(511))
            .expect("it fits");
        assert_eq!(first.len(), 1022);
        assert!(!output.truncated());
        let second = output
            .text(TextSource::Stdout, "x€".into())
            .expect("part of it fits");
        assert!(
            second.starts_with("x\n[Output cut off: a cell may write 1 KiB"),
            "{second}"
        );
        assert!(output.truncated());
        assert_eq!(output.text(TextSource::Stderr, "more".into()), None);
        assert_eq!(
            output.text(TextSource::Traceback, "why".into()).as_deref(),
            Some("why")
        );
    }

    #[test]
    fn only_pictures_are_pictures() {
        let mut output = output(&["--images", "2", "--image-mib", "1"]);
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let png = encode(b"\x89PNG\r\n\x1a\nrest");
        assert_eq!(output.image(&png).expect("one of two").mime, "image/png");
        assert!(!output.truncated());
        for wrong in [
            encode(b"<svg onload=alert(1)>"),
            "%%%".into(),
            encode(&vec![0xff; 2 << 20]),
        ] {
            assert!(output.image(&wrong).is_none());
        }
        assert!(output.truncated());
        let jpeg = encode(b"\xff\xd8\xff\xe0rest");
        assert_eq!(output.image(&jpeg).expect("two of two").mime, "image/jpeg");
        assert!(output.image(&png).is_none());
    }
}
