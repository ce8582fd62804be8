//! Extraction of each format.

use documents::ExtractError;

use crate::extract;
use crate::fixture;
use crate::generated;
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
async fn times_durations_and_padded_numbers_are_read_as_they_are_shown() {
    let rota = sections("rota.xlsx").await;
    assert_eq!(headings(&rota), [["Rota"]]);
    assert_eq!(
        texts(&rota),
        [
            "| begins | 14:30 |\n| --- | --- |\n| worked | 26:05 |\n| day | 2031-03-09 |\n\
          | postcode | 01067 |\n| fee | 1,250.50 |\n| | | far away |\n\nB2: with breaks"
        ]
    );
}

#[tokio::test]
async fn the_margins_of_even_pages_are_read_too() {
    let whole = texts(&sections("margins.docx").await).join("\n");
    for part in ["Body.", "Odd header", "Even header", "Even footer"] {
        assert!(whole.contains(part), "{part:?} is not in {whole:?}");
    }
}

#[tokio::test]
async fn pictures_inside_of_pages_are_no_text() {
    let picture = "QUJD".repeat(60_000);
    for (name, text) in [
        (
            "a.html",
            format!("<p>Before <img alt=Chart src='data:image/png;base64,{picture}'></p><p>After"),
        ),
        (
            "a.md",
            format!("Before ![Chart](data:image/png;base64,{picture})\n\nAfter"),
        ),
    ] {
        let read = extract(name, text.as_bytes())
            .await
            .expect("the file has text");
        let text = texts(&read)[0];
        assert!(text.len() < 100, "{name}: {} bytes", text.len());
        for word in ["Before", "Chart", "After"] {
            assert!(text.contains(word), "{name}: {text}");
        }
    }
}

/// An OpenDocument file with this body.
fn opendocument(body: &str) -> Vec<u8> {
    generated::zip_of(&[
        ("META-INF/manifest.xml", "<manifest:manifest/>"),
        (
            "content.xml",
            &format!(
                "<office:document-content><office:body>{body}</office:body></office:document-content>"
            ),
        ),
    ])
}

#[tokio::test]
async fn an_opendocument_text_is_cut_at_its_headings() {
    let file = opendocument(
        r#"<office:text><text:tracked-changes><text:p>Deleted.</text:p></text:tracked-changes>
           <text:p>Read this<text:s text:c="2"/>first &amp; last.</text:p>
           <text:h text:outline-level="1">Mooring</text:h>
           <text:list><text:list-item><text:p>bow line</text:p>
             <text:list><text:list-item><text:p>spring</text:p></text:list-item></text:list>
           </text:list-item></text:list>
           <text:h text:outline-level="2">Fees</text:h>
           <table:table table:name="Table1">
             <table:table-row><table:table-cell><text:p>Length</text:p></table:table-cell>
               <table:table-cell><text:p>Fee</text:p></table:table-cell></table:table-row>
             <table:table-row><table:table-cell><text:p>under 12 m</text:p></table:table-cell>
               <table:table-cell><text:p>18.50</text:p></table:table-cell></table:table-row>
           </table:table></office:text>"#,
    );
    let read = extract("a.odt", &file).await.expect("the file has text");
    assert_eq!(
        headings(&read),
        [vec![], vec!["Mooring"], vec!["Mooring", "Fees"]]
    );
    assert_eq!(
        texts(&read),
        [
            "Read this  first & last.",
            "# Mooring\n\n- bow line\n  - spring",
            "## Fees\n\n| Length | Fee |\n| --- | --- |\n| under 12 m | 18.50 |",
        ]
    );
}

#[tokio::test]
async fn opendocument_sheets_and_slides_are_read() {
    let sheet = opendocument(
        r#"<office:spreadsheet><table:table table:name="Berths">
           <table:table-row><table:table-cell><text:p>A1</text:p></table:table-cell>
             <table:table-cell table:number-columns-repeated="700"/>
             <table:table-cell table:number-columns-repeated="2"><text:p>14:30</text:p></table:table-cell>
           </table:table-row>
           <table:table-row table:number-rows-repeated="1000000">
             <table:table-cell table:number-columns-repeated="1024"/></table:table-row>
           </table:table><table:table table:name="Prices"><table:table-row>
             <table:table-cell><text:p>31</text:p></table:table-cell></table:table-row>
           </table:table></office:spreadsheet>"#,
    );
    let read = extract("a.ods", &sheet).await.expect("the file has text");
    assert_eq!(headings(&read), [["Berths"], ["Prices"]]);
    assert_eq!(
        texts(&read),
        [
            "| A1 | 14:30 | 14:30 |\n| --- | --- | --- |",
            "| 31 |\n| --- |"
        ]
    );
    let slides = opendocument(
        "<office:presentation><draw:page><draw:frame><draw:text-box><text:p>Welcome</text:p>\
         </draw:text-box></draw:frame><presentation:notes><draw:frame><draw:text-box>\
         <text:p>Greet the mayor</text:p></draw:text-box></draw:frame></presentation:notes></draw:page>\
         <draw:page><draw:frame><draw:text-box><text:p>Traffic</text:p></draw:text-box></draw:frame>\
         </draw:page></office:presentation>",
    );
    let read = extract("a.odp", &slides).await.expect("the file has text");
    assert_eq!(pages(&read), [Some(1), Some(2)]);
    assert_eq!(
        texts(&read),
        ["Welcome\n\nNotes:\n\nGreet the mayor", "Traffic"]
    );
}

/// A book of two chapters, which its package lists in the other order.
fn book(encryption: &str) -> Vec<u8> {
    generated::zip_of(&[
        ("mimetype", "application/epub+zip"),
        ("META-INF/encryption.xml", encryption),
        (
            "META-INF/container.xml",
            r#"<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>"#,
        ),
        (
            "OEBPS/book.opf",
            r#"<package><manifest><item id="b" href="text/b.xhtml"/>
               <item id="a" href="text/a%20first.xhtml"/><item id="n" href="nav.xhtml"/></manifest>
               <spine><itemref idref="a"/><itemref idref="b"/></spine></package>"#,
        ),
        (
            "OEBPS/nav.xhtml",
            "<html><body><p>Contents</p></body></html>",
        ),
        (
            "OEBPS/text/a first.xhtml",
            "<html><body><h1>Tides</h1><p>High water.</p></body></html>",
        ),
        (
            "OEBPS/text/b.xhtml",
            "<html><body><h1>Winds</h1><p>Fair wind.</p></body></html>",
        ),
    ])
}

#[tokio::test]
async fn a_book_gives_its_chapters_in_reading_order() {
    let fonts = r#"<EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/>"#;
    let read = extract("a.epub", &book(fonts))
        .await
        .expect("the file has text");
    assert_eq!(headings(&read), [["Tides"], ["Winds"]]);
    assert_eq!(
        texts(&read),
        ["# Tides\n\nHigh water.", "# Winds\n\nFair wind."]
    );
    let chapters = r#"<EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>"#;
    let locked = extract("a.epub", &book(chapters)).await;
    assert_eq!(locked, Err(ExtractError::Encrypted));
}

#[tokio::test]
async fn a_message_gives_its_headers_its_text_and_the_names_of_its_attachments() {
    let message = "From: =?utf-8?q?J=C3=BCrgen?= <j@harbour.example>\r\nTo: Ada <ada@harbour.example>\r\n\
        Date: Fri, 09 Mar 2031 12:00:00 +0000\r\nSubject: Mooring\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\
        Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        Gr=FC=DFe vom Kai.\r\n--x\r\nContent-Type: application/pdf; name=plan.pdf\r\n\
        Content-Disposition: attachment; filename=plan.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        JVBERi0xLjQ=\r\n--x--\r\n";
    let read = extract("a.eml", message.as_bytes())
        .await
        .expect("the file has text");
    assert_eq!(headings(&read), [["Mooring"]]);
    assert_eq!(
        texts(&read),
        [
            "From: Jürgen <j@harbour.example>\nTo: Ada <ada@harbour.example>\n\
          Date: 2031-03-09T12:00:00Z\nSubject: Mooring\n\nGrüße vom Kai.\n\n\
          Attachment: plan.pdf"
        ]
    );
}

#[tokio::test]
async fn an_outlook_message_is_read_like_any_other() {
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (subject, name) = (utf16("Mooring"), utf16("plan.pdf"));
    let message = |body: (&str, &[u8])| {
        generated::compound_file_of(&[
            ("__properties_version1.0", b""),
            ("__substg1.0_0037001F", &subject),
            ("__substg1.0_0C1A001E", b"J\xfcrgen vom Kai"),
            ("__attach_version1.0_#00000000/__substg1.0_3707001F", &name),
            body,
        ])
    };
    let headers = "From: Jürgen vom Kai\nSubject: Mooring\nAttachment: plan.pdf";
    let body = utf16("Grüße.");
    let plain = extract("a.msg", &message(("__substg1.0_1000001F", &body))).await;
    let plain = plain.expect("the file has text");
    assert_eq!(headings(&plain), [["Mooring"]]);
    assert_eq!(texts(&plain), [format!("{headers}\n\nGrüße.")]);
    let html = message(("__substg1.0_10130102", b"<p>High <b>water</b>.</p>"));
    let html = extract("a.msg", &html).await.expect("the file has text");
    assert_eq!(texts(&html), [headers, "High **water**."]);
}

#[tokio::test]
async fn rich_text_is_read() {
    let file = br"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 Gr\'fc\'dfe\par Zweite Zeile}";
    let read = extract("a.rtf", file).await.expect("the file has text");
    assert_eq!(texts(&read), ["Grüße\nZweite Zeile"]);
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
