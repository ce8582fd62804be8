//! What kind of file this is: by its content first, by its name where that leaves a choice.

use std::io::Cursor;

use office_oxide::DocumentFormat;
use office_oxide::cfb::CfbReader;
use zip::ZipArchive;

use crate::ExtractError;

use super::text;

/// The readers there are.
#[derive(Debug, PartialEq)]
pub(super) enum Format {
    Pdf,
    Office(DocumentFormat),
    Html,
    Markdown,
    /// Code, CSV, JSON, TeX and all else that is text.
    Text,
}

/// Readers of PDF skip what mail gateways and printers put before the first byte, up to here.
const PDF_MARK_WITHIN: usize = 1024;

/// The first bytes of files that hold no text, or none that can be read, and what they are.
const UNSUPPORTED: &[(&[u8], &str)] = &[
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"BM", "a BMP picture"),
    (b"RIFF", "a sound, film or WebP picture"),
    (b"ID3", "an MP3 sound"),
    (b"OggS", "an Ogg sound"),
    (b"fLaC", "a FLAC sound"),
    (b"\x1aE\xdf\xa3", "a Matroska film"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"\0asm", "a WebAssembly program"),
    (b"\xca\xfe\xba\xbe", "a compiled program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet table"),
];

/// How archives of zip begin, which Word, Excel and PowerPoint files are.
const ZIP: &[u8] = b"PK\x03\x04";

/// How compound files begin, which older Office files are.
const COMPOUND_FILE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Sees what the bytes are, or why they can not be read.
pub(super) fn detect(name: &str, bytes: &[u8]) -> Result<Format, ExtractError> {
    if bytes.is_empty() {
        return Err(ExtractError::Empty);
    }
    let extension = extension(name);
    let named_pdf = extension == "pdf";
    let head = &bytes[..bytes.len().min(PDF_MARK_WITHIN)];
    if bytes.starts_with(b"%PDF-") || (named_pdf && head.windows(5).any(|w| w == b"%PDF-")) {
        return Ok(Format::Pdf);
    }
    if bytes.starts_with(ZIP) || bytes.starts_with(b"PK\x05\x06") {
        return inside_zip(bytes, &extension);
    }
    if bytes.starts_with(COMPOUND_FILE) {
        return inside_compound_file(bytes, &extension);
    }
    if bytes.starts_with(b"{\\rtf") {
        return Err(unsupported("a rich text (RTF) document"));
    }
    if !text::looks_like_text(bytes) {
        let known = UNSUPPORTED.iter().find(|(mark, _)| bytes.starts_with(mark));
        return Err(match (known, claimed(&extension)) {
            (Some((_, found)), _) => unsupported(found),
            (None, Some(expected)) => damaged(expected),
            (None, None) => unsupported("binary data of an unknown kind"),
        });
    }
    Ok(match extension.as_str() {
        "html" | "htm" | "xhtml" => Format::Html,
        "md" | "markdown" => Format::Markdown,
        // A page of a web site that was saved under the name of the document it should have been.
        _ if (extension.is_empty() || claimed(&extension).is_some()) && begins_as_html(head) => {
            Format::Html
        }
        _ => Format::Text,
    })
}

/// In lower case, without the dot; empty if there is none.
fn extension(name: &str) -> String {
    name.rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase())
        .unwrap_or_default()
}

/// What a file with this extension has to be, with an article, unless it is text.
fn claimed(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "pdf" => "a PDF",
        "doc" | "docx" | "docm" | "dotx" => "a Word document",
        "xls" | "xlsx" | "xlsm" | "xltx" => "an Excel workbook",
        "ppt" | "pptx" | "pptm" | "ppsx" => "a PowerPoint presentation",
        _ => return None,
    })
}

/// Refuses a file of which this is the beginning if it is of a kind that is not read. Opens nothing,
/// so an archive is judged by the entry names at its beginning and by its own name.
pub(super) fn check_head(name: &str, head: &[u8]) -> Result<(), ExtractError> {
    if !head.starts_with(ZIP) && !head.starts_with(COMPOUND_FILE) {
        return detect(name, head).map(drop);
    }
    let holds = |folder: &&[u8]| head.windows(folder.len()).any(|bytes| bytes == *folder);
    let is_office = [b"word/".as_slice(), b"xl/", b"ppt/"].iter().any(holds);
    match is_office || claimed(&extension(name)).is_some() {
        true => Ok(()),
        false => Err(unsupported("an archive or another compound file")),
    }
}

fn inside_zip(bytes: &[u8], extension: &str) -> Result<Format, ExtractError> {
    let Ok(archive) = ZipArchive::new(Cursor::new(bytes)) else {
        return Err(damaged(claimed(extension).unwrap_or("a zip archive")));
    };
    let holds = |folder: &str| {
        archive
            .file_names()
            .flatten()
            .any(|name| name.starts_with(folder))
    };
    if holds("word/") {
        Ok(Format::Office(DocumentFormat::Docx))
    } else if holds("xl/") {
        Ok(Format::Office(DocumentFormat::Xlsx))
    } else if holds("ppt/") {
        Ok(Format::Office(DocumentFormat::Pptx))
    } else if holds("META-INF/container.xml") {
        Err(unsupported("an EPUB book"))
    } else if holds("META-INF/manifest.xml") && holds("content.xml") {
        Err(unsupported("an OpenDocument file"))
    } else {
        Err(unsupported("a zip archive"))
    }
}

fn inside_compound_file(bytes: &[u8], extension: &str) -> Result<Format, ExtractError> {
    let Ok(file) = CfbReader::new(Cursor::new(bytes)) else {
        return Err(damaged(claimed(extension).unwrap_or("an Office document")));
    };
    if file.has_root_entry("EncryptedPackage") {
        Err(ExtractError::Encrypted)
    } else if file.has_root_entry("WordDocument") {
        Ok(Format::Office(DocumentFormat::Doc))
    } else if file.has_root_entry("Workbook") || file.has_root_entry("Book") {
        Ok(Format::Office(DocumentFormat::Xls))
    } else if file.has_root_entry("PowerPoint Document") {
        Ok(Format::Office(DocumentFormat::Ppt))
    } else {
        Err(unsupported(
            "an Outlook message, an installer or another compound file",
        ))
    }
}

fn begins_as_html(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    let begins = |mark: &[u8]| {
        head.get(..mark.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(mark))
    };
    begins(b"<!doctype html") || begins(b"<html")
}

fn unsupported(found: &str) -> ExtractError {
    ExtractError::Unsupported {
        found: found.to_owned(),
    }
}

fn damaged(expected: &str) -> ExtractError {
    ExtractError::Damaged {
        expected: expected.to_owned(),
    }
}
