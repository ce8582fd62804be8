//! Extraction of PDF files.

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

/// The media box of a sheet of A4.
const A4: &str = "0 0 595 842";

/// The text of a page with this content stream.
async fn text_of(content: &str) -> String {
    let page = extract("a.pdf", &generated::pdf_page(A4, "", content, &[])).await;
    texts(&page.expect("the file has text"))[0].to_owned()
}

#[tokio::test]
async fn a_pdf_gives_its_pages() {
    for name in ["report.pdf", "restricted.pdf"] {
        let report = sections(name).await;
        assert_eq!(pages(&report), [Some(1), Some(2), Some(3)], "{name}");
        let texts = texts(&report);
        assert!(
            texts[0].contains("The harbour handled 4711 containers."),
            "{name}: {texts:?}"
        );
        assert!(texts[1].contains("Forty-two people worked at the quay."));
        assert!(texts[2].contains("A second basin opens in 2031."));
    }
}

#[tokio::test]
async fn a_stream_filter_may_be_named_elsewhere_in_the_file() {
    let content: String = b"BT /F 12 Tf 72 700 Td (Refund within thirty days) Tj ET"
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let page = generated::pdf_page(A4, "/Filter 6 0 R", &content, &["/ASCIIHexDecode"]);
    let read = extract("invoice.pdf", &page)
        .await
        .expect("the file has text");
    assert_eq!(texts(&read), ["Refund within thirty days"]);
}

#[tokio::test]
async fn words_of_two_directions_in_a_line_are_read_each_in_its_own() {
    let read = sections("bilingual.pdf").await;
    let text = texts(&read)[0];
    for word in ["Refund", "policy", "החזר", "כספי", "thirty"] {
        assert!(text.split(' ').any(|read| read == word), "{word}: {text}");
    }
}

#[tokio::test]
async fn a_word_that_a_line_end_divides_is_whole() {
    let text = text_of(
        "BT /F 12 Tf 72 700 Td (An extraor-) Tj 0 -14 Td (dinary Anglo-) Tj 0 -14 Td (Saxon) Tj ET",
    )
    .await;
    assert_eq!(text, "An extraordinary Anglo-Saxon");
}

#[tokio::test]
async fn columns_and_tables_are_read_as_they_were_written() {
    let columns = text_of(
        "BT /F 12 Tf 72 700 Td (left one) Tj 0 -14 Td (left two) Tj ET \
         BT /F 12 Tf 320 700 Td (right one) Tj 0 -14 Td (right two) Tj ET",
    )
    .await;
    assert_eq!(columns, "left one\nleft two\nright one\nright two");
    let table = text_of(
        "BT /F 12 Tf 72 700 Td (Season) Tj 150 0 Td (Price) Tj ET \
         BT /F 12 Tf 72 680 Td (summer) Tj 150 0 Td (31) Tj ET",
    )
    .await;
    assert_eq!(table, "Season Price\nsummer 31");
}

#[tokio::test]
async fn text_is_read_wherever_the_coordinates_of_its_page_begin() {
    let content = "BT /F 12 Tf 5072 5700 Td (Far away) Tj ET";
    let page = generated::pdf_page("5000 5000 5595 5842", "", content, &[]);
    let read = extract("a.pdf", &page).await.expect("the file has text");
    assert_eq!(texts(&read), ["Far away"]);
}

#[tokio::test]
async fn without_pdfium_only_pdf_files_are_refused() {
    let mut reader = reader();
    reader.pdfium = None;
    let read = async |name: &str, file: &[u8]| reader.read(name, file, &Limits::default()).await;
    let refused = read("report.pdf", &fixture("report.pdf")).await;
    let error = refused.expect_err("there is no parser");
    assert_eq!(error, ExtractError::NoPdfParser);
    assert_eq!(error.code(), ErrorCode::UnsupportedFile);
    assert!(error.message().contains("`make setup`"), "{error}");
    let text = read("a.txt", b"words").await;
    assert_eq!(texts(&text.expect("it is no PDF")), ["words"]);
}

#[tokio::test]
async fn a_pdfium_that_cannot_be_loaded_is_the_servers_fault() {
    let mut reader = reader();
    assert_eq!(reader.check_pdf().await, Ok(()));
    reader.pdfium = Some("/nowhere/libpdfium.so".into());
    let error = reader
        .check_pdf()
        .await
        .expect_err("the library does not exist");
    assert_eq!(error.code(), ErrorCode::ServerError);
    assert!(
        error.to_string().contains("/nowhere/libpdfium.so"),
        "{error}"
    );
}
