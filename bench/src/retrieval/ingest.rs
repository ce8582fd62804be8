//! Indexing speed, from a batch's creation to its completion.

use super::calls::File;
use super::pdf::pdf;
use super::words::Words;
use crate::BenchError;
use crate::api::Api;
use crate::load::Bound;
use crate::load::repeat;
use crate::steps::Figures;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Concurrent uploads.
const UPLOADS: usize = 8;

/// Size of a text file.
const TEXT_BYTES: usize = 4_000;

/// Pages of a PDF file, and lines on each.
const PAGES: u64 = 10;
const LINES: usize = 50;

/// The result of indexing one batch.
pub(super) struct Indexed {
    pub(super) store: String,
    files: usize,
    bytes: usize,
    elapsed: Duration,
}

impl Indexed {
    /// Adds rates to the figures.
    pub(super) fn put(&self, name: &str, figures: &mut Figures) {
        let seconds = self.elapsed.as_secs_f64();
        figures.put(format!("{name}.files"), self.files as f64 / seconds);
        figures.put(format!("{name}.mb"), self.bytes as f64 / 1e6 / seconds);
    }
}

/// Uploads files, and times their indexing in a new store.
pub(super) async fn index(api: &Api, files: Vec<File>) -> Result<Indexed, BenchError> {
    let count = files.len();
    let bytes = files.iter().map(|file| file.contents.len()).sum();
    let (files, uploader) = (Arc::new(files), api.clone());
    let upload = move |number: usize| {
        let (files, api) = (files.clone(), uploader.clone());
        async move { api.upload(&files[number]).await }
    };
    let uploaded = repeat(UPLOADS, Bound::Times(count), upload).await?;
    let store = api.create_store().await?;
    let start = Instant::now();
    let batch = api.create_batch(&store, &uploaded.samples).await?;
    api.wait_for_batch(&store, &batch).await?;
    Ok(Indexed {
        store,
        files: count,
        bytes,
        elapsed: start.elapsed(),
    })
}

/// Text files, different for every `kind`.
pub(super) fn texts(words: &Words, kind: u64, count: u64) -> Vec<File> {
    let numbers = (0..count).map(|n| kind * 1_000_000 + n);
    let files = numbers.map(|number| File {
        name: format!("report-{number}.txt"),
        contents: words.text(number, TEXT_BYTES).into(),
    });
    files.collect()
}

/// PDF files of ten pages each.
pub(super) fn pdfs(words: &Words, kind: u64, count: u64) -> Vec<File> {
    let numbers = (0..count).map(|n| kind * 1_000_000 + n);
    let files = numbers.map(|number| {
        let pages: Vec<Vec<String>> = (0..PAGES)
            .map(|page| {
                let text = words.text(number * PAGES + page, LINES * 100);
                let all: Vec<&str> = text.split_whitespace().collect();
                let lines = all.chunks(12).take(LINES);
                lines.map(|words| words.join(" ")).collect()
            })
            .collect();
        File {
            name: format!("report-{number}.pdf"),
            contents: pdf(&pages).into(),
        }
    });
    files.collect()
}
