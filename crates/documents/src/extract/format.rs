//! Detects the file type, from the content and, where that is ambiguous, from the name.

use std::io::Cursor;

use office_oxide::DocumentFormat;
use office_oxide::cfb::CfbReader;
use zip::ZipArchive;

use crate::ExtractError;

use super::text;

#[derive(Debug, PartialEq)]
pub(super) enum Format {
    Pdf,
    Office(DocumentFormat),
    OpenDocument,
    Epub,
    Rtf,
    Email,
    OutlookMessage,
    Html,
    Markdown,
    /// Code, CSV, JSON, TeX and any other text.
    Text,
}

/// PDF readers accept data before the PDF signature up to this offset; mail gateways and printers
/// insert some.
const PDF_SIGNATURE_WITHIN: usize = 1024;

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

/// Names and contents at the beginning of archives that are documents.
const OFFICE_PARTS: &[&[u8]] = &[
    b"word/",
    b"xl/",
    b"ppt/",
    b"application/epub+zip",
    b"application/vnd.oasis.opendocument.",
];

/// Signatures of the containers of Office files: ZIP archives for the current formats, compound
/// files for the older ones.
const ZIP: &[u8] = b"PK\x03\x04";

const COMPOUND_FILE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

pub(super) fn detect(name: &str, bytes: &[u8]) -> Result<Format, ExtractError> {
    if bytes.is_empty() {
        return Err(ExtractError::Empty);
    }
    let extension = extension(name);
    let has_pdf_extension = extension == "pdf";
    let head = &bytes[..bytes.len().min(PDF_SIGNATURE_WITHIN)];
    if bytes.starts_with(b"%PDF-") || (has_pdf_extension && head.windows(5).any(|w| w == b"%PDF-"))
    {
        return Ok(Format::Pdf);
    }
    if bytes.starts_with(ZIP) || bytes.starts_with(b"PK\x05\x06") {
        return detect_in_zip(bytes, &extension);
    }
    if bytes.starts_with(COMPOUND_FILE) {
        return detect_in_compound_file(bytes, &extension);
    }
    if bytes.starts_with(b"{\\rtf") {
        return Ok(Format::Rtf);
    }
    if !text::looks_like_text(bytes) {
        let known = UNSUPPORTED
            .iter()
            .find(|(signature, _)| bytes.starts_with(signature));
        return Err(match (known, expected_type(&extension)) {
            (Some((_, found)), _) => unsupported(found),
            (None, Some(expected)) => damaged(expected),
            (None, None) => unsupported("binary data of an unknown kind"),
        });
    }
    Ok(match extension.as_str() {
        "html" | "htm" | "xhtml" => Format::Html,
        "md" | "markdown" => Format::Markdown,
        "eml" => Format::Email,
        // For example an error page of a web site that was saved as the document.
        _ if (extension.is_empty() || expected_type(&extension).is_some())
            && starts_as_html(head) =>
        {
            Format::Html
        }
        _ => Format::Text,
    })
}

fn extension(name: &str) -> String {
    name.rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase())
        .unwrap_or_default()
}

/// The file type that this extension promises, with an article; `None` for text.
fn expected_type(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "pdf" => "a PDF",
        "doc" | "docx" | "docm" | "dotx" => "a Word document",
        "xls" | "xlsx" | "xlsm" | "xltx" => "an Excel workbook",
        "ppt" | "pptx" | "pptm" | "ppsx" => "a PowerPoint presentation",
        "odt" | "ods" | "odp" | "ott" | "ots" | "otp" => "an OpenDocument file",
        "epub" => "an EPUB book",
        "rtf" => "an RTF document",
        "msg" => "an Outlook message",
        _ => return None,
    })
}

/// Refuses a file of an unsupported type by its first bytes. Parses nothing, so an archive is
/// judged by the entry names in these bytes and by its own name.
pub(super) fn check_head(name: &str, head: &[u8]) -> Result<(), ExtractError> {
    if !head.starts_with(ZIP) && !head.starts_with(COMPOUND_FILE) {
        return detect(name, head).map(drop);
    }
    let contains = |folder: &&[u8]| head.windows(folder.len()).any(|bytes| bytes == *folder);
    let is_office = OFFICE_PARTS.iter().any(contains);
    if is_office || expected_type(&extension(name)).is_some() {
        Ok(())
    } else {
        Err(unsupported("an archive or another compound file"))
    }
}

fn detect_in_zip(bytes: &[u8], extension: &str) -> Result<Format, ExtractError> {
    let Ok(archive) = ZipArchive::new(Cursor::new(bytes)) else {
        return Err(damaged(expected_type(extension).unwrap_or("a zip archive")));
    };
    let contains = |folder: &str| {
        archive
            .file_names()
            .flatten()
            .any(|name| name.starts_with(folder))
    };
    if contains("word/") {
        Ok(Format::Office(DocumentFormat::Docx))
    } else if contains("xl/") {
        Ok(Format::Office(DocumentFormat::Xlsx))
    } else if contains("ppt/") {
        Ok(Format::Office(DocumentFormat::Pptx))
    } else if contains("META-INF/container.xml") {
        Ok(Format::Epub)
    } else if contains("META-INF/manifest.xml") && contains("content.xml") {
        Ok(Format::OpenDocument)
    } else {
        Err(unsupported("a zip archive"))
    }
}

fn detect_in_compound_file(bytes: &[u8], extension: &str) -> Result<Format, ExtractError> {
    let Ok(file) = CfbReader::new(Cursor::new(bytes)) else {
        return Err(damaged(
            expected_type(extension).unwrap_or("an Office document"),
        ));
    };
    if file.has_root_entry("EncryptedPackage") {
        Err(ExtractError::Encrypted)
    } else if file.has_root_entry("WordDocument") {
        Ok(Format::Office(DocumentFormat::Doc))
    } else if file.has_root_entry("Workbook") || file.has_root_entry("Book") {
        Ok(Format::Office(DocumentFormat::Xls))
    } else if file.has_root_entry("PowerPoint Document") {
        Ok(Format::Office(DocumentFormat::Ppt))
    } else if file.has_root_entry("__properties_version1.0") {
        Ok(Format::OutlookMessage)
    } else {
        Err(unsupported("an installer or another compound file"))
    }
}

fn starts_as_html(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    let starts_with = |tag: &[u8]| {
        head.get(..tag.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(tag))
    };
    starts_with(b"<!doctype html") || starts_with(b"<html")
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
