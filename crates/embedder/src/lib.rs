//! Computes sentence embeddings on the CPU, without network access and without a GPU.
//!
//! Implements the sentence-transformers model all-MiniLM-L6-v2: a WordPiece tokenizer, a BERT
//! encoder of six layers, mean pooling, and normalization to unit length. The model is loaded from
//! its three published files, `model.safetensors`, `tokenizer.json` and `config.json`.
//!
//! Calls block and use the CPU for their whole duration, about 0.1 s for 256 tokens, so async code
//! must run them on a blocking thread.

mod activation;
mod bert;
mod weights;
mod wordpiece;

use std::fs::File;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::thread;

use ndarray::Array1;
use serde::de::DeserializeOwned;

use bert::Bert;
use weights::Weights;
use wordpiece::Tokenizer;

/// The name of the model. It is stored with every embedding, because embeddings of different models
/// cannot be compared.
pub const MODEL: &str = "all-minilm-l6-v2";

/// The maximum input length that the model was trained on, in tokens, with its two special tokens.
/// Longer texts are embedded in windows of at most this length.
pub const WINDOW_TOKENS: usize = 256;

/// Maximum number of tokens in a batch. Large enough for efficient matrix multiplication with short
/// texts; bounds the memory of a call to about 10 MB per thread.
const BATCH_TOKENS: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is incompatible: {reason}", .path.display())]
    Incompatible { path: PathBuf, reason: String },
}

/// A loaded model, about 95 MB. Threads can share it by reference.
pub struct Embedder {
    tokenizer: Tokenizer,
    bert: Bert,
    threads: NonZeroUsize,
}

impl Embedder {
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let tokenizer = folder.join("tokenizer.json");
        let tokenizer =
            Tokenizer::new(json(&tokenizer)?).map_err(|it| incompatible(&tokenizer, it))?;
        let config = folder.join("config.json");
        let network: bert::Config = json(&config)?;
        if !network.is_supported() {
            return Err(incompatible(&config, "it describes an unsupported network"));
        }
        let path = folder.join("model.safetensors");
        let mut weights = Weights::open(&path)?;
        let bert = Bert::load(network, &mut weights)?;
        if tokenizer.vocabulary_size() > bert.vocabulary_size() {
            return Err(incompatible(
                &path,
                "it has fewer tokens than tokenizer.json",
            ));
        }
        if bert.max_positions() < WINDOW_TOKENS {
            return Err(incompatible(&path, "it has too few positions"));
        }
        Ok(Self {
            tokenizer,
            bert,
            threads: NonZeroUsize::MIN,
        })
    }

    /// Sets the maximum number of threads of each call to [`Self::embed`]; the default is 1.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.bert.hidden_size()
    }

    /// Returns an embedding of unit length for each text, in order. Documents and queries are
    /// embedded in the same way.
    ///
    /// A text of more than [`WINDOW_TOKENS`] is embedded in windows; its embedding is the mean over
    /// all tokens of all windows. The empty text has an embedding, too. The embedding of a text
    /// does not depend on the other texts or on the number of threads.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Vec<Vec<f32>> {
        let texts: Vec<_> = texts
            .iter()
            .map(|text| self.tokenizer.encode(text.as_ref()))
            .collect();
        let windows: Vec<Window> = texts
            .iter()
            .enumerate()
            .flat_map(|(text, tokens)| {
                window_ranges(tokens.len()).map(move |range| (text, &tokens[range]))
            })
            .map(|(text, tokens)| Window {
                text,
                tokens: self.tokenizer.add_special_tokens(tokens),
            })
            .collect();

        let mut sums = vec![Array1::zeros(self.dimensions()); texts.len()];
        for (window, sum) in windows.iter().zip(self.sum_over_tokens(&windows)) {
            sums[window.text] += &sum;
        }
        sums.into_iter().map(to_unit_length).collect()
    }

    fn sum_over_tokens(&self, windows: &[Window]) -> Vec<Array1<f32>> {
        let batches = batches(windows);
        let batches_per_thread = batches.len().div_ceil(self.threads.get()).max(1);
        thread::scope(|scope| {
            let mut shares = batches.chunks(batches_per_thread);
            let own = shares.next().unwrap_or_default();
            let others: Vec<_> = shares
                .map(|share| scope.spawn(move || self.run(share)))
                .collect();
            let mut sums = self.run(own);
            for other in others {
                match other.join() {
                    Ok(more) => sums.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            sums
        })
    }

    fn run(&self, batches: &[&[Window]]) -> Vec<Array1<f32>> {
        batches
            .iter()
            .flat_map(|batch| {
                let tokens: Vec<_> = batch
                    .iter()
                    .map(|window| window.tokens.as_slice())
                    .collect();
                self.bert.sum_over_tokens(&tokens)
            })
            .collect()
    }
}

struct Window {
    text: usize,
    tokens: Vec<u32>,
}

/// Divides `tokens` tokens into the minimum number of windows. Their lengths are nearly equal,
/// because a short last window would lack context.
fn window_ranges(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let windows = tokens.div_ceil(WINDOW_TOKENS - 2).max(1);
    (0..windows).map(move |at| tokens * at / windows..tokens * (at + 1) / windows)
}

fn batches(windows: &[Window]) -> Vec<&[Window]> {
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (at, window) in windows.iter().enumerate() {
        if tokens + window.tokens.len() > BATCH_TOKENS {
            batches.push(&windows[start..at]);
            (start, tokens) = (at, 0);
        }
        tokens += window.tokens.len();
    }
    if start < windows.len() {
        batches.push(&windows[start..]);
    }
    batches
}

fn to_unit_length(sum: Array1<f32>) -> Vec<f32> {
    let length = sum.dot(&sum).sqrt();
    (sum / length.max(f32::MIN_POSITIVE)).to_vec()
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, OpenError> {
    let file = File::open(path).map_err(|source| OpenError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| incompatible(path, error))
}

fn incompatible(path: &Path, reason: impl ToString) -> OpenError {
    OpenError::Incompatible {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_text_once_in_nearly_equal_parts() {
        for tokens in [0, 1, 254, 255, 508, 509, 800, 25_000] {
            let windows: Vec<_> = window_ranges(tokens).collect();
            assert_eq!(windows.len(), tokens.div_ceil(254).max(1));
            assert_eq!(windows.first().map(|it| it.start), Some(0));
            assert_eq!(windows.last().map(|it| it.end), Some(tokens));
            assert!(windows.is_sorted_by(|one, next| one.end == next.start));
            let lengths = windows.iter().map(Range::len);
            assert!(lengths.clone().max() <= lengths.min().map(|it| it + 1));
            assert!(windows.iter().all(|it| it.len() + 2 <= WINDOW_TOKENS));
        }
    }

    #[test]
    fn batches_keep_the_order_and_the_limit() {
        let windows: Vec<_> = [3, 256, 256, 250, 10, 2, 256]
            .into_iter()
            .map(|length| Window {
                text: 0,
                tokens: vec![0; length],
            })
            .collect();
        let lengths: Vec<Vec<_>> = batches(&windows)
            .iter()
            .map(|batch| batch.iter().map(|window| window.tokens.len()).collect())
            .collect();
        assert_eq!(lengths, [vec![3, 256], vec![256, 250], vec![10, 2, 256]]);
        assert!(batches(&[]).is_empty());
    }
}
