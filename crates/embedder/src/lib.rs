//! Sentence embeddings on this machine's processor: no key, no network, no GPU.
//!
//! Computes what the sentence-transformers model all-MiniLM-L6-v2 does (tokens, six transformer
//! layers, the mean over tokens, unit length), from the three files that it is published as:
//! `model.safetensors`, `tokenizer.json` and `config.json`.
//!
//! Blocking and busy for its whole time: about 0.1 s for 256 tokens. An async caller puts it on a
//! blocking thread.

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

/// The model whose vectors these are. Vectors of different models cannot be compared, so this is
/// stored beside them.
pub const MODEL: &str = "all-minilm-l6-v2";

/// The longest input that the model was trained on, in tokens, its two marks included. Longer
/// texts are embedded in windows of at most this.
pub const WINDOW_TOKENS: usize = 256;

/// Tokens that go through the layers together. Enough that the matrices are multiplied at full
/// speed even for many short texts; bounds the memory of a call to about 10 MB a thread.
const BATCH_TOKENS: usize = 512;

/// Why a model could not be opened. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file of the model is missing or cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there, but is not of the model that this crate computes.
    #[error("{} does not fit: {reason}", .path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A loaded model (about 95 MB). Shared between threads by reference; calls do not disturb each
/// other.
pub struct Embedder {
    tokenizer: Tokenizer,
    bert: Bert,
    threads: NonZeroUsize,
}

impl Embedder {
    /// Loads the model in `folder`: `model.safetensors`, `tokenizer.json` and `config.json`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or of a model of another kind.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let tokenizer = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::new(json(&tokenizer)?).map_err(|it| unfit(&tokenizer, it))?;
        let config = folder.join("config.json");
        let network: bert::Config = json(&config)?;
        if !network.fits() {
            return Err(unfit(&config, "it describes another network"));
        }
        let path = folder.join("model.safetensors");
        let mut weights = Weights::open(&path)?;
        let bert = Bert::load(network, &mut weights)?;
        if tokenizer.vocabulary_size() > bert.vocabulary_size() {
            return Err(unfit(&path, "it has fewer tokens than tokenizer.json"));
        }
        if bert.longest_input() < WINDOW_TOKENS {
            return Err(unfit(&path, "it has too few positions"));
        }
        Ok(Self {
            tokenizer,
            bert,
            threads: NonZeroUsize::MIN,
        })
    }

    /// Lets each call to [`Self::embed`] use up to this many threads. One, unless set.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// The length of every vector: 384 for all-MiniLM-L6-v2.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.bert.width()
    }

    /// One vector of length 1 for each text, in order; for documents and queries alike.
    ///
    /// A text longer than the model reads is embedded in windows, and its vector is the mean over
    /// the tokens of all of them. The empty text has a vector too. The same text always gets the
    /// same vector, whatever it is embedded with and by however many threads.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Vec<Vec<f32>> {
        let texts: Vec<_> = texts
            .iter()
            .map(|text| self.tokenizer.encode(text.as_ref()))
            .collect();
        let windows: Vec<Window> = texts
            .iter()
            .enumerate()
            .flat_map(|(text, tokens)| cut(tokens.len()).map(move |range| (text, &tokens[range])))
            .map(|(text, tokens)| Window {
                text,
                tokens: self.tokenizer.mark(tokens),
            })
            .collect();

        let mut sums = vec![Array1::zeros(self.dimensions()); texts.len()];
        for (window, sum) in windows.iter().zip(self.sum_over_tokens(&windows)) {
            sums[window.text] += &sum;
        }
        sums.into_iter().map(to_unit_length).collect()
    }

    /// For each window the sum of what the model makes of its tokens.
    fn sum_over_tokens(&self, windows: &[Window]) -> Vec<Array1<f32>> {
        let batches = batches(windows);
        let share = batches.len().div_ceil(self.threads.get()).max(1);
        thread::scope(|scope| {
            let mut shares = batches.chunks(share);
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

/// A piece of a text that the model reads at once.
struct Window {
    text: usize,
    tokens: Vec<u32>,
}

/// Cuts a text of so many tokens into as few windows as the model allows, of nearly equal length:
/// a short last one would be read without its context.
fn cut(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let windows = tokens.div_ceil(WINDOW_TOKENS - 2).max(1);
    (0..windows).map(move |at| tokens * at / windows..tokens * (at + 1) / windows)
}

/// Groups neighbouring windows so that each group has at most [`BATCH_TOKENS`].
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
    serde_json::from_reader(BufReader::new(file)).map_err(|error| unfit(path, error))
}

fn unfit(path: &Path, reason: impl ToString) -> OpenError {
    OpenError::Unfit {
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
            let windows: Vec<_> = cut(tokens).collect();
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
