//! E-mail messages: the headers that a reader sees, the text, and the names of attachments.

use mail_parser::Address;
use mail_parser::MessageParser;
use mail_parser::MimeHeaders;

use crate::ExtractError;

use super::output::Output;

pub(super) fn extract(bytes: &[u8], output: &mut Output<'_>) -> Result<(), ExtractError> {
    let message = MessageParser::default()
        .parse(bytes)
        .ok_or_else(|| ExtractError::Damaged {
            expected: "an e-mail message".to_owned(),
        })?;
    let headers = [
        ("From", message.from().map(people)),
        ("To", message.to().map(people)),
        ("Cc", message.cc().map(people)),
        ("Date", message.date().map(|date| date.to_rfc3339())),
        ("Subject", message.subject().map(str::to_owned)),
    ];
    let mut text = String::new();
    for (name, value) in headers {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    for body in (0..message.text_body_count()).filter_map(|part| message.body_text(part)) {
        text.push_str(&format!("\n{body}\n"));
    }
    for name in message
        .attachments()
        .filter_map(|part| part.attachment_name())
    {
        text.push_str(&format!("\nAttachment: {name}"));
    }
    let headings: Vec<String> = message.subject().map(str::to_owned).into_iter().collect();
    output.push(None, &headings, &text)
}

fn people(address: &Address<'_>) -> String {
    let people: Vec<String> = address
        .iter()
        .map(|person| match (person.name(), person.address()) {
            (Some(name), Some(address)) => format!("{name} <{address}>"),
            (name, address) => name.or(address).unwrap_or_default().to_owned(),
        })
        .collect();
    people.join(", ")
}
