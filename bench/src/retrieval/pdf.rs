//! Minimal PDF files.

use std::fmt::Write;

/// Creates a PDF file of pages with lines of plain ASCII.
pub(super) fn pdf(pages: &[Vec<String>]) -> Vec<u8> {
    // Objects: 1 catalogue, 2 list of pages, 3 font, then two for each page.
    let kids: Vec<String> = (0..pages.len())
        .map(|page| format!("{} 0 R", 4 + 2 * page))
        .collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Count {} /Kids [{}] >>",
            pages.len(),
            kids.join(" ")
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    for (page, lines) in pages.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R \
             /Resources << /Font << /F1 3 0 R >> >> >>",
            5 + 2 * page
        ));
        let mut drawn = String::from("BT /F1 10 Tf 13 TL 54 740 Td\n");
        for line in lines {
            let line = line.replace(['(', ')', '\\'], " ");
            writeln!(drawn, "({line}) Tj T*").expect("a String takes all");
        }
        drawn.push_str("ET\n");
        objects.push(format!(
            "<< /Length {} >>\nstream\n{drawn}endstream",
            drawn.len()
        ));
    }
    let mut file = String::from("%PDF-1.4\n");
    let mut places = Vec::with_capacity(objects.len());
    for (n, object) in objects.iter().enumerate() {
        places.push(file.len());
        write!(file, "{} 0 obj\n{object}\nendobj\n", n + 1).expect("a String takes all");
    }
    let (table, count) = (file.len(), objects.len() + 1);
    write!(file, "xref\n0 {count}\n0000000000 65535 f \n").expect("a String takes all");
    for place in places {
        writeln!(file, "{place:010} 00000 n ").expect("a String takes all");
    }
    write!(
        file,
        "trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n"
    )
    .expect("a String takes all");
    file.into_bytes()
}
