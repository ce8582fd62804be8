//! Which rule of a script applies to a request, and what it makes the model do.

use regex::Regex;
use serde_json::Value;
use serde_json::json;

use super::file::FinishFile;
use super::file::FormatFile;
use super::file::HttpErrorFile;
use super::file::UsageFile;
use super::generate;
use super::mention;
use super::prompt::Format;
use super::prompt::Prompt;
use super::prompt::ToolChoice;
use super::script::AnswerRule;
use super::script::Arguments;
use super::script::Break;
use super::script::Calls;
use super::script::Content;
use super::script::Fault;
use super::script::FaultKind;
use super::script::Pace;
use super::script::Rule;
use super::script::ScriptedModel;
use super::script::When;
use super::template::Captured;
use super::template::Found;

/// What the model does with a request.
#[derive(Debug)]
pub(super) enum Decision {
    Answer {
        answer: Answer,
        pace: Pace,
        broken: Option<Break>,
    },
    Error(HttpErrorFile),
}

/// An answer before limits are applied to it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) reasoning: String,
    pub(super) text: String,
    pub(super) refusal: String,
    pub(super) calls: Vec<ToolCall>,
    /// `None`: what the answer itself implies.
    pub(super) finish: Option<FinishFile>,
    pub(super) usage: UsageFile,
}

#[derive(Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// Goes through the rules. `fires` counts a fault: it gets the rule's number, the key, and how
/// often it is to happen, and says whether it happens now.
pub(super) fn decide(
    model: &ScriptedModel,
    prompt: &Prompt,
    prompt_tokens: u32,
    fires: &dyn Fn(usize, String, u32) -> bool,
) -> Decision {
    if let Some(window) = model
        .context_window
        .filter(|window| prompt_tokens > *window)
    {
        return Decision::Error(context_length(window, prompt_tokens));
    }
    for (index, rule) in model.rules.iter().enumerate() {
        let Some(found) = matches(&rule.when, prompt) else {
            continue;
        };
        let answer = match &rule.answer {
            Some(answer) => match answer_of(answer, rule, prompt, &found) {
                Some(answer) => Some(answer),
                None => continue,
            },
            None => None,
        };
        let fault = rule.fault.as_ref().filter(|fault| {
            applies(fault, prompt_tokens)
                && fault.times.is_none_or(|times| {
                    let key = fault.key.as_ref().map(|key| key.fill(prompt, &found));
                    fires(index, key.unwrap_or_default(), times)
                })
        });
        let broken = match fault.map(|fault| &fault.kind) {
            Some(FaultKind::HttpError(error)) => return Decision::Error(error.clone()),
            Some(FaultKind::ContextLength(limit)) => {
                return Decision::Error(context_length(*limit, prompt_tokens));
            }
            Some(FaultKind::Break(broken)) => Some(*broken),
            None => None,
        };
        // A rule that is only a fault, and did not happen, is passed over.
        if let Some(answer) = answer {
            return Decision::Answer {
                answer,
                pace: rule.pace,
                broken,
            };
        }
    }
    match without_rules(prompt) {
        Some(answer) => Decision::Answer {
            answer,
            pace: Pace::default(),
            broken: None,
        },
        None => Decision::Error(no_rule(&prompt.model)),
    }
}

fn applies(fault: &Fault, prompt_tokens: u32) -> bool {
    match fault.kind {
        FaultKind::ContextLength(limit) => prompt_tokens > limit,
        FaultKind::HttpError(_) | FaultKind::Break(_) => true,
    }
}

fn matches(when: &When, prompt: &Prompt) -> Option<Found> {
    let When {
        user,
        history,
        instructions,
        file,
        offers,
        result,
        turn,
        step,
        format,
    } = when;
    let asked = match prompt.format {
        Format::Text => FormatFile::Text,
        Format::JsonObject => FormatFile::JsonObject,
        Format::JsonSchema(_) => FormatFile::JsonSchema,
    };
    let fits = turn.contains(prompt.turn)
        && step.contains(prompt.step)
        && format.is_none_or(|format| format == asked)
        && offers.iter().all(|name| prompt.function(name).is_some())
        // A rule about the question must not apply again to the question's tool result.
        && result.is_some() != prompt.results.is_empty();
    if !fits {
        return None;
    }
    let result = match result {
        None => None,
        Some(condition) => {
            let mut candidates = prompt.results.iter().enumerate();
            Some(candidates.find_map(|(index, result)| {
                let named = condition
                    .name
                    .as_ref()
                    .is_none_or(|name| *name == result.name);
                named
                    .then(|| first_match(condition.output.as_ref(), [result.output.as_str()]))
                    .flatten()
                    .map(|found| (index, found))
            })?)
        }
    };
    let file = match file {
        None => None,
        Some(regex) => {
            let mut paths = prompt.files.iter();
            Some(paths.find_map(|path| Some((path.clone(), captured(regex, path)?)))?)
        }
    };
    Some(Found {
        user: first_match(user.as_ref(), [prompt.user.as_str()])?,
        history: first_match(history.as_ref(), prompt.history.iter().map(String::as_str))?,
        instructions: first_match(instructions.as_ref(), [prompt.instructions.as_str()])?,
        file,
        result,
    })
}

/// The captures in the first text that fits; nothing asked for is always found.
fn first_match<'a>(
    regex: Option<&Regex>,
    texts: impl IntoIterator<Item = &'a str>,
) -> Option<Captured> {
    match regex {
        None => Some(Captured::new()),
        Some(regex) => texts.into_iter().find_map(|text| captured(regex, text)),
    }
}

fn captured(regex: &Regex, text: &str) -> Option<Captured> {
    let captures = regex.captures(text)?;
    let groups = regex
        .capture_names()
        .enumerate()
        .flat_map(|(number, name)| {
            let value = captures
                .get(number)
                .map_or_else(String::new, |group| group.as_str().to_owned());
            let by_name = name.map(|name| (name.to_owned(), value.clone()));
            [(number.to_string(), value)].into_iter().chain(by_name)
        });
    Some(groups.collect())
}

/// The answer of a rule, or none when the request does not allow it.
fn answer_of(answer: &AnswerRule, rule: &Rule, prompt: &Prompt, found: &Found) -> Option<Answer> {
    let AnswerRule {
        reasoning,
        content,
        calls,
        finish,
        usage,
    } = answer;
    let mut calls = match calls {
        Calls::None => Vec::new(),
        Calls::Listed(calls) => calls
            .iter()
            .map(|call| ToolCall {
                name: call.name.clone(),
                arguments: match &call.arguments {
                    Arguments::Generated => generated_arguments(prompt, &call.name),
                    Arguments::Raw(text) => text.fill(prompt, found),
                    Arguments::Json(value) => value.fill(prompt, found).to_string(),
                },
            })
            .collect(),
        Calls::Mentioned => {
            let calls = mention::calls(prompt);
            if calls.is_empty() {
                return None;
            }
            calls
        }
    };
    if !prompt.parallel {
        calls.truncate(1);
    }
    let refuses = matches!(content, Content::Refusal(_));
    let allowed = match &prompt.tool_choice {
        ToolChoice::Auto => true,
        ToolChoice::None => calls.is_empty(),
        ToolChoice::Required => refuses || !calls.is_empty(),
        ToolChoice::Function(name) => {
            refuses || (!calls.is_empty() && calls.iter().all(|call| call.name == *name))
        }
    };
    if !allowed {
        return None;
    }
    let mut made = Answer {
        reasoning: reasoning
            .as_ref()
            .map(|text| text.fill(prompt, found))
            .unwrap_or_default(),
        calls,
        finish: *finish,
        usage: *usage,
        ..Answer::default()
    };
    match content {
        Content::Nothing => {}
        Content::Refusal(text) => made.refusal = text.fill(prompt, found),
        Content::GeneratedJson => made.text = generated_json(prompt)?,
        Content::Text(text) => {
            made.text = text.fill(prompt, found);
            let json_wanted = prompt.format != Format::Text && rule.when.format.is_none();
            if json_wanted && made.calls.is_empty() && !is_json(&made.text) {
                return None;
            }
        }
    }
    Some(made)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// What a request demands whatever the script says: a forced tool call, or JSON.
fn without_rules(prompt: &Prompt) -> Option<Answer> {
    let forced = match &prompt.tool_choice {
        ToolChoice::Required => prompt
            .functions
            .first()
            .map(|function| function.name.clone()),
        ToolChoice::Function(name) => Some(name.clone()),
        ToolChoice::Auto | ToolChoice::None => None,
    };
    match forced {
        Some(name) => {
            let arguments = generated_arguments(prompt, &name);
            Some(Answer {
                calls: vec![ToolCall { name, arguments }],
                ..Answer::default()
            })
        }
        None => generated_json(prompt).map(|text| Answer {
            text,
            ..Answer::default()
        }),
    }
}

fn generated_arguments(prompt: &Prompt, name: &str) -> String {
    match prompt.function(name) {
        Some(function) => generate::arguments(&function.parameters, &prompt.user).to_string(),
        None => "{}".to_owned(),
    }
}

fn generated_json(prompt: &Prompt) -> Option<String> {
    match &prompt.format {
        Format::Text => None,
        Format::JsonObject => Some(json!({ "answer": prompt.user }).to_string()),
        Format::JsonSchema(schema) => Some(generate::document(schema, &prompt.user).to_string()),
    }
}

fn context_length(limit: u32, tokens: u32) -> HttpErrorFile {
    HttpErrorFile {
        status: 400,
        message: Some(format!(
            "This model's maximum context length is {limit} tokens. However, your messages \
             resulted in {tokens} tokens. Please reduce the length of the messages."
        )),
        kind: Some("invalid_request_error".into()),
        code: Some("context_length_exceeded".into()),
        retry_after: None,
    }
}

fn no_rule(model: &str) -> HttpErrorFile {
    HttpErrorFile {
        status: 400,
        message: Some(format!(
            "No rule of the scripted model `{model}` fits this request."
        )),
        kind: Some("invalid_request_error".into()),
        code: Some("no_rule".into()),
        retry_after: None,
    }
}

/// The body of an error answer.
pub(super) fn error_body(error: &HttpErrorFile) -> Value {
    let kind = error.kind.clone().unwrap_or_else(|| {
        let kind = match error.status {
            429 => "requests",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        kind.to_owned()
    });
    let code = error
        .code
        .clone()
        .or_else(|| (error.status == 429).then(|| "rate_limit_exceeded".to_owned()));
    let message = error.message.clone().unwrap_or_else(|| {
        format!(
            "The scripted model answers with status {} here.",
            error.status
        )
    });
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}
