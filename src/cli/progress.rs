//! A progress bar, shown on terminals only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::transfer::Stage;

pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(super) fn show(&self, stage: Stage, done: u64, total: Option<u64>) {
        let template = match (stage, total) {
            (Stage::Objects, Some(_)) => "{bar:40} {bytes} of {total_bytes}, {eta} left",
            (Stage::Objects, None) => "{spinner} {human_pos} so far, {elapsed}",
            (Stage::Contents, _) => "{spinner} contents of {human_pos} files, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
        self.0.set_position(done);
    }

    pub(super) fn finish(self) {
        self.0.finish_and_clear();
    }
}
