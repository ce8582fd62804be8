//! Broken and hostile documents fail with an error and affect no other file.

use std::io::{Cursor, Write as _};

use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::client::id;
use crate::retrieval_fixture::RetrievalFixture;

macro_rules! document {
    ($name:literal) => {
        include_bytes!(concat!("../../crates/documents/tests/fixtures/", $name)).to_vec()
    };
}

/// A small Word document that decompresses to 200 MB.
fn bomb() -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut file = |name: &str, content: &[u8], times: usize| {
        let options = SimpleFileOptions::default();
        archive
            .start_file(name, options)
            .expect("writing to memory cannot fail");
        for _ in 0..times {
            archive
                .write_all(content)
                .expect("writing to memory cannot fail");
        }
    };
    let types = br#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#;
    file("[Content_Types].xml", types, 1);
    file("word/document.xml", &[b'a'; 1_000_000], 200);
    archive
        .finish()
        .expect("writing to memory cannot fail")
        .into_inner()
}

/// A part of the extracted text, or the error code and a part of the message.
type Ending = Result<&'static str, (&'static str, &'static str)>;

/// Names and contents of files, and how their indexing ends.
fn documents() -> Vec<(&'static str, Vec<u8>, Ending)> {
    let nested = |depth: usize| format!("<html>{}kelp", "<div>".repeat(depth)).into_bytes();
    vec![
        (
            "first.md",
            b"# Kelp\n\nIt floats.".to_vec(),
            Ok("It floats."),
        ),
        (
            "locked.pdf",
            document!("encrypted.pdf"),
            Err(("invalid_file", "is encrypted")),
        ),
        (
            "locked.docx",
            document!("encrypted.docx"),
            Err(("invalid_file", "is encrypted")),
        ),
        (
            "noise.pdf",
            document!("garbage.pdf"),
            Err(("invalid_file", "damaged, or not a PDF")),
        ),
        (
            "broken.pdf",
            document!("broken.pdf"),
            Err(("invalid_file", "damaged, or not a PDF")),
        ),
        (
            "half.pdf",
            document!("truncated.pdf"),
            Ok("4711 containers"),
        ),
        (
            "half.docx",
            document!("truncated.docx"),
            Err(("invalid_file", "not a Word document")),
        ),
        (
            "scan.pdf",
            document!("scanned.pdf"),
            Err(("invalid_file", "No text was found")),
        ),
        (
            "picture.txt",
            document!("picture.png"),
            Err(("unsupported_file", "a PNG picture")),
        ),
        (
            "data.bin",
            b"\x1f\x00\x01\x02\xff".to_vec(),
            Err(("unsupported_file", "binary data")),
        ),
        ("empty.txt", Vec::new(), Err(("invalid_file", "is empty"))),
        (
            "blank.md",
            b" \n\n\t\n".to_vec(),
            Err(("invalid_file", "is empty")),
        ),
        ("bomb.docx", bomb(), Err(("invalid_file", "too large"))),
        ("nested.html", nested(1_000), Ok("kelp")),
        (
            "zeros.txt",
            b"Eel\0grass.".to_vec(),
            Err(("unsupported_file", "binary data")),
        ),
        (
            "last.json",
            br#"{"kelp": "\u0000 \ud800"}"#.to_vec(),
            Ok("kelp"),
        ),
    ]
}

#[tokio::test]
async fn each_fails_for_its_own_reason_and_no_other_file_with_it() {
    let fixture = RetrievalFixture::start().await;
    let table = documents();
    let mut ids = Vec::new();
    for (name, bytes, _) in &table {
        assert!(bytes.len() < 1_000_000, "{name} is small");
        ids.push(id(&fixture.client.upload(name, bytes).await));
    }
    let store = fixture.create_store(&ids).await;
    for (file, (name, _, expected)) in ids.iter().zip(&table) {
        let object = fixture.store_file(&store, file).await;
        let text = fixture.parsed_text(&store, file).await;
        match expected {
            Ok(phrase) => {
                assert_eq!(object["status"], "completed", "{name}: {object}");
                assert_eq!(object["last_error"], Value::Null);
                assert!(text.contains(phrase), "{name}: {text}");
            }
            Err((code, reason)) => {
                assert_eq!(object["status"], "failed", "{name}: {object} {text}");
                assert_eq!(object["last_error"]["code"], *code, "{name}: {object}");
                let message = object["last_error"]["message"].as_str();
                let message = message.expect("an error has a message");
                assert!(message.contains(reason), "{name}: {message}");
                assert_eq!(object["usage_bytes"], 0);
                assert_eq!(text, "");
            }
        }
    }
    let store_object = fixture.client.get(&format!("/vector_stores/{store}")).await;
    let good = table.iter().filter(|(_, _, expected)| expected.is_ok());
    assert_eq!(store_object["file_counts"]["completed"], good.count());
    assert_eq!(store_object["status"], "completed");
    assert_eq!(
        fixture.matching_files(&store, "what floats?").await[0],
        "first.md"
    );
    fixture.verify_chunks(true).await;

    // Every file can be removed again, and others are unaffected.
    for file in &ids {
        let path = format!("/vector_stores/{store}/files/{file}");
        fixture.delete(&path).await;
    }
    let (next, _) = fixture.create_store_with("next.txt", "A reef.").await;
    assert_eq!(fixture.matching_files(&next, "reef").await, ["next.txt"]);
}
