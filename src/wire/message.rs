//! Messages and their pieces.

use serde::Serialize;

use crate::domain::Metadata;
use crate::domain::ids::FileId;
use crate::domain::message::NewMessage;
use crate::domain::message::{
    Annotation, AnnotationTarget, Attachment, AttachmentTool, Content, ImageDetail,
    IncompleteReason, Message, MessageStatus, Role,
};
use crate::wire::ParseError;
use crate::wire::json::Kind;
use crate::wire::object::{self, Object, missing};
use crate::wire::seconds;

/// A message. Its status is shown on REST too, where the hosted service left it out: strict
/// clients require it.
#[derive(Debug, Serialize)]
pub struct MessageObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    assistant_id: Option<&'a str>,
    thread_id: &'a str,
    run_id: Option<&'a str>,
    status: MessageStatus,
    incomplete_details: Option<IncompleteDetails>,
    incomplete_at: Option<i64>,
    completed_at: Option<i64>,
    role: Role,
    content: Vec<ContentObject<'a>>,
    attachments: Vec<AttachmentObject<'a>>,
    metadata: &'a Metadata,
}

#[derive(Debug, Serialize)]
struct IncompleteDetails {
    reason: IncompleteReason,
}

#[derive(Debug, Serialize)]
struct AttachmentObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<&'a str>,
    tools: &'a [AttachmentTool],
}

impl<'a> From<&'a Message> for MessageObject<'a> {
    fn from(message: &'a Message) -> Self {
        let ended_at = |status| {
            message
                .ended_at
                .filter(|_| message.status == status)
                .map(seconds)
        };
        let attachment = |attachment: &'a Attachment| AttachmentObject {
            file_id: attachment.file_id.as_ref().map(|id| id.as_str()),
            tools: &attachment.tools,
        };
        Self {
            id: message.id.as_str(),
            object: "thread.message",
            created_at: seconds(message.created_at),
            assistant_id: message.assistant.as_ref().map(|id| id.as_str()),
            thread_id: message.thread.as_str(),
            run_id: message.run.as_ref().map(|id| id.as_str()),
            status: message.status,
            incomplete_details: message
                .incomplete_reason
                .map(|reason| IncompleteDetails { reason }),
            incomplete_at: ended_at(MessageStatus::Incomplete),
            completed_at: ended_at(MessageStatus::Completed),
            role: message.role,
            content: message.content.iter().map(ContentObject::from).collect(),
            attachments: message.attachments.iter().map(attachment).collect(),
            metadata: &message.metadata,
        }
    }
}

/// One part of a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentObject<'a> {
    Text { text: TextObject<'a> },
    Refusal { refusal: &'a str },
    ImageFile { image_file: ImageFileObject<'a> },
    ImageUrl { image_url: ImageUrlObject<'a> },
}

#[derive(Debug, Serialize)]
struct TextObject<'a> {
    value: &'a str,
    annotations: Vec<AnnotationObject<'a>>,
}

/// What a stretch of text refers to.
#[derive(Debug, Serialize)]
pub struct AnnotationObject<'a> {
    r#type: &'static str,
    text: &'a str,
    start_index: usize,
    end_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_path: Option<FileObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_citation: Option<FileObject<'a>>,
}

#[derive(Debug, Serialize)]
struct FileObject<'a> {
    file_id: &'a str,
    /// Only of citations in deltas, and always empty there, as with the hosted service.
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<&'static str>,
}

impl AnnotationObject<'_> {
    /// The same as deltas have it.
    pub fn in_delta(mut self) -> Self {
        if let Some(citation) = &mut self.file_citation {
            citation.quote = Some("");
        }
        self
    }
}

impl<'a> From<&'a Annotation> for AnnotationObject<'a> {
    fn from(annotation: &'a Annotation) -> Self {
        let (r#type, file_path, file_citation) = match &annotation.target {
            AnnotationTarget::FilePath(file) => ("file_path", Some(file), None),
            AnnotationTarget::FileCitation(file) => ("file_citation", None, Some(file)),
        };
        let file = |file: &'a FileId| FileObject {
            file_id: file.as_str(),
            quote: None,
        };
        Self {
            r#type,
            text: &annotation.text,
            start_index: annotation.start,
            end_index: annotation.end,
            file_path: file_path.map(file),
            file_citation: file_citation.map(file),
        }
    }
}

#[derive(Debug, Serialize)]
struct ImageFileObject<'a> {
    file_id: &'a str,
    /// Only of pictures that a client sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<ImageDetail>,
}

#[derive(Debug, Serialize)]
struct ImageUrlObject<'a> {
    url: &'a str,
    detail: ImageDetail,
}

impl<'a> From<&'a Content> for ContentObject<'a> {
    fn from(content: &'a Content) -> Self {
        match content {
            Content::Text { value, annotations } => Self::Text {
                text: TextObject {
                    value,
                    annotations: annotations.iter().map(AnnotationObject::from).collect(),
                },
            },
            Content::Refusal { refusal } => Self::Refusal { refusal },
            Content::ImageFile { file, detail } => Self::ImageFile {
                image_file: ImageFileObject {
                    file_id: file.as_str(),
                    detail: *detail,
                },
            },
            Content::ImageUrl { url, detail } => Self::ImageUrl {
                image_url: ImageUrlObject {
                    url,
                    detail: *detail,
                },
            },
        }
    }
}

/// As many as a thread may have.
const MESSAGES_MAX: usize = 100_000;
const TEXT_MAX: usize = 256_000;
const PARTS_MAX: usize = 1_000;
const ATTACHMENTS_MAX: usize = 500;

/// A message as a client writes it.
pub fn parse_new(mut body: Object) -> Result<NewMessage, ParseError> {
    let roles = [("user", Role::User), ("assistant", Role::Assistant)];
    let role = body
        .word("role", &roles)?
        .ok_or_else(|| missing(&body.path("role")))?;
    let content = parse_content(&mut body)?;
    let attachments = body
        .objects("attachments", ATTACHMENTS_MAX)?
        .unwrap_or_default();
    let attachments = attachments
        .into_iter()
        .map(parse_attachment)
        .collect::<Result<_, _>>()?;
    let metadata = body.metadata()?.unwrap_or_default();
    body.finish()?;
    Ok(NewMessage {
        role,
        content,
        attachments,
        metadata,
    })
}

/// Messages that come with a thread or a run.
pub fn parse_all(body: &mut Object, name: &str) -> Result<Vec<NewMessage>, ParseError> {
    let messages = body.array_of(name, MESSAGES_MAX, |path, message| {
        parse_new(Object::at(path, message)?)
    })?;
    Ok(messages.unwrap_or_default())
}

fn parse_content(body: &mut Object) -> Result<Vec<Content>, ParseError> {
    let path = body.path("content");
    let empty = || {
        ParseError::new("Message content must be non-empty.")
            .param(path.clone())
            .code("invalid_value")
    };
    let content = body.required("content")?;
    let parts = match content.kind() {
        Kind::String => {
            let value = object::string(&path, content, TEXT_MAX)?;
            return match value.is_empty() {
                true => Err(empty()),
                false => Ok(vec![Content::text(value)]),
            };
        }
        Kind::Array => object::items(&path, content, PARTS_MAX, |n, part| {
            parse_part(Object::at(format!("{path}[{n}]"), part)?)
        })?,
        other => {
            let expected = "a string or a list of content parts";
            return Err(object::wrong_type(&path, expected, other));
        }
    };
    match parts.is_empty() {
        true => Err(empty()),
        false => Ok(parts),
    }
}

#[derive(Clone, Copy)]
enum PartKindIn {
    Text,
    ImageFile,
    ImageUrl,
}

fn parse_part(mut part: Object) -> Result<Content, ParseError> {
    let kind = part.kind(&[
        ("text", PartKindIn::Text),
        ("image_file", PartKindIn::ImageFile),
        ("image_url", PartKindIn::ImageUrl),
    ])?;
    let details = [
        ("auto", ImageDetail::Auto),
        ("low", ImageDetail::Low),
        ("high", ImageDetail::High),
    ];
    let content = match kind {
        PartKindIn::Text => Content::text(part.required_string("text", TEXT_MAX)?),
        PartKindIn::ImageFile => {
            let path = part.path("image_file");
            let mut image = part.object("image_file")?.ok_or_else(|| missing(&path))?;
            let file = image.required_id("file_id")?;
            let detail = Some(image.word("detail", &details)?.unwrap_or_default());
            image.finish()?;
            Content::ImageFile { file, detail }
        }
        PartKindIn::ImageUrl => {
            let path = part.path("image_url");
            let mut image = part.object("image_url")?.ok_or_else(|| missing(&path))?;
            let url = image.required_string("url", usize::MAX)?;
            if !["http://", "https://", "data:"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                let path = image.path("url");
                return Err(ParseError::new(format!(
                    "Invalid '{path}': expected an http, https or data URL."
                ))
                .param(path)
                .code("invalid_value"));
            }
            let detail = image.word("detail", &details)?.unwrap_or_default();
            image.finish()?;
            Content::ImageUrl { url, detail }
        }
    };
    part.finish()?;
    Ok(content)
}

fn parse_attachment(mut attachment: Object) -> Result<Attachment, ParseError> {
    let path = attachment.path("file_id");
    let file_id = attachment
        .any("file_id")
        .map(|value| object::id(&path, value))
        .transpose()?;
    let mut tools = Vec::new();
    for mut tool in attachment.objects("tools", 16)?.unwrap_or_default() {
        let kind = tool.kind(&[
            ("code_interpreter", AttachmentTool::CodeInterpreter),
            ("file_search", AttachmentTool::FileSearch),
        ])?;
        tool.finish()?;
        tools.push(kind);
    }
    attachment.finish()?;
    Ok(Attachment { file_id, tools })
}
