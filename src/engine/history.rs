//! What a thread's past looks like to a model, before it is cut to size.

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
use crate::store::messages::Said;

/// Largest stored picture that is sent to a model.
const IMAGE_MAX: u64 = 20 << 20;

/// A piece of the past that stays together or goes together.
#[derive(Debug, Clone)]
pub(super) enum Unit {
    /// What a person said.
    User(Vec<Content>),
    /// What the assistant said without calling tools.
    Assistant(String),
    /// A turn that called tools: what was said before, the calls, and their outputs.
    Calls {
        /// Text before the calls; may be empty.
        text: String,
        /// The calls.
        calls: Vec<Called>,
    },
}

/// A call with its output, as the model that made it sees it.
#[derive(Debug, Clone)]
pub(super) struct Called {
    /// `call_…`.
    pub(super) id: String,
    /// The function.
    pub(super) name: String,
    /// JSON text.
    pub(super) arguments: String,
    /// What came of it.
    pub(super) output: String,
}

impl Called {
    /// `None` for a call without output.
    fn of(call: ToolCall) -> Option<Self> {
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
                output: code_interpreter::told(&call)?,
            },
            ToolCallBody::FileSearch(call) => Self {
                id,
                output: file_search::told(&call)?,
                name: file_search::NAME.to_owned(),
                arguments: call.arguments,
            },
        })
    }
}

impl Unit {
    /// Length of all text in bytes, an upper bound of its tokens.
    pub(super) fn bytes(&self) -> usize {
        self.texts().map(str::len).sum()
    }

    /// How many pictures there are.
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

    /// All text that a model reads.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let (parts, text, calls): (&[Content], &str, &[Called]) = match self {
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

/// Merges messages and tool calls, both oldest first, into what a model is to read.
///
/// Calls without outputs are left out: their run was stopped, and no model accepts them.
pub(super) fn merge(messages: Vec<Said>, steps: Vec<RunStep>) -> Vec<Unit> {
    let mut units = Vec::with_capacity(messages.len() + steps.len());
    let mut messages = messages.into_iter().peekable();
    // The run of the assistant message that came last, if nothing came after it.
    let mut speaker: Option<RunId> = None;
    for step in steps {
        while let Some(message) = messages.next_if(|message| message.created_at <= step.created_at)
        {
            speaker = message.run.clone();
            push_message(&mut units, message);
        }
        let StepDetails::ToolCalls { calls } = step.details else {
            continue;
        };
        let calls: Option<Vec<Called>> = calls.into_iter().map(Called::of).collect();
        let Some(calls) = calls.filter(|calls| !calls.is_empty()) else {
            continue;
        };
        // What the same turn said before it called belongs to the call.
        let spoke = speaker.take().is_some_and(|run| run == step.run);
        let text = match units.pop_if(|last| spoke && matches!(last, Unit::Assistant(_))) {
            Some(Unit::Assistant(text)) => text,
            _ => String::new(),
        };
        units.push(Unit::Calls { text, calls });
    }
    for message in messages {
        push_message(&mut units, message);
    }
    units
}

fn push_message(units: &mut Vec<Unit>, message: Said) {
    match message.role {
        Role::User => units.push(Unit::User(message.content)),
        Role::Assistant => {
            let texts = message.content.into_iter().filter_map(|part| match part {
                Content::Text { value, .. } => Some(value),
                Content::Refusal { refusal } => Some(refusal),
                // Models take no pictures from an assistant.
                Content::ImageFile { .. } | Content::ImageUrl { .. } => None,
            });
            units.push(Unit::Assistant(texts.collect::<Vec<_>>().join("\n")));
        }
    }
}

/// Why pictures cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    /// Together they have more bytes than this.
    #[error(
        "The pictures of the prompt have more than {0} bytes together \
         (ASSISTD_MAX_PROMPT_PICTURE_BYTES). A truncation_strategy of last_messages leaves out \
         earlier ones."
    )]
    TooLarge(u64),
    /// One could not be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Writes units as chat messages.
pub(super) struct Renderer<'a> {
    blobs: &'a Blobs,
    /// Most bytes that stored pictures have together: all of them are in memory at once.
    picture_bytes: u64,
    /// How much of that is left.
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

    /// Appends the unit's messages.
    pub(super) async fn render(
        &mut self,
        unit: Unit,
        messages: &mut Vec<ChatCompletionRequestMessage>,
    ) -> Result<(), PictureError> {
        match unit {
            Unit::User(content) => messages.push(self.user(content).await?),
            Unit::Assistant(text) => messages.push(assistant(text, None)),
            Unit::Calls { text, calls } => {
                let called = calls.iter().map(|call| {
                    ChatCompletionMessageToolCalls::Function(ChatCompletionMessageToolCall {
                        id: call.id.clone(),
                        function: FunctionCall {
                            name: call.name.clone(),
                            arguments: call.arguments.clone(),
                        },
                    })
                });
                messages.push(assistant(text, Some(called.collect())));
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

    async fn user(
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
            Content::ImageFile { file, detail } => match self.read(&file).await? {
                Ok(picture) => image_part(data_url(&picture), detail.unwrap_or_default()),
                Err(reason) => text_part(format!("[The picture {file} {reason}.]")),
            },
        })
    }

    /// A stored picture, or what the model is told in its place.
    async fn read(&mut self, file: &FileId) -> Result<Result<Bytes, &'static str>, PictureError> {
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

fn assistant(
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

/// A picture as a data URL, so that the upstream needs no access to us.
fn data_url(picture: &[u8]) -> String {
    let kind = image_type(picture).unwrap_or("application/octet-stream");
    let mut url = format!("data:{kind};base64,");
    base64::engine::general_purpose::STANDARD.encode_string(picture, &mut url);
    url
}
