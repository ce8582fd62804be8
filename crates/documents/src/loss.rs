//! Pages of a PDF whose text could not be extracted.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// A file is incomplete if more than one in this many pages is lost. Below that it is taken for
/// illustrated: a cover, a map.
const TOLERATED_PAGES: u32 = 10;

/// How many pages of a file have text that is lost. Blank pages do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// All pages that are not blank.
    pub pages: u32,
    /// Pages that show something, but have no text.
    pub pictures: u32,
    /// Pages with fonts that do not say which characters they show.
    pub unidentified: u32,
    /// Pages that could not be parsed.
    pub damaged: u32,
}

impl Loss {
    /// Whether so many pages were lost that `last_error` reports it.
    pub fn is_considerable(&self) -> bool {
        let lost = u64::from(self.pictures + self.unidentified + self.damaged);
        lost * u64::from(TOLERATED_PAGES) > u64::from(self.pages)
    }
}

/// A sentence for the person who uploaded the file.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            (self.pictures, "without text (pictures or scans)"),
            (
                self.unidentified,
                "with fonts that do not identify their characters",
            ),
            (self.damaged, "damaged"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        write!(
            f,
            "Only part of the text was found. Of {} pages, these were left out: {}. To include \
             them, recognise their text (OCR) and add the file again.",
            self.pages,
            parts.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_is_no_loss_and_ten_scans_are() {
        let of = |pictures| Loss {
            pages: 100,
            pictures,
            ..Loss::default()
        };
        assert!(!of(1).is_considerable());
        assert!(!of(10).is_considerable());
        assert!(of(11).is_considerable());
        assert!(!Loss::default().is_considerable());
    }

    #[test]
    fn the_message_counts_the_pages_by_cause() {
        let loss = Loss {
            pages: 9,
            pictures: 3,
            unidentified: 0,
            damaged: 1,
        };
        assert_eq!(
            loss.to_string(),
            "Only part of the text was found. Of 9 pages, these were left out: 3 without text \
             (pictures or scans), 1 damaged. To include them, recognise their text (OCR) and add \
             the file again."
        );
    }
}
