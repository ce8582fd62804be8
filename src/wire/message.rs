//! Messages and their content.

use serde::Serialize;

use crate::domain::Metadata;
use crate::domain::ids::FileId;
use crate::domain::message::{
    Annotation, AnnotationTarget, Attachment, AttachmentTool, Content, ImageDetail,
    IncompleteReason, Message, MessageStatus, NewMessage, Role,
};
use crate::wire::ParseError;
use crate::wire::json::JsonType;
use crate::wire::object::Object;
use crate::wire::refusal::{missing, wrong_type};
use crate::wire::{seconds, value};

/// A message. Unlike the hosted API, lists and retrievals show its status too, because strict clients
/// require it.
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
    /// Present only in citations of deltas, and always empty there, as in the hosted API.
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<&'static str>,
}

impl AnnotationObject<'_> {
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
    /// Present only for images that a client sent.
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

const MAX_MESSAGES: usize = 100_000;
const MAX_TEXT: usize = 256_000;
const MAX_PARTS: usize = 1_000;
const MAX_ATTACHMENTS: usize = 500;
const MAX_ATTACHMENT_TOOLS: usize = 16;

pub fn parse_new(mut body: Object) -> Result<NewMessage, ParseError> {
    let roles = [("user", Role::User), ("assistant", Role::Assistant)];
    let role = body
        .enum_value("role", &roles)?
        .ok_or_else(|| missing(&body.path("role")))?;
    let content = parse_content(&mut body)?;
    let attachments = body
        .objects("attachments", MAX_ATTACHMENTS)?
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

pub fn parse_all(body: &mut Object, name: &str) -> Result<Vec<NewMessage>, ParseError> {
    let messages = body.array_of(name, MAX_MESSAGES, |path, message| {
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
    let parts = match content.json_type() {
        JsonType::String => {
            let value = value::string(&path, content, MAX_TEXT)?;
            return match value.is_empty() {
                true => Err(empty()),
                false => Ok(vec![Content::text(value)]),
            };
        }
        JsonType::Array => value::array(&path, content, MAX_PARTS, |index, part| {
            parse_part(Object::at(format!("{path}[{index}]"), part)?)
        })?,
        other => {
            let expected = "a string or a list of content parts";
            return Err(wrong_type(&path, expected, other));
        }
    };
    match parts.is_empty() {
        true => Err(empty()),
        false => Ok(parts),
    }
}

#[derive(Clone, Copy)]
enum ContentType {
    Text,
    ImageFile,
    ImageUrl,
}

fn parse_part(mut part: Object) -> Result<Content, ParseError> {
    let content_type = part.type_tag(&[
        ("text", ContentType::Text),
        ("image_file", ContentType::ImageFile),
        ("image_url", ContentType::ImageUrl),
    ])?;
    let details = [
        ("auto", ImageDetail::Auto),
        ("low", ImageDetail::Low),
        ("high", ImageDetail::High),
    ];
    let content = match content_type {
        ContentType::Text => Content::text(part.required_string("text", MAX_TEXT)?),
        ContentType::ImageFile => {
            let path = part.path("image_file");
            let mut image = part.object("image_file")?.ok_or_else(|| missing(&path))?;
            let file = image.required_id("file_id")?;
            let detail = Some(image.enum_value("detail", &details)?.unwrap_or_default());
            image.finish()?;
            Content::ImageFile { file, detail }
        }
        ContentType::ImageUrl => {
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
            let detail = image.enum_value("detail", &details)?.unwrap_or_default();
            image.finish()?;
            Content::ImageUrl { url, detail }
        }
    };
    part.finish()?;
    Ok(content)
}

fn parse_attachment(mut attachment: Object) -> Result<Attachment, ParseError> {
    let file_id = attachment.id("file_id")?;
    let mut tools = Vec::new();
    for mut tool in attachment
        .objects("tools", MAX_ATTACHMENT_TOOLS)?
        .unwrap_or_default()
    {
        let attachment_tool = tool.type_tag(&[
            ("code_interpreter", AttachmentTool::CodeInterpreter),
            ("file_search", AttachmentTool::FileSearch),
        ])?;
        tool.finish()?;
        tools.push(attachment_tool);
    }
    attachment.finish()?;
    Ok(Attachment { file_id, tools })
}
