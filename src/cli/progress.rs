//! A bar that shows how far a long command is, if a person is looking.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::transfer::Stage;

/// The bar. On anything but a terminal it is not to be seen.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for an import or an export.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, stage: Stage, done: u64, total: Option<u64>) {
        let shown = match (stage, total) {
            (Stage::Objects, Some(_)) => "{bar:40} {bytes} of {total_bytes}, {eta} left",
            (Stage::Objects, None) => "{spinner} {human_pos} so far, {elapsed}",
            (Stage::Contents, _) => "{spinner} contents of {human_pos} files, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(shown) {
            self.0.set_style(style);
        }
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
        self.0.set_position(done);
    }

    /// Takes the bar away.
    pub(super) fn end(self) {
        self.0.finish_and_clear();
    }
}
