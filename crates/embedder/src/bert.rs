//! The BERT encoder, with the dimensions from the model's `config.json`.
//!
//! The tokens of all inputs of a batch are the rows of one matrix. All operations except attention
//! are per token, and attention is computed per input, so no padding is needed.

use std::num::NonZeroUsize;
use std::ops::Range;

use ndarray::Array1;
use ndarray::Array2;
use ndarray::ArrayView2;
use ndarray::Axis;
use ndarray::concatenate;
use ndarray::linalg::general_mat_mul;
use ndarray::s;
use serde::Deserialize;

use crate::OpenError;
use crate::activation::gelu;
use crate::activation::layer_norm;
use crate::activation::softmax;
use crate::weights::Weights;

#[derive(Deserialize)]
pub(crate) struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: NonZeroUsize,
    hidden_act: String,
    layer_norm_eps: f32,
}

impl Config {
    pub(crate) fn is_supported(&self) -> bool {
        let heads = self.num_attention_heads.get();
        self.hidden_act == "gelu" && self.hidden_size > 0 && self.hidden_size.is_multiple_of(heads)
    }
}

pub(crate) struct Bert {
    word_embeddings: Array2<f32>,
    /// Includes the embedding of the first segment, to which all tokens belong.
    position_embeddings: Array2<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    attention: Attention,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

struct Attention {
    heads: usize,
    /// Projections to queries, keys and values, concatenated.
    input: Linear,
    output: Linear,
}

struct Linear {
    /// Dimensions: inputs × outputs.
    weight: Array2<f32>,
    bias: Array1<f32>,
}

struct Norm {
    scale: Array1<f32>,
    shift: Array1<f32>,
    epsilon: f32,
}

impl Bert {
    pub(crate) fn load(config: Config, weights: &mut Weights) -> Result<Self, OpenError> {
        let width = config.hidden_size;
        let mut position_embeddings =
            weights.rows("embeddings.position_embeddings.weight", width)?;
        position_embeddings += &weights
            .matrix("embeddings.token_type_embeddings.weight", 2, width)?
            .row(0);
        Ok(Self {
            word_embeddings: weights.rows("embeddings.word_embeddings.weight", width)?,
            position_embeddings,
            norm: Norm::load("embeddings.LayerNorm", &config, weights)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| Layer::load(&format!("encoder.layer.{index}"), &config, weights))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn hidden_size(&self) -> usize {
        self.word_embeddings.ncols()
    }

    pub(crate) fn vocabulary_size(&self) -> usize {
        self.word_embeddings.nrows()
    }

    pub(crate) fn max_positions(&self) -> usize {
        self.position_embeddings.nrows()
    }

    /// For each input, the sum of the last layer's output over its tokens.
    pub(crate) fn sum_over_tokens(&self, inputs: &[&[u32]]) -> Vec<Array1<f32>> {
        let lengths: Vec<_> = inputs.iter().map(|tokens| tokens.len()).collect();
        let mut state = Array2::zeros((lengths.iter().sum(), self.hidden_size()));
        let tokens_with_positions = inputs
            .iter()
            .flat_map(|tokens| tokens.iter().zip(self.position_embeddings.rows()));
        for (mut row, (&token, position)) in state.rows_mut().into_iter().zip(tokens_with_positions)
        {
            row.assign(&self.word_embeddings.row(token as usize));
            row += &position;
        }
        self.norm.apply(&mut state);
        for layer in &self.layers {
            state = layer.apply(state, &lengths);
        }
        spans(&lengths)
            .map(|span| state.slice(s![span, ..]).sum_axis(Axis(0)))
            .collect()
    }
}

impl Layer {
    fn load(name: &str, config: &Config, weights: &mut Weights) -> Result<Self, OpenError> {
        let width = config.hidden_size;
        let inner = config.intermediate_size;
        let attention_norm = format!("{name}.attention.output.LayerNorm");
        let up = format!("{name}.intermediate.dense");
        let down = format!("{name}.output.dense");
        Ok(Self {
            attention: Attention::load(&format!("{name}.attention"), config, weights)?,
            attention_norm: Norm::load(&attention_norm, config, weights)?,
            up: Linear::load(&[&up], width, inner, weights)?,
            down: Linear::load(&[&down], inner, width, weights)?,
            norm: Norm::load(&format!("{name}.output.LayerNorm"), config, weights)?,
        })
    }

    fn apply(&self, input: Array2<f32>, lengths: &[usize]) -> Array2<f32> {
        let mut attended = self.attention.apply(&input, lengths);
        attended += &input;
        self.attention_norm.apply(&mut attended);

        let mut inner = self.up.apply(&attended);
        for row in inner.rows_mut() {
            gelu(contiguous(row.into_slice()));
        }
        let mut output = self.down.apply(&inner);
        output += &attended;
        self.norm.apply(&mut output);
        output
    }
}

impl Attention {
    fn load(name: &str, config: &Config, weights: &mut Weights) -> Result<Self, OpenError> {
        let width = config.hidden_size;
        let heads = config.num_attention_heads.get();
        let parts = ["query", "key", "value"].map(|part| format!("{name}.self.{part}"));
        let mut input = Linear::load(&[&parts[0], &parts[1], &parts[2]], width, width, weights)?;
        // Scales the queries once instead of every attention score.
        let scale = ((width / heads) as f32).sqrt().recip();
        input
            .weight
            .slice_mut(s![.., ..width])
            .mapv_inplace(|it| it * scale);
        input
            .bias
            .slice_mut(s![..width])
            .mapv_inplace(|it| it * scale);
        Ok(Self {
            heads,
            input,
            output: Linear::load(&[&format!("{name}.output.dense")], width, width, weights)?,
        })
    }

    fn apply(&self, state: &Array2<f32>, lengths: &[usize]) -> Array2<f32> {
        let width = state.ncols();
        let projected = self.input.apply(state);
        let mut context = Array2::zeros(state.raw_dim());
        for span in spans(lengths) {
            let projected = projected.slice(s![span.clone(), ..]);
            let mut context = context.slice_mut(s![span, ..]);
            for head in 0..self.heads {
                let columns = |part: usize| {
                    let size = width / self.heads;
                    let start = part * width + head * size;
                    start..start + size
                };
                let part = |part| projected.slice(s![.., columns(part)]);
                let weights = attention_weights(&part(0), &part(1));
                let mut context = context.slice_mut(s![.., columns(0)]);
                general_mat_mul(1.0, &weights, &part(2), 0.0, &mut context);
            }
        }
        self.output.apply(&context)
    }
}

/// Attention weights of each query (row) over the keys; each row sums to 1.
fn attention_weights(queries: &ArrayView2<f32>, keys: &ArrayView2<f32>) -> Array2<f32> {
    let mut scores = queries.dot(&keys.t());
    for row in scores.rows_mut() {
        softmax(contiguous(row.into_slice()));
    }
    scores
}

impl Linear {
    /// Loads the named layers, each of `inputs` × `outputs`, and concatenates their outputs.
    fn load(
        names: &[&str],
        inputs: usize,
        outputs: usize,
        weights: &mut Weights,
    ) -> Result<Self, OpenError> {
        let mut matrices = Vec::new();
        let mut biases = Vec::new();
        for name in names {
            // The file stores matrices as outputs × inputs.
            matrices.push(weights.matrix(&format!("{name}.weight"), outputs, inputs)?);
            biases.push(weights.vector(&format!("{name}.bias"), outputs)?);
        }
        let matrices: Vec<_> = matrices.iter().map(|it| it.view()).collect();
        let biases: Vec<_> = biases.iter().map(|it| it.view()).collect();
        let weight =
            concatenate(Axis(0), &matrices).expect("all matrices have the same number of columns");
        Ok(Self {
            // Copied to row-major order, in which the multiplication reads it.
            weight: weight.t().as_standard_layout().into_owned(),
            bias: concatenate(Axis(0), &biases)
                .expect("one-dimensional arrays can be concatenated"),
        })
    }

    fn apply(&self, input: &Array2<f32>) -> Array2<f32> {
        let mut output = Array2::zeros((input.nrows(), self.bias.len()));
        output += &self.bias;
        general_mat_mul(1.0, input, &self.weight, 1.0, &mut output);
        output
    }
}

impl Norm {
    fn load(name: &str, config: &Config, weights: &mut Weights) -> Result<Self, OpenError> {
        Ok(Self {
            scale: weights.vector(&format!("{name}.weight"), config.hidden_size)?,
            shift: weights.vector(&format!("{name}.bias"), config.hidden_size)?,
            epsilon: config.layer_norm_eps,
        })
    }

    fn apply(&self, state: &mut Array2<f32>) {
        let scale = contiguous(self.scale.as_slice());
        let shift = contiguous(self.shift.as_slice());
        for row in state.rows_mut() {
            layer_norm(contiguous(row.into_slice()), scale, shift, self.epsilon);
        }
    }
}

fn spans(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |end, &length| {
        let start = *end;
        *end += length;
        Some(start..*end)
    })
}

fn contiguous<S>(row: Option<S>) -> S {
    row.expect("rows of a row-major matrix are contiguous")
}
