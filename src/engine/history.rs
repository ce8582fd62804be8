//! A thread's history as a model sees it, before it is truncated to a budget.

use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls,
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestAssistantMessageContent,
    ChatCompletionRequestMessage, ChatCompletionRequestMessageContentPartImage,
    ChatCompletionRequestMessageContentPartText, ChatCompletionRequestToolMessage,
    ChatCompletionRequestToolMessageContent, ChatCompletionRequestUserMessage,
    ChatCompletionRequestUserMessageContent, ChatCompletionRequestUserMessageContentPart,
    FunctionCall, ImageDetail as ChatImageDetail, ImageUrl,
};
use base64::Engine as _;
use bytes::Bytes;

use crate::domain::file::image_type;
use crate::domain::ids::{FileId, RunId};
use crate::domain::message::{Content, ImageDetail, Role};
use crate::domain::run_step::{RunStep, StepDetails};
use crate::domain::tool::{ToolCall, ToolCallBody};
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::file_search::definition as file_search;
use crate::files::blobs::{BlobError, Blobs};
use crate::store::messages::PromptMessage;

const IMAGE_MAX: u64 = 20 << 20;

/// A part of the history that is kept or left out as a whole.
#[derive(Debug, Clone)]
pub(super) enum HistoryItem {
    User(Vec<Content>),
    Assistant(String),
    Calls {
        text: String,
        calls: Vec<CompletedCall>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct CompletedCall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) output: String,
}

impl CompletedCall {
    fn from_call(call: ToolCall) -> Option<Self> {
        let id = call.id;
        Some(match call.body {
            ToolCallBody::Function(call) => Self {
                id,
                name: call.name,
                arguments: call.arguments,
                output: call.output?,
            },
            ToolCallBody::CodeInterpreter(call) => Self {
                id,
                name: code_interpreter::NAME.to_owned(),
                arguments: code_interpreter::arguments(&call.input),
                output: code_interpreter::output_for_model(&call)?,
            },
            ToolCallBody::FileSearch(call) => Self {
                id,
                output: file_search::output_for_model(&call)?,
                name: file_search::NAME.to_owned(),
                arguments: call.arguments,
            },
        })
    }
}

impl HistoryItem {
    /// Length of all text in bytes: an upper bound of its tokens.
    pub(super) fn bytes(&self) -> usize {
        self.texts().map(str::len).sum()
    }

    pub(super) fn images(&self) -> usize {
        match self {
            Self::User(content) => {
                let image = |part: &&Content| {
                    matches!(part, Content::ImageFile { .. } | Content::ImageUrl { .. })
                };
                content.iter().filter(image).count()
            }
            Self::Assistant(_) | Self::Calls { .. } => 0,
        }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let (parts, text, calls): (&[Content], &str, &[CompletedCall]) = match self {
            Self::User(content) => (content, "", &[]),
            Self::Assistant(text) => (&[], text, &[]),
            Self::Calls { text, calls } => (&[], text, calls),
        };
        let parts = parts.iter().filter_map(|part| match part {
            Content::Text { value, .. } => Some(value.as_str()),
            Content::Refusal { refusal } => Some(refusal.as_str()),
            Content::ImageFile { .. } | Content::ImageUrl { .. } => None,
        });
        let calls = calls
            .iter()
            .flat_map(|call| [&*call.name, &*call.arguments, &*call.output]);
        parts.chain([text]).chain(calls)
    }
}

/// Merges messages and steps of tool calls, both oldest first.
///
/// Calls without outputs are left out: their run was stopped, and upstreams refuse such calls.
pub(super) fn merge(messages: Vec<PromptMessage>, steps: Vec<RunStep>) -> Vec<HistoryItem> {
    let mut items = Vec::with_capacity(messages.len() + steps.len());
    let mut messages = messages.into_iter().peekable();
    let mut last_run: Option<RunId> = None;
    for step in steps {
        while let Some(message) = messages.next_if(|message| message.created_at <= step.created_at)
        {
            last_run = message.run.clone();
            push_message(&mut items, message);
        }
        let StepDetails::ToolCalls { calls } = step.details else {
            continue;
        };
        let calls: Option<Vec<CompletedCall>> =
            calls.into_iter().map(CompletedCall::from_call).collect();
        let Some(calls) = calls.filter(|calls| !calls.is_empty()) else {
            continue;
        };
        // The text that the same turn wrote before its calls belongs to them.
        let has_text = last_run.take().is_some_and(|run| run == step.run);
        let text = match items.pop_if(|last| has_text && matches!(last, HistoryItem::Assistant(_)))
        {
            Some(HistoryItem::Assistant(text)) => text,
            _ => String::new(),
        };
        items.push(HistoryItem::Calls { text, calls });
    }
    for message in messages {
        push_message(&mut items, message);
    }
    items
}

fn push_message(items: &mut Vec<HistoryItem>, message: PromptMessage) {
    match message.role {
        Role::User => items.push(HistoryItem::User(message.content)),
        Role::Assistant => {
            let texts = message.content.into_iter().filter_map(|part| match part {
                Content::Text { value, .. } => Some(value),
                Content::Refusal { refusal } => Some(refusal),
                Content::ImageFile { .. } | Content::ImageUrl { .. } => None,
            });
            items.push(HistoryItem::Assistant(texts.collect::<Vec<_>>().join("\n")));
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error(
        "The pictures of the prompt have more than {0} bytes together \
         (ASSISTD_MAX_PROMPT_PICTURE_BYTES). A truncation_strategy of last_messages leaves out \
         earlier ones."
    )]
    TooLarge(u64),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

pub(super) struct Renderer<'a> {
    blobs: &'a Blobs,
    /// Most bytes of stored pictures together: all of them are in memory at once.
    picture_bytes: u64,
    left: u64,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(blobs: &'a Blobs, picture_bytes: u64) -> Self {
        Self {
            blobs,
            picture_bytes,
            left: picture_bytes,
        }
    }

    pub(super) async fn render(
        &mut self,
        item: HistoryItem,
        messages: &mut Vec<ChatCompletionRequestMessage>,
    ) -> Result<(), PictureError> {
        match item {
            HistoryItem::User(content) => messages.push(self.user_message(content).await?),
            HistoryItem::Assistant(text) => messages.push(assistant_message(text, None)),
            HistoryItem::Calls { text, calls } => {
                let chat_calls = calls.iter().map(|call| {
                    ChatCompletionMessageToolCalls::Function(ChatCompletionMessageToolCall {
                        id: call.id.clone(),
                        function: FunctionCall {
                            name: call.name.clone(),
                            arguments: call.arguments.clone(),
                        },
                    })
                });
                messages.push(assistant_message(text, Some(chat_calls.collect())));
                messages.extend(calls.into_iter().map(|call| {
                    ChatCompletionRequestMessage::Tool(ChatCompletionRequestToolMessage {
                        content: ChatCompletionRequestToolMessageContent::Text(call.output),
                        tool_call_id: call.id,
                    })
                }));
            }
        }
        Ok(())
    }

    async fn user_message(
        &mut self,
        mut parts: Vec<Content>,
    ) -> Result<ChatCompletionRequestMessage, PictureError> {
        let content = match parts.as_mut_slice() {
            [Content::Text { value, .. }] => {
                ChatCompletionRequestUserMessageContent::Text(std::mem::take(value))
            }
            _ => {
                let mut rendered = Vec::with_capacity(parts.len());
                for part in parts {
                    rendered.push(self.user_part(part).await?);
                }
                ChatCompletionRequestUserMessageContent::Array(rendered)
            }
        };
        Ok(ChatCompletionRequestMessage::User(
            ChatCompletionRequestUserMessage {
                content,
                name: None,
            },
        ))
    }

    async fn user_part(
        &mut self,
        part: Content,
    ) -> Result<ChatCompletionRequestUserMessageContentPart, PictureError> {
        Ok(match part {
            Content::Text { value, .. } => text_part(value),
            Content::Refusal { refusal } => text_part(refusal),
            Content::ImageUrl { url, detail } => image_part(url, detail),
            Content::ImageFile { file, detail } => match self.read_picture(&file).await? {
                Ok(picture) => image_part(data_url(&picture), detail.unwrap_or_default()),
                Err(reason) => text_part(format!("[The picture {file} {reason}.]")),
            },
        })
    }

    /// Reads a stored picture. The inner error is a reason that the model sees in its place.
    async fn read_picture(
        &mut self,
        file: &FileId,
    ) -> Result<Result<Bytes, &'static str>, PictureError> {
        let limit = IMAGE_MAX.min(self.left);
        match self.blobs.read(file.as_str(), limit).await {
            Ok(picture) => {
                self.left -= picture.len() as u64;
                Ok(Ok(picture))
            }
            Err(BlobError::Missing { .. }) => Ok(Err("is no longer available")),
            Err(BlobError::TooLarge { .. }) => {
                let size = self.blobs.size(file.as_str()).await?;
                match size.is_some_and(|size| size <= IMAGE_MAX) {
                    true => Err(PictureError::TooLarge(self.picture_bytes)),
                    false => Ok(Err("is too large to be shown")),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn assistant_message(
    text: String,
    tool_calls: Option<Vec<ChatCompletionMessageToolCalls>>,
) -> ChatCompletionRequestMessage {
    let content = (!text.is_empty() || tool_calls.is_none())
        .then_some(ChatCompletionRequestAssistantMessageContent::Text(text));
    ChatCompletionRequestMessage::Assistant(ChatCompletionRequestAssistantMessage {
        content,
        tool_calls,
        ..Default::default()
    })
}

fn text_part(text: String) -> ChatCompletionRequestUserMessageContentPart {
    ChatCompletionRequestUserMessageContentPart::Text(ChatCompletionRequestMessageContentPartText {
        text,
        prompt_cache_breakpoint: None,
    })
}

fn image_part(url: String, detail: ImageDetail) -> ChatCompletionRequestUserMessageContentPart {
    let detail = Some(match detail {
        ImageDetail::Auto => ChatImageDetail::Auto,
        ImageDetail::Low => ChatImageDetail::Low,
        ImageDetail::High => ChatImageDetail::High,
    });
    ChatCompletionRequestUserMessageContentPart::ImageUrl(
        ChatCompletionRequestMessageContentPartImage {
            image_url: ImageUrl { url, detail },
            prompt_cache_breakpoint: None,
        },
    )
}

/// A picture as a data URL, so that the upstream needs no access to this server.
fn data_url(picture: &[u8]) -> String {
    let kind = image_type(picture).unwrap_or("application/octet-stream");
    let mut url = format!("data:{kind};base64,");
    base64::engine::general_purpose::STANDARD.encode_string(picture, &mut url);
    url
}
