//! Extraction of PDF files.

use documents::ErrorCode;
use documents::ExtractError;
use documents::Loss;
use documents::child::Limits;

use crate::extract;
use crate::fixture;
use crate::generated;
use crate::pages;
use crate::read;
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
    assert_eq!(texts(&read), ["Refund policy החזר כספי thirty"]);
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

/// A page of a generated file, which has the content stream of this object.
fn page_with(contents: usize, entries: &str) -> String {
    format!(
        "<</Type/Page/Parent 2 0 R/MediaBox[{A4}]/Resources<</Font<</F 3 0 R/G 4 0 R>>>>\
         /Contents {contents} 0 R{entries}>>"
    )
}

/// A file of pages with text, pictures, glyphs without characters, and nothing, as many as given.
fn pdf_of_kinds(text: usize, picture: usize, unidentified: usize, blank: usize) -> Vec<u8> {
    let stream =
        |content: &str| format!("<</Length {}>>stream\n{content}\nendstream", content.len());
    let counts = [text, picture, unidentified, blank];
    let pages: usize = counts.iter().sum();
    let kids: String = (0..pages)
        .map(|page| format!("{} 0 R ", 11 + page))
        .collect();
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        format!("<</Type/Pages/Count {pages}/Kids[{kids}]>>"),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
        "<</Type/Font/Subtype/Type0/BaseFont/Own/Encoding/Identity-H/DescendantFonts[5 0 R]>>"
            .to_owned(),
        "<</Type/Font/Subtype/CIDFontType2/BaseFont/Own/DW 500/FontDescriptor 6 0 R\
         /CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>"
            .to_owned(),
        "<</Type/FontDescriptor/FontName/Own/Flags 4>>".to_owned(),
        stream("BT /F 12 Tf 72 700 Td (Some words) Tj ET"),
        stream("72 600 100 100 re f"),
        stream("BT /G 12 Tf 72 700 Td <00410042004300440045> Tj ET"),
        stream(""),
    ];
    for (kind, count) in counts.into_iter().enumerate() {
        objects.extend(std::iter::repeat_n(page_with(7 + kind, ""), count));
    }
    generated::pdf(&objects)
}

#[tokio::test]
async fn lost_pages_are_counted_by_cause() {
    let mixed = read("a.pdf", &pdf_of_kinds(2, 3, 1, 2))
        .await
        .expect("the file has text");
    assert_eq!(pages(&mixed.sections), [Some(1), Some(2)]);
    let loss = Loss {
        pages: 6,
        pictures: 3,
        unidentified: 1,
        damaged: 0,
    };
    assert_eq!(mixed.loss, Some(loss));
    let with_cover = read("a.pdf", &pdf_of_kinds(10, 1, 0, 5)).await;
    assert_eq!(with_cover.expect("the file has text").loss, None);
}

#[tokio::test]
async fn a_file_without_text_says_why() {
    for (file, reason) in [
        (pdf_of_kinds(0, 3, 0, 1), ExtractError::NoText),
        (pdf_of_kinds(0, 1, 2, 0), ExtractError::Unidentified),
        (pdf_of_kinds(0, 0, 0, 2), ExtractError::Empty),
    ] {
        assert_eq!(read("a.pdf", &file).await, Err(reason));
    }
    // Its pages are listed, but their contents are cut off: these are no scans.
    let mut cut = generated::pdf_page(A4, "", "BT /F 12 Tf 72 700 Td (Refund) Tj ET", &[]);
    let contents = cut.windows(7).position(|window| window == b"4 0 obj");
    cut.truncate(contents.expect("the file has contents"));
    let read = read("a.pdf", &[&cut[..], b"%%EOF"].concat()).await;
    let damaged = ExtractError::Damaged {
        expected: "a PDF".to_owned(),
    };
    assert_eq!(read, Err(damaged));
}

#[tokio::test]
async fn what_was_filled_into_a_form_is_read() {
    let objects = [
        "<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[6 0 R 7 0 R]>>>>",
        "<</Type/Pages/Count 1/Kids[5 0 R]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Length 38>>stream\nBT /F 12 Tf 72 700 Td (Your name) Tj ET\nendstream",
        &page_with(4, "/Annots[6 0 R 7 0 R]"),
        "<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Margarete)/Rect[200 700 300 720]>>",
        "<</Type/Annot/Subtype/Widget/FT/Btn/T(agreed)/V/Yes/Rect[200 600 300 620]>>",
    ];
    let file = generated::pdf(&objects.map(str::to_owned));
    let form = extract("form.pdf", &file).await.expect("the file has text");
    assert_eq!(texts(&form), ["Your name\nMargarete"]);
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
    assert_eq!(texts(&text.expect("it is no PDF").sections), ["words"]);
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
