//! Documents that are too large for fixture files.

use std::io::Cursor;
use std::io::Write;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(crate) fn pdf_of(pages: usize) -> Vec<u8> {
    let kids: String = (0..pages)
        .map(|page| format!("{} 0 R ", 4 + 2 * page))
        .collect();
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        format!("<</Type/Pages/Count {pages}/Kids[{kids}]>>"),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    for page in 0..pages {
        let content = format!("BT /F 12 Tf 72 720 Td (Leaf {}) Tj ET", page + 1);
        objects.push(format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F 3 0 R>>>>/Contents {} 0 R>>",
            5 + 2 * page
        ));
        objects.push(format!(
            "<</Length {}>>stream\n{content}\nendstream",
            content.len()
        ));
    }
    pdf(&objects)
}

/// A PDF of one page with this media box and content stream. `entries` are those of the stream's
/// dictionary, and `others` are objects from number 6.
pub(crate) fn pdf_page(media_box: &str, entries: &str, content: &str, others: &[&str]) -> Vec<u8> {
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Count 1/Kids[3 0 R]>>".to_owned(),
        format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[{media_box}]/Resources<</Font<</F 5 0 R>>>>/Contents 4 0 R>>"
        ),
        format!(
            "<<{entries}/Length {}>>stream\n{content}\nendstream",
            content.len()
        ),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    objects.extend(others.iter().map(ToString::to_string));
    pdf(&objects)
}

/// A PDF of these objects, the first of which is the catalog.
pub(crate) fn pdf(objects: &[String]) -> Vec<u8> {
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut table = String::new();
    for (number, object) in (1..).zip(objects) {
        table += &format!("{:010} 00000 n \n", file.len());
        file.extend(format!("{number} 0 obj\n{object}\nendobj\n").into_bytes());
    }
    let (size, start) = (objects.len() + 1, file.len());
    let end = format!(
        "xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF"
    );
    file.extend(end.into_bytes());
    file
}

/// A compound file of these streams, each with its path and content.
pub(crate) fn compound_file_of(streams: &[(&str, &[u8])]) -> Vec<u8> {
    let write = || -> std::io::Result<Vec<u8>> {
        let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new()))?;
        for (path, content) in streams {
            if let Some((folder, _)) = path.rsplit_once('/') {
                file.create_storage_all(folder)?;
            }
            file.create_stream(path)?.write_all(content)?;
        }
        Ok(file.into_inner().into_inner())
    };
    write().expect("writing to memory cannot fail")
}

/// A zip archive of these files, each with its name and content.
pub(crate) fn zip_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        archive
            .start_file(*name, SimpleFileOptions::default())
            .and_then(|()| Ok(archive.write_all(content.as_bytes())?))
            .expect("writing to memory cannot fail");
    }
    archive
        .finish()
        .expect("writing to memory cannot fail")
        .into_inner()
}

pub(crate) fn docx_of(part: &str, times: usize) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut file = |name: &str, pieces: &mut dyn Iterator<Item = &str>| {
        archive
            .start_file(name, SimpleFileOptions::default())
            .expect("writing to memory cannot fail");
        for piece in pieces {
            archive
                .write_all(piece.as_bytes())
                .expect("writing to memory cannot fail");
        }
    };
    file(
        "[Content_Types].xml",
        &mut std::iter::once(
            r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#,
        ),
    );
    file(
        "_rels/.rels",
        &mut std::iter::once(
            r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="a" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#,
        ),
    );
    file(
        "word/document.xml",
        &mut std::iter::once(
            r#"<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>"#,
        )
        .chain(std::iter::repeat_n(part, times))
        .chain(std::iter::once("</w:body></w:document>")),
    );
    archive
        .finish()
        .expect("writing to memory cannot fail")
        .into_inner()
}
