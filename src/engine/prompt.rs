//! The request of a model turn, rebuilt every turn from what is stored, so that a run can go on
//! after anything. Order and text stay the same from turn to turn, for upstreams that cache
//! prefixes.

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
use crate::engine::history::{PictureError, Renderer, Unit, merge};
use crate::engine::tools::code_interpreter::definition as code_interpreter;
use crate::engine::tools::code_interpreter::workspace::Workspace;
use crate::engine::tools::file_search::definition as file_search;
use crate::files::blobs::Blobs;
use crate::models::{ChatRequest, tokens};
use crate::store::Pool;
use crate::store::messages::Said;
use crate::store::{self, StoreError};

/// How many messages are read at a time; a thread is read only as far back as it fits.
const PAGE: i64 = 1_000;

/// Tool outputs shorter than this are not cut, in bytes.
const UNCUT: usize = 400;

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    /// The newest user message with what follows it is larger than the budget on its own.
    #[error("the prompt does not fit {0} tokens")]
    TooLong(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture could not be read, or there are too many.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// A request and what it is expected to cost.
#[derive(Debug)]
pub(super) struct Prompt {
    /// What is sent upstream; the model name is the run's.
    pub(super) request: ChatRequest,
}

/// What a request is built from, besides the thread.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The run.
    pub(super) run: &'a Run,
    /// The message that the turn itself has said already, which the request leaves out.
    pub(super) said: Option<&'a MessageId>,
    /// The thread's `/mnt/data`, if code_interpreter is offered.
    pub(super) workspace: Option<&'a Workspace>,
    /// How many turns of the run came before.
    pub(super) turn: usize,
    /// Most tokens of the answer.
    pub(super) completion: Option<u32>,
    /// Most bytes that the stored pictures of the prompt have together.
    pub(super) picture_bytes: u64,
}

/// Builds the request for a run's next turn. The prompt takes at most `budget` tokens.
pub(super) async fn build(
    pool: &Pool,
    blobs: &Blobs,
    asked: Asked<'_>,
    budget: Option<u32>,
) -> Result<Prompt, PromptError> {
    let Asked {
        run,
        said,
        workspace,
        turn,
        completion,
        picture_bytes,
    } = asked;
    let config = &*run.config;
    let system = system(config, workspace);
    let units = load(pool, run, budget, said).await?;
    let units = fit(config, &system, units, budget).await?;
    let mut messages = Vec::with_capacity(units.len() + 1);
    if !system.is_empty() {
        messages.push(ChatCompletionRequestMessage::System(
            ChatCompletionRequestSystemMessage {
                content: ChatCompletionRequestSystemMessageContent::Text(system),
                name: None,
            },
        ));
    }
    let mut renderer = Renderer::new(blobs, picture_bytes);
    for unit in units {
        renderer.render(unit, &mut messages).await?;
    }
    Ok(Prompt {
        request: request(config, messages, turn, completion),
    })
}

/// The instructions, and what the tools have to say.
fn system(config: &RunConfig, workspace: Option<&Workspace>) -> String {
    let files = workspace.and_then(Workspace::describe);
    let parts = [Some(config.instructions.clone()), files];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let parts = parts.iter().map(String::as_str);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Reads the thread, newest first, until it is whole or more than the budget can hold.
async fn load(
    pool: &Pool,
    run: &Run,
    budget: Option<u32>,
    said: Option<&MessageId>,
) -> Result<Vec<Unit>, StoreError> {
    let mut wanted = match run.config.truncation {
        Truncation::Auto => usize::MAX,
        Truncation::LastMessages(n) => usize::try_from(n).unwrap_or(usize::MAX),
    };
    let mut messages = Vec::new();
    let mut before = None;
    let mut bytes = 0;
    let whole;
    loop {
        let page = store::messages::newest(pool, &run.project, &run.thread, before, PAGE).await?;
        let full = page.len() == usize::try_from(PAGE).unwrap_or(usize::MAX);
        before = page.last().map(|message| (message.created_at, message.seq));
        let mut cut = false;
        for message in page {
            if Some(&message.id) == said {
                continue;
            }
            // What this run wrote itself is never cut by `last_messages`.
            if message.run.as_ref() != Some(&run.id) {
                if wanted == 0 {
                    cut = true;
                    break;
                }
                wanted -= 1;
            }
            bytes += message.content.iter().map(Content::bytes).sum::<usize>();
            messages.push(message);
        }
        // A token is rarely more than a dozen bytes, so this much is more than enough.
        let enough = budget.is_some_and(|budget| bytes > budget as usize * 12);
        if cut || !full || enough {
            whole = !cut && !full;
            break;
        }
    }
    messages.reverse();
    let oldest: Option<&Said> = messages.first();
    let since = oldest.map(|message| message.created_at).filter(|_| !whole);
    let steps = store::run_steps::tool_calls_since(pool, &run.project, &run.thread, since).await?;
    Ok(merge(messages, steps))
}

/// Cuts the past to the budget: the oldest goes first, but never the newest user message nor what
/// came after it. Of that, big tool outputs are cut in the middle.
async fn fit(
    config: &RunConfig,
    system: &str,
    mut units: Vec<Unit>,
    budget: Option<u32>,
) -> Result<Vec<Unit>, PromptError> {
    let Some(budget) = budget else {
        return Ok(units);
    };
    let fixed = fixed(config, system);
    let overhead = |units: &[Unit]| {
        let images: usize = units.iter().map(Unit::images).sum();
        let messages = units.len() + 1;
        u32::try_from(messages)
            .unwrap_or(u32::MAX)
            .saturating_mul(tokens::PER_MESSAGE * 2)
            + u32::try_from(images)
                .unwrap_or(u32::MAX)
                .saturating_mul(tokens::PER_IMAGE)
            + tokens::PER_PROMPT
    };
    let bound: usize = units.iter().map(Unit::bytes).sum::<usize>() + fixed.len();
    let bound = u32::try_from(bound).unwrap_or(u32::MAX);
    if bound.saturating_add(overhead(&units)) <= budget {
        return Ok(units);
    }

    let model = &config.model;
    tokens::ready(model).await;
    let count = |unit: &Unit| -> u32 {
        unit.texts()
            .map(|text| tokens::count_text(model, text))
            .sum::<u32>()
            + overhead(std::slice::from_ref(unit))
    };
    let base = tokens::count_text(model, &fixed);
    let keep_from = units
        .iter()
        .rposition(|unit| matches!(unit, Unit::User(_)))
        .unwrap_or(units.len().saturating_sub(1));
    let mut kept: u32 = base + units[keep_from..].iter().map(count).sum::<u32>();
    while kept > budget {
        let over = kept - budget;
        let Some(saved) = cut_largest_output(&mut units[keep_from..], model, over) else {
            return Err(PromptError::TooLong(budget));
        };
        kept = kept.saturating_sub(saved);
    }
    let mut first = keep_from;
    while first > 0 {
        let more = count(&units[first - 1]);
        if kept.saturating_add(more) > budget {
            break;
        }
        kept += more;
        first -= 1;
    }
    units.drain(..first);
    Ok(units)
}

/// Shortens the largest tool output by about `over` tokens, or by half; how many tokens that saved.
fn cut_largest_output(units: &mut [Unit], model: &str, over: u32) -> Option<u32> {
    let outputs = units.iter_mut().filter_map(|unit| match unit {
        Unit::Calls { calls, .. } => Some(calls),
        Unit::User(_) | Unit::Assistant(_) => None,
    });
    let outputs = outputs.flatten().map(|call| &mut call.output);
    let largest = outputs
        .max_by_key(|output| output.len())
        .filter(|text| text.len() > UNCUT)?;
    let before = tokens::count_text(model, largest);
    let share = f64::from(before.saturating_sub(over)) / f64::from(before.max(1));
    let target = ((largest.len() as f64 * share * 0.9) as usize).max(UNCUT / 2);
    *largest = cut_in_the_middle(largest, target);
    Some(
        before
            .saturating_sub(tokens::count_text(model, largest))
            .max(1),
    )
}

/// Keeps about `target` bytes, half from each end, and says so in between.
pub(super) fn cut_in_the_middle(text: &str, target: usize) -> String {
    let half = target / 2;
    let head = text.floor_char_boundary(half);
    let tail = text
        .ceil_char_boundary(text.len().saturating_sub(half))
        .max(head);
    let gone = text[head..tail].chars().count();
    format!(
        "{}\n[... {gone} characters left out ...]\n{}",
        &text[..head],
        &text[tail..]
    )
}

/// The part of a prompt that is always there: the system message and tool definitions.
fn fixed(config: &RunConfig, system: &str) -> String {
    let mut text = system.to_owned();
    for tool in config.tools.iter().map(offered) {
        // Close enough: upstreams render definitions in ways of their own.
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
        tools: config.tools.iter().map(offered).collect(),
        aliases: aliases(config),
        // Servers refuse both of these when no tools are offered.
        tool_choice: forced(&config.tool_choice, turn).filter(|_| has_tools),
        parallel_tool_calls: (has_tools && !config.parallel_tool_calls).then_some(false),
        temperature: config.temperature,
        top_p: config.top_p,
        reasoning_effort: config.reasoning_effort.clone(),
        // `auto` leaves the form to the model, as a request without a format does.
        response_format: Some(config.response_format.clone()).filter(Value::is_object),
        max_completion_tokens: completion,
    }
}

/// The names by which models call the built-in tools of a run whatever they are told.
fn aliases(config: &RunConfig) -> Vec<&'static str> {
    let code = code_interpreter::is_meant(config, code_interpreter::ALIAS);
    let search = file_search::is_meant(config, file_search::ALIAS);
    let code = code.then_some(code_interpreter::ALIAS);
    let search = search.then_some(file_search::ALIAS);
    code.into_iter().chain(search).collect()
}

fn offered(tool: &Tool) -> ChatCompletionTools {
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

/// A forced choice holds for the first turn; held on to, the run would never end.
fn forced(choice: &ToolChoice, turn: usize) -> Option<ChatCompletionToolChoiceOption> {
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
    use crate::engine::history::Called;

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

    fn said(text: &str) -> Unit {
        Unit::Assistant(text.into())
    }

    fn asked(text: &str) -> Unit {
        Unit::User(vec![Content::text(text)])
    }

    fn called(output: String) -> Unit {
        let calls = vec![Called {
            id: "call_1".into(),
            name: "f".into(),
            arguments: "{}".into(),
            output,
        }];
        Unit::Calls {
            text: String::new(),
            calls,
        }
    }

    #[tokio::test]
    async fn the_oldest_goes_first_and_the_newest_question_stays() {
        let words = "word ".repeat(200);
        let units = vec![asked(&words), said(&words), asked("and now?")];
        let whole = fit(&config(), "Be brief.", units.clone(), Some(10_000))
            .await
            .expect("fits");
        assert_eq!(whole.len(), 3);
        let cut = fit(&config(), "Be brief.", units.clone(), Some(300))
            .await
            .expect("fits after cutting");
        assert_eq!(cut.len(), 2, "the first question goes");
        let cut = fit(&config(), "Be brief.", units, Some(60))
            .await
            .expect("fits after cutting");
        assert!(matches!(cut.as_slice(), [Unit::User(_)]));
    }

    #[tokio::test]
    async fn a_big_tool_output_is_cut_in_the_middle() {
        let output = format!("begin {} end", "filler ".repeat(3_000));
        let units = vec![asked("go"), called(output)];
        let cut = fit(&config(), "Be brief.", units, Some(500))
            .await
            .expect("fits after cutting");
        let [_, Unit::Calls { calls, .. }] = cut.as_slice() else {
            panic!("{cut:?}")
        };
        let output = calls[0].output.as_str();
        assert!(output.starts_with("begin") && output.ends_with("end"));
        assert!(output.contains("characters left out"));
        assert!(tokens::count_text("gpt-4o", output) < 500);
    }

    #[tokio::test]
    async fn a_question_larger_than_the_budget_is_refused() {
        let units = vec![asked(&"word ".repeat(1_000))];
        let refused = fit(&config(), "Be brief.", units, Some(256)).await;
        assert!(matches!(refused, Err(PromptError::TooLong(256))));
    }
}
