//! Threads and messages.

use super::{Fields, Read, Reader, stored};
use crate::domain::ids::FileId;
use crate::domain::message::{
    Annotation, AnnotationTarget, Attachment, AttachmentTool, Content, ImageDetail,
    IncompleteReason, Message, MessageStatus, Role,
};
use crate::domain::thread::Thread;
use crate::store::workspace_files::WrittenFile;
use crate::wire::ParseError;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::refusal::missing;
use crate::wire::tool_resources::parse_tool_resources;
use crate::wire::value;

pub(super) fn thread(mut fields: Fields) -> Read<(Thread, Vec<WrittenFile>)> {
    let written: Vec<(String, String)> = match fields.unshown("workspace")? {
        Some(workspace) => stored("workspace", workspace)?,
        None => Vec::new(),
    };
    let written = written.into_iter().map(|(path, file)| {
        let file_id = value::id("workspace", file)?;
        Ok(WrittenFile { path, file_id })
    });
    let written = written.collect::<Read<_>>()?;
    let thread = Thread {
        id: fields.shown.required_id("id")?,
        created_at: fields.created_at()?,
        metadata: fields.shown.metadata()?.unwrap_or_default(),
        tool_resources: parse_tool_resources(&mut fields.shown)?,
    };
    Ok((thread, written))
}

pub(super) fn message(reader: &mut Reader<'_>, mut fields: Fields) -> Read<Message> {
    let created_at = fields.created_at()?;
    let completed_at = fields.time("completed_at")?;
    let incomplete_at = fields.time("incomplete_at")?;
    let ended_at = fields.time("ended_at")?;
    let shown = &mut fields.shown;
    let id = shown.required_id("id")?;
    let reason = match shown.object("incomplete_details")? {
        Some(mut details) => details.enum_value("reason", &REASONS)?,
        None => None,
    };
    // The hosted service does not show the status of messages.
    let status = match shown.string("status", usize::MAX)?.as_deref() {
        Some("in_progress") => MessageStatus::InProgress,
        Some("incomplete") => MessageStatus::Incomplete,
        None if incomplete_at.is_some() => MessageStatus::Incomplete,
        Some(_) | None => MessageStatus::Completed,
    };
    let roles = [("user", Role::User), ("assistant", Role::Assistant)];
    let role = shown.enum_value("role", &roles)?;
    let mut content = Vec::new();
    for part in shown.array("content", usize::MAX)?.unwrap_or_default() {
        match parse_part(part) {
            Ok(part) => content.push(part),
            Err(error) => reader
                .remarks
                .push(format!("{id}: a part was left out: {}", error.message)),
        }
    }
    let mut attachments = Vec::new();
    for attachment in shown
        .objects("attachments", usize::MAX)?
        .unwrap_or_default()
    {
        attachments.push(parse_attachment(attachment)?);
    }
    Ok(Message {
        id,
        thread: shown.required_id("thread_id")?,
        created_at,
        status,
        incomplete_reason: match status {
            MessageStatus::Incomplete => Some(reason.unwrap_or(IncompleteReason::MaxTokens)),
            MessageStatus::Completed | MessageStatus::InProgress => None,
        },
        ended_at: match status {
            MessageStatus::InProgress => None,
            MessageStatus::Completed | MessageStatus::Incomplete => Some(
                ended_at
                    .or(completed_at)
                    .or(incomplete_at)
                    .unwrap_or(created_at),
            ),
        },
        role: role.ok_or_else(|| missing("role"))?,
        content,
        attachments,
        assistant: optional_id(shown, "assistant_id")?,
        run: optional_id(shown, "run_id")?,
        metadata: shown.metadata()?.unwrap_or_default(),
    })
}

const REASONS: [(&str, IncompleteReason); 5] = [
    ("content_filter", IncompleteReason::ContentFilter),
    ("max_tokens", IncompleteReason::MaxTokens),
    ("run_cancelled", IncompleteReason::RunCancelled),
    ("run_expired", IncompleteReason::RunExpired),
    ("run_failed", IncompleteReason::RunFailed),
];

const DETAILS: [(&str, ImageDetail); 3] = [
    ("auto", ImageDetail::Auto),
    ("low", ImageDetail::Low),
    ("high", ImageDetail::High),
];

fn optional_id<T>(object: &mut Object, name: &str) -> Read<Option<T>>
where
    T: std::str::FromStr<Err = crate::domain::ids::WrongPrefix>,
{
    let path = object.path(name);
    object
        .take(name)
        .map(|value| value::id(&path, value))
        .transpose()
}

#[derive(Clone, Copy)]
enum PartKind {
    Text,
    Refusal,
    ImageFile,
    ImageUrl,
}

fn parse_part(part: Json) -> Read<Content> {
    let mut part = Object::at("content".to_owned(), part)?;
    let kind = part.type_tag(&[
        ("text", PartKind::Text),
        ("refusal", PartKind::Refusal),
        ("image_file", PartKind::ImageFile),
        ("image_url", PartKind::ImageUrl),
    ])?;
    let inner = |part: &mut Object, name: &str| {
        let path = part.path(name);
        part.object(name)?.ok_or_else(|| missing(&path))
    };
    Ok(match kind {
        PartKind::Text => {
            let mut text = inner(&mut part, "text")?;
            let annotations = text.objects("annotations", usize::MAX)?.unwrap_or_default();
            Content::Text {
                value: text.required_string("value", usize::MAX)?,
                // Annotations without a known target are omitted; their text is part of the
                // message.
                annotations: annotations
                    .into_iter()
                    .filter_map(|annotation| parse_annotation(annotation).ok())
                    .collect(),
            }
        }
        PartKind::Refusal => Content::Refusal {
            refusal: part.required_string("refusal", usize::MAX)?,
        },
        PartKind::ImageFile => {
            let mut image = inner(&mut part, "image_file")?;
            Content::ImageFile {
                file: image.required_id("file_id")?,
                detail: image.enum_value("detail", &DETAILS)?,
            }
        }
        PartKind::ImageUrl => {
            let mut image = inner(&mut part, "image_url")?;
            Content::ImageUrl {
                url: image.required_string("url", usize::MAX)?,
                detail: image.enum_value("detail", &DETAILS)?.unwrap_or_default(),
            }
        }
    })
}

fn parse_annotation(mut annotation: Object) -> Read<Annotation> {
    let file = |annotation: &mut Object, name: &str| -> Read<FileId> {
        let path = annotation.path(name);
        let mut target = annotation.object(name)?.ok_or_else(|| missing(&path))?;
        target.required_id("file_id")
    };
    let is_path = annotation.type_tag(&[("file_path", true), ("file_citation", false)])?;
    let target = if is_path {
        AnnotationTarget::FilePath(file(&mut annotation, "file_path")?)
    } else {
        AnnotationTarget::FileCitation(file(&mut annotation, "file_citation")?)
    };
    let mut index = |name| -> Read<usize> {
        let index = annotation.integer(name, 0, i64::MAX)?;
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.ok_or_else(|| missing(name))
    };
    Ok(Annotation {
        start: index("start_index")?,
        end: index("end_index")?,
        text: annotation.required_string("text", usize::MAX)?,
        target,
    })
}

fn parse_attachment(mut attachment: Object) -> Read<Attachment> {
    let mut tools = Vec::new();
    for mut tool in attachment.objects("tools", usize::MAX)?.unwrap_or_default() {
        match tool.required_string("type", usize::MAX)?.as_str() {
            "code_interpreter" => tools.push(AttachmentTool::CodeInterpreter),
            "file_search" => tools.push(AttachmentTool::FileSearch),
            other => {
                let text = format!("attachments for the tool '{other}' are unknown.");
                return Err(ParseError::new(text));
            }
        }
    }
    Ok(Attachment {
        file_id: optional_id(&mut attachment, "file_id")?,
        tools,
    })
}
