//! Damaged and hostile documents: each results in an error with its cause or in the readable part
//! of its text, and does not affect the next document.

use documents::ErrorCode;
use documents::ExtractError;
use documents::child::Limits;

use crate::extract;
use crate::fixture;
use crate::generated;
use crate::pages;
use crate::reader;
use crate::sections;
use crate::texts;

fn damaged(expected: &str) -> ExtractError {
    ExtractError::Damaged {
        expected: expected.to_owned(),
    }
}

fn unsupported(found: &str) -> ExtractError {
    ExtractError::Unsupported {
        found: found.to_owned(),
    }
}

#[tokio::test]
async fn files_without_text_say_why() {
    for (name, reason) in [
        ("encrypted.pdf", ExtractError::Encrypted),
        ("encrypted.docx", ExtractError::Encrypted),
        ("scanned.pdf", ExtractError::NoText),
        ("broken.pdf", damaged("a PDF")),
        ("garbage.pdf", damaged("a PDF")),
        ("truncated.docx", damaged("a Word document")),
        ("picture.png", unsupported("a PNG picture")),
    ] {
        assert_eq!(extract(name, &fixture(name)).await, Err(reason), "{name}");
    }
    for (name, bytes, reason) in [
        ("empty.txt", "", ExtractError::Empty),
        ("empty.pdf", "", ExtractError::Empty),
        ("blank.md", " \n\n\t\n", ExtractError::Empty),
        (
            "a.gz",
            "\u{1f}\0\u{1}\u{2}",
            unsupported("binary data of an unknown kind"),
        ),
        ("a.xlsx", "\0\u{1}\u{2}\u{3}", damaged("an Excel workbook")),
        ("a.html", "<p></p>", ExtractError::Empty),
    ] {
        assert_eq!(extract(name, bytes.as_bytes()).await, Err(reason), "{name}");
    }
}

#[tokio::test]
async fn a_picture_under_the_name_of_a_document_is_told() {
    let error = extract("report.pdf", &fixture("picture.png")).await;
    assert_eq!(error, Err(unsupported("a PNG picture")));
    assert_eq!(
        error.map_err(|error| (error.code(), error.message())),
        Err((
            ErrorCode::UnsupportedFile,
            "The file type is not supported: the file is a PNG picture.".to_owned()
        ))
    );
}

#[tokio::test]
async fn a_truncated_pdf_gives_the_pages_that_are_left() {
    let left = sections("truncated.pdf").await;
    assert!(texts(&left)[0].contains("4711 containers"), "{left:?}");
}

#[tokio::test]
async fn ten_thousand_pages_are_read() {
    let all = extract("long.pdf", &generated::pdf_of(10_000))
        .await
        .expect("the file has text");
    assert_eq!(pages(&all), (1..=10_000).map(Some).collect::<Vec<_>>());
    assert_eq!(texts(&all)[9_999], "Leaf 10000");
}

#[tokio::test]
async fn a_zip_bomb_is_not_unpacked() {
    let bomb = generated::docx_of(&"a".repeat(1_000_000), 200);
    assert!(bomb.len() < 1_000_000);
    assert_eq!(
        extract("bomb.docx", &bomb).await,
        Err(ExtractError::TooLarge)
    );
}

#[tokio::test]
async fn what_unpacks_to_more_than_the_memory_holds_is_result() {
    let heavy = generated::docx_of("<w:p><w:r><w:t>a</w:t></w:r></w:p>", 500_000);
    assert!(heavy.len() < 1_000_000);
    let limits = Limits {
        memory_bytes: 256 << 20,
        ..Limits::default()
    };
    let result = reader().read("heavy.docx", &heavy[..], &limits).await;
    assert_eq!(result, Err(ExtractError::NeededTooMuchMemory));
    assert_eq!(sections("handbook.docx").await.len(), 4);
}

#[tokio::test]
async fn what_takes_too_long_is_result() {
    let nested = format!("<html>{}deep", "<div>".repeat(100_000));
    let limits = Limits {
        cpu_seconds: 1,
        ..Limits::default()
    };
    let result = reader()
        .read("nested.html", nested.as_bytes(), &limits)
        .await;
    assert_eq!(result, Err(ExtractError::TookTooLong));
    assert_eq!(sections("page.html").await.len(), 3);
}

#[tokio::test]
async fn deep_nesting_does_not_end_the_parser() {
    let cells = "<w:tbl><w:tr><w:tc>".repeat(20_000);
    let deep = extract("deep.docx", &generated::docx_of(&cells, 1)).await;
    assert!(deep.is_err(), "{deep:?}");
    let marks = format!("{} deep", ">".repeat(50_000));
    let deep = extract("deep.md", marks.as_bytes())
        .await
        .expect("the file has text");
    assert!(texts(&deep)[0].ends_with("deep"));
}

#[tokio::test]
async fn the_file_and_its_text_have_their_limits() {
    let text = "word ".repeat(1000);
    let small_file = Limits {
        file_bytes: 4999,
        ..Limits::default()
    };
    let small_text = Limits {
        text_bytes: 4999,
        ..Limits::default()
    };
    let read = async |limits| reader().read("a.txt", text.as_bytes(), limits).await;
    assert_eq!(read(&small_file).await, Err(ExtractError::TooLarge));
    assert_eq!(read(&small_text).await, Err(ExtractError::TooMuchText));
    let read = read(&Limits::default()).await.expect("the file has text");
    assert_eq!(texts(&read.sections), [text.trim_end()]);
}
