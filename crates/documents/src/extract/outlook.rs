//! Outlook messages (.msg), which are compound files of MAPI properties.

use std::io::Cursor;

use encoding_rs::UTF_16LE;
use office_oxide::cfb::CfbReader;

use crate::ExtractError;

use super::html;
use super::output::Output;
use super::text;

const SUBJECT: &str = "0037";
const BODY: &str = "1000";
const HTML_BODY: &str = "1013";
const ATTACHMENT_NAME: &str = "3707";

/// Properties of which a message shows the value, with the name that it is shown under.
const HEADERS: &[(&str, &str)] = &[
    ("From", "0C1A"),
    ("To", "0E04"),
    ("Cc", "0E03"),
    ("Subject", SUBJECT),
];

type File<'a> = CfbReader<Cursor<&'a [u8]>>;

pub(super) fn extract(bytes: &[u8], output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut file = CfbReader::new(Cursor::new(bytes)).map_err(|_| ExtractError::Damaged {
        expected: "an Outlook message".to_owned(),
    })?;
    let mut text = String::new();
    for (name, property) in HEADERS {
        if let Some(value) = string(&mut file, "", property) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    let attachments: Vec<String> = file
        .entries()
        .iter()
        .filter(|entry| entry.name.starts_with("__attach_version1.0_#"))
        .map(|entry| format!("{}/", entry.name))
        .collect();
    for folder in attachments {
        if let Some(name) = string(&mut file, &folder, ATTACHMENT_NAME) {
            text.push_str(&format!("Attachment: {name}\n"));
        }
    }
    let subject: Vec<String> = string(&mut file, "", SUBJECT).into_iter().collect();
    if let Some(body) = string(&mut file, "", BODY) {
        text.push_str(&format!("\n{body}"));
        return output.push(None, &subject, &text);
    }
    output.push(None, &subject, &text)?;
    match file.open_stream_by_path(&format!("__substg1.0_{HTML_BODY}0102")) {
        Ok(body) => html::extract(&body, output),
        Err(_) => Ok(()),
    }
}

/// A property that is a string, in UTF-16 or in an older encoding; `None` if it is absent or blank.
fn string(file: &mut File<'_>, folder: &str, property: &str) -> Option<String> {
    let unicode = format!("{folder}__substg1.0_{property}001F");
    let value = match file.open_stream_by_path(&unicode) {
        Ok(bytes) => UTF_16LE.decode_without_bom_handling(&bytes).0.into_owned(),
        Err(_) => {
            let narrow = format!("{folder}__substg1.0_{property}001E");
            text::decode(&file.open_stream_by_path(&narrow).ok()?).ok()?
        }
    };
    let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!value.is_empty()).then(|| value.to_owned())
}
