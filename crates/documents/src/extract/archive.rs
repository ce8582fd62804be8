//! Zip archives of XML files, the containers of EPUB and OpenDocument.

use std::io::Cursor;
use std::io::Read;

use quick_xml::XmlVersion;
use quick_xml::events::BytesRef;
use quick_xml::events::BytesStart;
use zip::ZipArchive;

use crate::ExtractError;

use super::text;

/// Size of all unpacked files together. Text of more bytes than this is refused anyway.
const MAX_UNPACKED_BYTES: u64 = 256 * 1024 * 1024;

pub(super) struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// The file type, with an article.
    expected: &'static str,
    bytes_left: u64,
}

impl Archive {
    pub(super) fn open(bytes: Vec<u8>, expected: &'static str) -> Result<Self, ExtractError> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|_| damaged(expected))?;
        Ok(Self {
            zip,
            expected,
            bytes_left: MAX_UNPACKED_BYTES,
        })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.zip.index_for_name(name).is_some()
    }

    /// Unpacks a file.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, ExtractError> {
        let file = self.zip.by_name(name).map_err(|_| damaged(self.expected))?;
        let mut bytes = Vec::new();
        let read = file
            .take(self.bytes_left + 1)
            .read_to_end(&mut bytes)
            .map_err(|_| damaged(self.expected))?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(read as u64)
            .ok_or(ExtractError::TooLarge)?;
        Ok(bytes)
    }

    pub(super) fn read_text(&mut self, name: &str) -> Result<String, ExtractError> {
        let bytes = self.read(name)?;
        text::decode(&bytes).map_err(|_| self.damaged())
    }

    pub(super) fn damaged(&self) -> ExtractError {
        damaged(self.expected)
    }
}

fn damaged(expected: &str) -> ExtractError {
    ExtractError::Damaged {
        expected: expected.to_owned(),
    }
}

/// The value of an attribute, by its name with the usual prefix.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok()??;
    let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
    Some(value.into_owned())
}

/// The character of a reference such as `&amp;` or `&#8211;`.
pub(super) fn character(reference: &BytesRef<'_>) -> Option<char> {
    Some(match &**reference {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return reference.resolve_char_ref().ok()?,
    })
}
