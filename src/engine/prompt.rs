//! Builds the request of a model call. It is rebuilt from storage for every turn, so that a
//! recovered run needs nothing of its earlier worker. Order and text are the same from turn to turn,
//! for upstreams that cache prefixes.

use async_openai::types::chat::{
    ChatCompletionNamedToolChoice, ChatCompletionRequestMessage,
    ChatCompletionRequestSystemMessage, ChatCompletionRequestSystemMessageContent,
    ChatCompletionTool, ChatCompletionToolChoiceOption, ChatCompletionTools, FunctionName,
    FunctionObject, ToolChoiceOptions,
};
use serde_json::Value;

use crate::domain::ids::MessageId;
use crate::domain::message::Content;
use crate::domain::run::{Run, RunConfig, Truncation};
use crate::domain::tool::{Tool, ToolChoice};
use crate::engine::history::{HistoryItem, PictureError, Renderer, merge};
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::code_interpreter::workspace::Workspace;
use crate::engine::tools::file_search::definition as file_search;
use crate::engine::truncate::truncate_middle;
use crate::files::blobs::Blobs;
use crate::models::{ChatRequest, tokens};
use crate::store::Pool;
use crate::store::messages::PromptMessage;
use crate::store::{self, StoreError};

/// Messages read in one query. A thread is read only as far back as the prompt can hold.
const PAGE: i64 = 1_000;

/// Tool outputs up to this length are never truncated, in bytes.
const MIN_TRUNCATED: usize = 400;

#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    #[error("the prompt does not fit {0} tokens")]
    TooLong(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Picture(#[from] PictureError),
}

#[derive(Debug)]
pub(super) struct PromptInput<'a> {
    pub(super) run: &'a Run,
    /// The message that the current turn has committed before its calls. Left out of the prompt.
    pub(super) committed_message: Option<&'a MessageId>,
    pub(super) workspace: Option<&'a Workspace>,
    pub(super) turn: usize,
    pub(super) completion_tokens: Option<u32>,
    pub(super) picture_bytes: u64,
}

pub(super) async fn build(
    pool: &Pool,
    blobs: &Blobs,
    input: PromptInput<'_>,
    budget: Option<u32>,
) -> Result<ChatRequest, PromptError> {
    let PromptInput {
        run,
        committed_message,
        workspace,
        turn,
        completion_tokens,
        picture_bytes,
    } = input;
    let config = &*run.config;
    let system = system_message(config, workspace);
    let items = load_history(pool, run, budget, committed_message).await?;
    let items = fit_token_budget(config, &system, items, budget).await?;
    let mut messages = Vec::with_capacity(items.len() + 1);
    if !system.is_empty() {
        messages.push(ChatCompletionRequestMessage::System(
            ChatCompletionRequestSystemMessage {
                content: ChatCompletionRequestSystemMessageContent::Text(system),
                name: None,
            },
        ));
    }
    let mut renderer = Renderer::new(blobs, picture_bytes);
    for item in items {
        renderer.render(item, &mut messages).await?;
    }
    Ok(request(config, messages, turn, completion_tokens))
}

fn system_message(config: &RunConfig, workspace: Option<&Workspace>) -> String {
    let files = workspace.and_then(Workspace::describe);
    let parts = [Some(config.instructions.clone()), files];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = parts.iter().map(String::as_str);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n")
}

async fn load_history(
    pool: &Pool,
    run: &Run,
    budget: Option<u32>,
    committed_message: Option<&MessageId>,
) -> Result<Vec<HistoryItem>, StoreError> {
    let mut remaining = match run.config.truncation {
        Truncation::Auto => usize::MAX,
        Truncation::LastMessages(n) => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let mut messages = Vec::new();
    let mut before = None;
    let mut bytes = 0;
    let is_complete;
    loop {
        let page = store::messages::newest(pool, &run.project, &run.thread, before, PAGE).await?;
        let is_full_page = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        before = page.last().map(|message| (message.created_at, message.seq));
        let mut is_cut = false;
        for message in page {
            if Some(&message.id) == committed_message {
                continue;
            }
            // `last_messages` does not count the messages of the run itself.
            if message.run.as_ref() != Some(&run.id) {
                if remaining == 0 {
                    is_cut = true;
                    break;
                }
                remaining -= 1;
            }
            bytes += message.content.iter().map(Content::bytes).sum::<usize>();
            messages.push(message);
        }
        // A token rarely has more than twelve bytes, so this is always enough.
        let is_enough = budget.is_some_and(|budget| bytes > budget as usize * 12);
        if is_cut || !is_full_page || is_enough {
            is_complete = !is_cut && !is_full_page;
            break;
        }
    }
    messages.reverse();
    let oldest: Option<&PromptMessage> = messages.first();
    let since = oldest
        .map(|message| message.created_at)
        .filter(|_| !is_complete);
    let steps = store::run_steps::tool_calls_since(pool, &run.project, &run.thread, since).await?;
    Ok(merge(messages, steps))
}

/// Truncates the history to the budget. The oldest items are left out first, but never the newest
/// user message nor anything after it: of that, large tool outputs are truncated.
async fn fit_token_budget(
    config: &RunConfig,
    system: &str,
    mut items: Vec<HistoryItem>,
    budget: Option<u32>,
) -> Result<Vec<HistoryItem>, PromptError> {
    let Some(budget) = budget else {
        return Ok(items);
    };
    let fixed = fixed_text(config, system);
    let overhead = |items: &[HistoryItem]| {
        let images: usize = items.iter().map(HistoryItem::images).sum();
        let messages = items.len() + 1;
        u32::try_from(messages)
            .unwrap_or(u32::MAX)
            .saturating_mul(tokens::PER_MESSAGE * 2)
            + u32::try_from(images)
                .unwrap_or(u32::MAX)
                .saturating_mul(tokens::PER_IMAGE)
            + tokens::PER_PROMPT
    };
    let max_tokens: usize = items.iter().map(HistoryItem::bytes).sum::<usize>() + fixed.len();
    let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
    if max_tokens.saturating_add(overhead(&items)) <= budget {
        return Ok(items);
    }

    let model = &config.model;
    tokens::ready(model).await;
    let count = |item: &HistoryItem| -> u32 {
        item.texts()
            .map(|text| tokens::count_text(model, text))
            .sum::<u32>()
            + overhead(std::slice::from_ref(item))
    };
    let fixed_tokens = tokens::count_text(model, &fixed);
    let keep_from = items
        .iter()
        .rposition(|item| matches!(item, HistoryItem::User(_)))
        .unwrap_or(items.len().saturating_sub(1));
    let mut kept: u32 = fixed_tokens + items[keep_from..].iter().map(count).sum::<u32>();
    while kept > budget {
        let excess = kept - budget;
        let Some(saved) = truncate_largest_output(&mut items[keep_from..], model, excess) else {
            return Err(PromptError::TooLong(budget));
        };
        kept = kept.saturating_sub(saved);
    }
    let mut first = keep_from;
    while first > 0 {
        let more = count(&items[first - 1]);
        if kept.saturating_add(more) > budget {
            break;
        }
        kept += more;
        first -= 1;
    }
    items.drain(..first);
    Ok(items)
}

/// Truncates the largest tool output by about `excess` tokens, and returns how many that saved.
/// `None` if no output is long enough.
fn truncate_largest_output(items: &mut [HistoryItem], model: &str, excess: u32) -> Option<u32> {
    let outputs = items.iter_mut().filter_map(|item| match item {
        HistoryItem::Calls { calls, .. } => Some(calls),
        HistoryItem::User(_) | HistoryItem::Assistant(_) => None,
    });
    let outputs = outputs.flatten().map(|call| &mut call.output);
    let largest = outputs
        .max_by_key(|output| output.len())
        .filter(|text| text.len() > MIN_TRUNCATED)?;
    let before = tokens::count_text(model, largest);
    let share = f64::from(before.saturating_sub(excess)) / f64::from(before.max(1));
    let target = ((largest.len() as f64 * share * 0.9) as usize).max(MIN_TRUNCATED / 2);
    *largest = truncate_middle(largest, target);
    Some(
        before
            .saturating_sub(tokens::count_text(model, largest))
            .max(1),
    )
}

fn fixed_text(config: &RunConfig, system: &str) -> String {
    let mut text = system.to_owned();
    for tool in config.tools.iter().map(tool_definition) {
        // An estimate: each upstream renders definitions in its own way.
        text.push_str(&serde_json::to_string(&tool).unwrap_or_default());
    }
    text
}

fn request(
    config: &RunConfig,
    messages: Vec<ChatCompletionRequestMessage>,
    turn: usize,
    completion: Option<u32>,
) -> ChatRequest {
    let has_tools = !config.tools.is_empty();
    ChatRequest {
        model: config.model.clone(),
        messages,
        tools: config.tools.iter().map(tool_definition).collect(),
        aliases: aliases(config),
        // Upstreams refuse both of these when no tools are offered.
        tool_choice: tool_choice(&config.tool_choice, turn).filter(|_| has_tools),
        parallel_tool_calls: (has_tools && !config.parallel_tool_calls).then_some(false),
        temperature: config.temperature,
        top_p: config.top_p,
        reasoning_effort: config.reasoning_effort.clone(),
        // `auto` means the same as no format.
        response_format: Some(config.response_format.clone()).filter(Value::is_object),
        max_completion_tokens: completion,
    }
}

fn aliases(config: &RunConfig) -> Vec<&'static str> {
    let code = code_interpreter::is_call_to(config, code_interpreter::ALIAS);
    let search = file_search::is_call_to(config, file_search::ALIAS);
    let code = code.then_some(code_interpreter::ALIAS);
    let search = search.then_some(file_search::ALIAS);
    code.into_iter().chain(search).collect()
}

fn tool_definition(tool: &Tool) -> ChatCompletionTools {
    match tool {
        Tool::Function { function } => ChatCompletionTools::Function(ChatCompletionTool {
            function: FunctionObject {
                name: function.name.clone(),
                description: function.description.clone(),
                parameters: Some(function.parameters.clone()),
                strict: function.strict.then_some(true),
            },
        }),
        Tool::CodeInterpreter => code_interpreter::definition(),
        Tool::FileSearch { .. } => file_search::definition(),
    }
}

/// A forced choice applies to the first turn only: otherwise the run would never end.
fn tool_choice(choice: &ToolChoice, turn: usize) -> Option<ChatCompletionToolChoiceOption> {
    let mode = |mode| Some(ChatCompletionToolChoiceOption::Mode(mode));
    let function = |name: &str| {
        let function = FunctionName { name: name.into() };
        let choice = ChatCompletionNamedToolChoice { function };
        Some(ChatCompletionToolChoiceOption::Function(choice))
    };
    match choice {
        ToolChoice::None => mode(ToolChoiceOptions::None),
        ToolChoice::Required if turn == 0 => mode(ToolChoiceOptions::Required),
        ToolChoice::Function(name) if turn == 0 => function(name),
        ToolChoice::CodeInterpreter if turn == 0 => function(code_interpreter::NAME),
        ToolChoice::FileSearch if turn == 0 => function(file_search::NAME),
        ToolChoice::Auto
        | ToolChoice::Required
        | ToolChoice::Function(_)
        | ToolChoice::CodeInterpreter
        | ToolChoice::FileSearch => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::history::CompletedCall;

    fn config() -> RunConfig {
        RunConfig {
            model: "gpt-4o".into(),
            instructions: "Be brief.".into(),
            tools: Vec::new(),
            temperature: None,
            top_p: None,
            reasoning_effort: None,
            response_format: serde_json::json!("auto"),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            max_prompt_tokens: None,
            max_completion_tokens: None,
            truncation: Truncation::Auto,
        }
    }

    fn assistant_message(text: &str) -> HistoryItem {
        HistoryItem::Assistant(text.into())
    }

    fn user_message(text: &str) -> HistoryItem {
        HistoryItem::User(vec![Content::text(text)])
    }

    fn tool_call(output: String) -> HistoryItem {
        let calls = vec![CompletedCall {
            id: "call_1".into(),
            name: "f".into(),
            arguments: "{}".into(),
            output,
        }];
        HistoryItem::Calls {
            text: String::new(),
            calls,
        }
    }

    #[tokio::test]
    async fn the_oldest_goes_first_and_the_newest_question_stays() {
        let words = "word ".repeat(200);
        let items = vec![
            user_message(&words),
            assistant_message(&words),
            user_message("and now?"),
        ];
        let whole = fit_token_budget(&config(), "Be brief.", items.clone(), Some(10_000))
            .await
            .expect("fits");
        assert_eq!(whole.len(), 3);
        let cut = fit_token_budget(&config(), "Be brief.", items.clone(), Some(300))
            .await
            .expect("fits after cutting");
        assert_eq!(cut.len(), 2, "the first question goes");
        let cut = fit_token_budget(&config(), "Be brief.", items, Some(60))
            .await
            .expect("fits after cutting");
        assert!(matches!(cut.as_slice(), [HistoryItem::User(_)]));
    }

    #[tokio::test]
    async fn a_big_tool_output_is_cut_in_the_middle() {
        let output = format!("begin {} end", "filler ".repeat(3_000));
        let items = vec![user_message("go"), tool_call(output)];
        let cut = fit_token_budget(&config(), "Be brief.", items, Some(500))
            .await
            .expect("fits after cutting");
        let [_, HistoryItem::Calls { calls, .. }] = cut.as_slice() else {
            panic!("{cut:?}")
        };
        let output = calls[0].output.as_str();
        assert!(output.starts_with("begin") && output.ends_with("end"));
        assert!(output.contains("characters left out"));
        assert!(tokens::count_text("gpt-4o", output) < 500);
    }

    #[tokio::test]
    async fn a_question_larger_than_the_budget_is_refused() {
        let items = vec![user_message(&"word ".repeat(1_000))];
        let refused = fit_token_budget(&config(), "Be brief.", items, Some(256)).await;
        assert!(matches!(refused, Err(PromptError::TooLong(256))));
    }
}
