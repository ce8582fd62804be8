//! Compares embeddings of the published weights with reference values. `scripts/embedding_model`
//! downloads the weights into `.venv`; `ASSISTD_EMBEDDING_MODEL` may name another folder. Without
//! weights, the tests report that and pass.

use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;

use embedder::Embedder;

static MODEL: LazyLock<Option<Embedder>> = LazyLock::new(|| {
    let folder = match std::env::var_os("ASSISTD_EMBEDDING_MODEL") {
        Some(named) => PathBuf::from(named),
        None => {
            let installed = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../.venv/models")
                .join(embedder::MODEL);
            if !installed.exists() {
                return None;
            }
            installed
        }
    };
    Some(Embedder::open(&folder).expect("the folder contains the model"))
});

fn model() -> Option<&'static Embedder> {
    let model = MODEL.as_ref();
    if model.is_none() {
        eprintln!("NOT TESTED: the model is not installed; run scripts/embedding_model");
    }
    model
}

#[derive(serde::Deserialize)]
struct Reference {
    text: String,
    vector: Vec<f32>,
}

fn cosine_similarity(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_equal_those_of_the_reference() {
    let Some(model) = model() else { return };
    let references: Vec<Reference> = serde_json::from_str(include_str!("reference/reference.json"))
        .expect("the file is valid JSON");
    let texts: Vec<_> = references.iter().map(|it| &it.text).collect();
    let vectors = model.embed(&texts);
    assert_eq!(vectors.len(), references.len());
    for (vector, reference) in vectors.iter().zip(&references) {
        assert_eq!(vector.len(), model.dimensions());
        assert!((cosine_similarity(vector, vector) - 1.0).abs() < 1e-5);
        for (number, expected) in vector.iter().zip(&reference.vector) {
            let text: String = reference.text.chars().take(60).collect();
            assert!(
                (number - expected).abs() < 1e-5,
                "{number} is not {expected}: {text}"
            );
        }
    }
}

/// Expected values are from the documentation of Sentence Transformers.
#[test]
fn sentences_are_as_similar_as_the_model_is_known_to_find_them() {
    let Some(model) = model() else { return };
    let vectors = model.embed(&[
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    ]);
    for (one, other, expected) in [(0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411)] {
        let similarity = cosine_similarity(&vectors[one], &vectors[other]);
        assert!(
            (similarity - expected).abs() < 1e-4,
            "{similarity} is not {expected}"
        );
    }
}

#[test]
fn a_question_is_closest_to_the_text_that_answers_it() {
    let Some(model) = model() else { return };
    let documents = model.embed(&[
        "Refunds are paid within thirty days to the card that was used for the purchase.",
        "The turbine is serviced every 4,000 hours, and its blades are replaced after 20,000.",
        "Employees may carry over up to five days of annual leave into the next year.",
    ]);
    let questions = model.embed(&[
        "how long until I get my money back?",
        "when do the blades have to be changed",
        "Can I keep unused holidays?",
    ]);
    for (at, question) in questions.iter().enumerate() {
        let similarities = documents.iter().map(|it| cosine_similarity(it, question));
        let best = similarities
            .enumerate()
            .max_by(|one, other| one.1.total_cmp(&other.1));
        assert_eq!(best.map(|(document, _)| document), Some(at));
    }
}

#[test]
fn a_text_of_100_kilobytes_is_read_to_its_end() {
    let Some(model) = model() else { return };
    let aircraft = "international aerodynamics ";
    let cooking = "vegetarian restaurants recommendations ";
    let both = aircraft.repeat(1900) + &cooking.repeat(1300);
    assert!(both.len() > 100_000);
    let vectors = model.embed(&[aircraft.repeat(100), cooking.repeat(70), both]);
    let apart = cosine_similarity(&vectors[0], &vectors[1]);
    for part in &vectors[..2] {
        let similarity = cosine_similarity(part, &vectors[2]);
        assert!(
            similarity > 0.6 && similarity > apart + 0.2,
            "{similarity}, {apart}"
        );
    }
}
