//! Vectors distributed like embeddings of texts: in clusters, and in a low-dimensional subspace.

use super::random::Random;
use super::random::hash;
use super::random::mix;
use std::fmt::Write;
use std::sync::LazyLock;

/// Dimensions of a vector.
pub(crate) const DIMENSIONS: usize = 1_536;

/// Chunks per cluster: consecutive chunk numbers.
pub(super) const CHUNKS_PER_TOPIC: u64 = 100;

/// Clusters.
pub(super) const TOPICS: u64 = 400;

/// Dimensions of the common subspace; the others have noise only.
const DIRECTIONS: usize = 96;

/// Standard deviation of chunks around their cluster's centre; centres deviate by 1.
const SPREAD: f32 = 0.5;

/// Standard deviation of a query around its chunk.
const AWAY: f32 = 0.25;

/// Noise per dimension; in sum a fifth of a vector's length.
const NOISE: f32 = 0.056;

static BASIS: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
    (0..DIRECTIONS as u64)
        .map(|direction| {
            let mut random = Random::new(mix(direction));
            unit((0..DIMENSIONS).map(|_| random.bell()).collect())
        })
        .collect()
});

/// The cluster of a chunk, which is also the topic of its words.
pub(super) fn topic(chunk: u64) -> u64 {
    mix(chunk / CHUNKS_PER_TOPIC) % TOPICS
}

/// The vector of a chunk.
pub(super) fn of_chunk(chunk: u64) -> Vec<f32> {
    spread(place(chunk), mix(chunk ^ 0x0C))
}

/// The vector of the query for a chunk.
pub(super) fn of_query(chunk: u64) -> Vec<f32> {
    let mut random = Random::new(mix(chunk ^ 0x0A));
    let mut place = place(chunk);
    for coordinate in &mut place {
        *coordinate += AWAY * random.bell();
    }
    spread(place, random.next())
}

/// The vector of a text, for queries of [`super::words::Words::query`] that of the query.
pub(crate) fn of_text(text: &str) -> Vec<f32> {
    let last = text.rsplit(' ').next().unwrap_or_default();
    match last.strip_prefix('q').map(str::parse) {
        Some(Ok(chunk)) => of_query(chunk),
        _ => of_chunk(hash(text)),
    }
}

/// Writes a vector in a form that is both JSON and PostgreSQL's. Five digits exceed the precision of a
/// halfvec.
pub(crate) fn write(vector: &[f32], out: &mut String) {
    out.push('[');
    for (n, number) in vector.iter().enumerate() {
        let sign = if *number < 0.0 { "-" } else { "" };
        let comma = if n == 0 { "" } else { "," };
        let digits = (number.abs() * 1e5).round() as u32;
        let (whole, rest) = (digits / 100_000, digits % 100_000);
        write!(out, "{comma}{sign}{whole}.{rest:05}").expect("a String takes all");
    }
    out.push(']');
}

fn place(chunk: u64) -> Vec<f32> {
    let mut middle = Random::new(mix(topic(chunk) ^ 0x70_91C0));
    let mut own = Random::new(mix(chunk));
    (0..DIRECTIONS)
        .map(|_| middle.bell() + SPREAD * own.bell())
        .collect()
}

fn spread(place: Vec<f32>, seed: u64) -> Vec<f32> {
    let mut noise = Random::new(seed);
    let mut vector: Vec<f32> = (0..DIMENSIONS).map(|_| NOISE * noise.bell()).collect();
    for (coordinate, direction) in place.into_iter().zip(BASIS.iter()) {
        for (number, part) in vector.iter_mut().zip(direction) {
            *number += coordinate * part;
        }
    }
    unit(vector)
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|n| n * n).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|n| *n /= length);
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn a_query_is_near_its_chunk_then_its_topic_then_all_else() {
        let query = of_text("where is the wing q4711");
        let own = cosine(&query, &of_chunk(4711));
        let topic = cosine(&query, &of_chunk(4712));
        let other = cosine(&query, &of_chunk(4811));
        assert!(own > topic && topic > other, "{own} {topic} {other}");
    }

    #[test]
    fn vectors_are_written_as_numbers() {
        let mut text = String::new();
        write(&[0.5, -0.000_013, 1.0], &mut text);
        assert_eq!(text, "[0.50000,-0.00001,1.00000]");
    }
}
