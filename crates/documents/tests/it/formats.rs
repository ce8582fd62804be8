//! Extraction of each format.

use crate::extract;
use crate::fixture;
use crate::headings;
use crate::pages;
use crate::sections;
use crate::texts;

const GUESTS: &str = "Für Gäste: Größe, Länge und Übernachtung außen zählen. Später mehr.";

#[tokio::test]
async fn a_word_document_is_cut_at_its_headings() {
    let handbook = sections("handbook.docx").await;
    assert_eq!(
        headings(&handbook),
        [
            vec![],
            vec!["Mooring"],
            vec!["Mooring", "At night"],
            vec!["Fees"]
        ]
    );
    assert_eq!(
        texts(&handbook),
        [
            "Harbour handbook\n\nRead this first.",
            "# Mooring\n\nUse [two] lines * at least.\n\n- bow line\n- stern line",
            "## At night\n\nShow a white light.",
            "# Fees\n\n| Length | Fee |\n| --- | --- |\n| under 12 m | 18.50 |",
        ]
    );
}

#[tokio::test]
async fn a_presentation_gives_its_slides_with_their_notes() {
    let deck = sections("deck.pptx").await;
    assert_eq!(pages(&deck), [Some(1), Some(2)]);
    assert_eq!(headings(&deck), [["Welcome"], ["Traffic"]]);
    assert_eq!(
        texts(&deck),
        [
            "## Welcome\n\n- The harbour in numbers\n\nNotes:\n\nGreet the mayor",
            "## Traffic\n\n- Ferries carry most guests",
        ]
    );
}

#[tokio::test]
async fn a_workbook_gives_its_sheets_as_tables() {
    for name in ["berths.xlsx", "berths.xls"] {
        let berths = sections(name).await;
        assert_eq!(headings(&berths), [["Berths"], ["Prices"]], "{name}");
        let texts = texts(&berths);
        assert!(
            texts[0].starts_with("| Berth | Length |\n| --- | --- |\n| A1 | 12 |\n| A2 | 15.5 |"),
            "{name}: {texts:?}"
        );
        assert_eq!(
            texts[1],
            "| Season | Price |\n| --- | --- |\n| summer | 31 |\n| winter | 9 |"
        );
    }
}

#[tokio::test]
async fn a_web_page_gives_what_a_browser_shows() {
    let page = sections("page.html").await;
    assert_eq!(
        headings(&page),
        [vec![], vec!["Tides"], vec!["Tides", "Springs"]]
    );
    let whole = texts(&page).join("\n");
    for shown in ["High water at noon.", "- new moon", "Monday", "3.2 m"] {
        assert!(whole.contains(shown), "{shown:?} is not in {whole:?}");
    }
    for not_shown in ["hidden", "color"] {
        assert!(!whole.contains(not_shown), "{not_shown:?} is in {whole:?}");
    }
}

#[tokio::test]
async fn a_web_page_is_decoded_as_it_declares() {
    let page = "<meta charset=windows-1251><p>Привет</p>";
    let (bytes, ..) = encoding_rs::WINDOWS_1251.encode(page);
    let read = extract("page.html", &bytes)
        .await
        .expect("the file has text");
    assert_eq!(texts(&read), ["Привет"]);
}

#[tokio::test]
async fn markdown_is_cut_at_its_headings_and_left_as_it_is() {
    let notes = sections("notes.md").await;
    assert_eq!(
        headings(&notes),
        [
            vec![],
            vec!["Log"],
            vec!["Log", "Second day"],
            vec!["Log", "Second day", "Night"]
        ]
    );
    assert_eq!(
        texts(&notes)[1],
        "# Log\n\nFair wind.\n\n```sh\n# no heading\n```"
    );
    assert_eq!(
        texts(&notes)[2],
        "Second day\n----------\n\nRain. See `knots`."
    );
}

#[tokio::test]
async fn text_is_read_in_any_encoding() {
    for name in ["latin1.txt", "utf16.txt"] {
        assert_eq!(texts(&sections(name).await), [GUESTS], "{name}");
    }
}

#[tokio::test]
async fn code_and_tables_of_text_stay_as_they_are() {
    for (name, text) in [
        ("a.py", "def tide():\n    return 3"),
        ("a.csv", "day,height\nmonday,3.2"),
        ("a.tsv", "day\theight\nmonday\t3.2"),
        ("a.json", "{\"day\": \"monday\"}"),
        ("a.tex", "\\section{Tides} High."),
        ("a.php", "<html><?php echo 1; ?></html>"),
        ("Makefile", "all:\n\tcc tide.c"),
    ] {
        let read = extract(name, text.as_bytes())
            .await
            .expect("the file has text");
        assert_eq!(texts(&read), [text], "{name}");
    }
}

#[tokio::test]
async fn content_counts_more_than_the_name() {
    let word = extract("handbook.pdf", &fixture("handbook.docx")).await;
    assert_eq!(word, Ok(sections("handbook.docx").await));
    let slides = extract("deck", &fixture("deck.pptx")).await;
    assert_eq!(slides, Ok(sections("deck.pptx").await));
    let old = extract("berths.doc", &fixture("berths.xls")).await;
    assert_eq!(old, Ok(sections("berths.xls").await));
    let page = extract("report.pdf", &fixture("page.html")).await;
    assert_eq!(page, Ok(sections("page.html").await));
}
