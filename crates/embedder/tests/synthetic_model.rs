//! Properties that hold for any weights, tested with a small synthetic model.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use embedder::Embedder;
use embedder::OpenError;
use embedder::WINDOW_TOKENS;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

const WIDTH: usize = 8;
const WORDS: [&str; 7] = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"];

fn model_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let vocabulary: serde_json::Map<_, _> = (0..)
        .zip(WORDS)
        .map(|(token, word)| (word.to_owned(), Value::from(token)))
        .collect();
    write_json(
        folder.path(),
        "tokenizer.json",
        &json!({
            "normalizer": {
                "type": "BertNormalizer", "lowercase": true, "strip_accents": null,
                "clean_text": true, "handle_chinese_chars": true,
            },
            "model": {
                "vocab": vocabulary, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            },
        }),
    );
    write_json(
        folder.path(),
        "config.json",
        &json!({
            "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
            "num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        }),
    );
    fs::write(folder.path().join("model.safetensors"), weights()).expect("the folder is writable");
    folder
}

fn write_json(folder: &Path, name: &str, content: &Value) {
    fs::write(folder.join(name), content.to_string()).expect("the folder is writable");
}

fn weights() -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".into(),
            vec![WORDS.len(), WIDTH],
        ),
        (
            "embeddings.position_embeddings.weight".into(),
            vec![WINDOW_TOKENS, WIDTH],
        ),
        (
            "embeddings.token_type_embeddings.weight".into(),
            vec![2, WIDTH],
        ),
        ("embeddings.LayerNorm.weight".into(), vec![WIDTH]),
        ("embeddings.LayerNorm.bias".into(), vec![WIDTH]),
    ];
    for layer in 0..2 {
        for (name, outputs, inputs) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ] {
            let name = format!("encoder.layer.{layer}.{name}");
            shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
            shapes.push((format!("{name}.bias"), vec![outputs]));
        }
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            for part in ["weight", "bias"] {
                shapes.push((format!("encoder.layer.{layer}.{norm}.{part}"), vec![WIDTH]));
            }
        }
    }
    let mut header = serde_json::Map::new();
    let mut numbers: Vec<u8> = Vec::new();
    for (name, shape) in shapes {
        let start = numbers.len();
        for at in 0..shape.iter().product() {
            let number = ((start + at) as f32 * 1.7).sin();
            numbers.extend(number.to_le_bytes());
        }
        let place = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, numbers.len()]});
        header.insert(name, place);
    }
    let header = Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(numbers);
    file
}

fn open() -> Embedder {
    Embedder::open(model_folder().path()).expect("the synthetic model is complete")
}

fn texts() -> Vec<String> {
    (0..40)
        .map(|at| {
            (0..at * at)
                .map(|it| ["a ", "b ", "c ", "d "][(it * it + at) % 4])
                .collect()
        })
        .collect()
}

#[test]
fn a_text_gets_the_same_vector_in_any_company_and_by_any_number_of_threads() {
    let one = open();
    let three = open().with_threads(NonZeroUsize::new(3).expect("three is not zero"));
    let texts = texts();
    let together = one.embed(&texts);
    assert_eq!(together, three.embed(&texts));
    for (text, vector) in texts.iter().zip(together) {
        assert_eq!(one.embed(&[text]), [vector]);
    }
}

#[test]
fn every_text_gets_a_vector_of_length_one_even_the_empty() {
    let embedder = open();
    assert_eq!(embedder.dimensions(), WIDTH);
    assert!(embedder.embed::<&str>(&[]).is_empty());
    let vectors = embedder.embed(&texts());
    assert_eq!(vectors.len(), 40);
    for vector in &vectors {
        let length: f32 = vector.iter().map(|number| number * number).sum();
        assert_eq!(vector.len(), WIDTH);
        assert!((length - 1.0).abs() < 1e-5);
    }
    assert_eq!(embedder.embed(&[""]), embedder.embed(&[" \n"]));
    assert_ne!(vectors[1], vectors[2]);
}

#[test]
fn order_and_every_word_of_a_long_text_matter() {
    let embedder = open();
    let long = "a b c d ".repeat(1000);
    let vectors = embedder.embed(&[
        long.clone(),
        format!("{long} a"),
        format!("a {long}"),
        format!("{long}{long}"),
    ]);
    for (at, one) in vectors.iter().enumerate() {
        assert!(vectors[at + 1..].iter().all(|other| other != one));
    }
}

#[test]
fn an_incomplete_folder_names_the_missing_file() {
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let folder = model_folder();
        fs::remove_file(folder.path().join(name)).expect("the file exists");
        let error = Embedder::open(folder.path())
            .err()
            .expect("a file is missing");
        assert!(matches!(&error, OpenError::Read { path, .. } if path.ends_with(name)));
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn damaged_weights_are_refused() {
    let whole = weights();
    let header =
        u64::from_le_bytes(whole[..8].try_into().expect("the slice has eight bytes")) as usize;
    let mut not_a_number = whole.clone();
    not_a_number[8 + header..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut endless_header = whole.clone();
    endless_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let shape = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut file = whole.clone();
        let text = String::from_utf8_lossy(&file[8..8 + header]).replacen(from, to, 1);
        file[8..8 + header].copy_from_slice(text.as_bytes());
        file
    };
    let damaged = [
        Vec::new(),
        whole[..8].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        not_a_number,
        endless_header,
        vec![b'x'; whole.len()],
        shape("F32", "F16"),
        shape("[7,8]", "[9,8]"),
        shape("word_embeddings", "worm_embeddings"),
    ];
    let folder = model_folder();
    for (number, file) in damaged.into_iter().enumerate() {
        fs::write(folder.path().join("model.safetensors"), file).expect("the folder is writable");
        let error = Embedder::open(folder.path()).err();
        let error = error.unwrap_or_else(|| panic!("damage {number} is not detected"));
        assert!(
            error.to_string().contains("model.safetensors"),
            "{number}: {error}"
        );
    }
}

#[test]
fn a_model_of_another_kind_is_refused() {
    for (name, from, to) in [
        ("config.json", "\"gelu\"", "\"relu\""),
        ("config.json", "\"hidden_size\":8", "\"hidden_size\":6"),
        (
            "config.json",
            "\"num_hidden_layers\":2",
            "\"num_hidden_layers\":3",
        ),
        (
            "config.json",
            "\"num_attention_heads\":2",
            "\"num_attention_heads\":3",
        ),
        (
            "config.json",
            "\"num_attention_heads\":2",
            "\"num_attention_heads\":0",
        ),
        (
            "tokenizer.json",
            "\"lowercase\":true",
            "\"lowercase\":false",
        ),
        ("tokenizer.json", "\"[CLS]\":1", "\"start\":1"),
        ("tokenizer.json", "\"d\":6", "\"d\":7"),
    ] {
        let folder = model_folder();
        let path = folder.path().join(name);
        let content = fs::read_to_string(&path).expect("the file exists");
        assert!(content.contains(from), "{from} is not in {content}");
        fs::write(&path, content.replace(from, to)).expect("the folder is writable");
        let error = Embedder::open(folder.path()).err();
        assert!(
            matches!(error, Some(OpenError::Incompatible { .. })),
            "{to}: {error:?}"
        );
    }
}
