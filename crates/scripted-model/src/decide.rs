//! Selects the rule of a script that applies to a request, and makes its answer.

use regex::Regex;
use serde_json::json;

use crate::answer::{Answer, ToolCall};
use crate::generate;
use crate::http_error::HttpError;
use crate::mentioned;
use crate::message_values::MessageValues;
use crate::prompt::{Format, Prompt, ToolChoice};
use crate::script::{
    AnswerRule, Arguments, Calls, Content, Cutoff, Fault, FaultKind, Model, Pace, Rule, When,
};
use crate::template::{Groups, Matches, Source};
use crate::yaml::FormatYaml;

#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) answer: Answer,
    pub(crate) pace: Pace,
    pub(crate) cutoff: Option<Cutoff>,
}

/// Called as `is_fault_due(rule, key, times)`: counts an occurrence of the rule's fault under this
/// key, and returns whether it is among the first `times`.
type IsFaultDue<'a> = dyn Fn(usize, String, u32) -> bool + 'a;

/// Goes through the rules in order.
///
/// # Errors
/// When a rule's fault is an error answer, the prompt exceeds the context window, or no rule fits.
pub(crate) fn decide(
    model: &Model,
    prompt: &Prompt,
    prompt_tokens: u32,
    is_fault_due: &IsFaultDue<'_>,
) -> Result<Decision, HttpError> {
    let window = model.context_window.unwrap_or(u32::MAX);
    if prompt_tokens > window {
        return Err(HttpError::context_length(window, prompt_tokens));
    }
    for (index, rule) in model.rules.iter().enumerate() {
        let Some(matches) = matches(&rule.when, prompt) else {
            continue;
        };
        let answer = match &rule.answer {
            Some(answer) => match answer_of(answer, rule, prompt, &matches) {
                Some(answer) => Some(answer),
                None => continue,
            },
            None => None,
        };
        let fault = rule.fault.as_ref().filter(|fault| {
            is_applicable(fault, prompt_tokens)
                && fault.times.is_none_or(|times| {
                    let key = fault.key.as_ref().map(|key| key.fill(prompt, &matches));
                    is_fault_due(index, key.unwrap_or_default(), times)
                })
        });
        let cutoff = match fault.map(|fault| &fault.kind) {
            Some(FaultKind::HttpError(error)) => return Err(error.clone()),
            Some(FaultKind::ContextLength(limit)) => {
                return Err(HttpError::context_length(*limit, prompt_tokens));
            }
            Some(FaultKind::Cutoff(cutoff)) => Some(*cutoff),
            None => None,
        };
        // A rule that is only a fault is passed over when the fault does not occur.
        if let Some(answer) = answer {
            return Ok(Decision {
                answer,
                pace: rule.pace,
                cutoff,
            });
        }
    }
    let answer = demanded(prompt).ok_or_else(|| HttpError::no_rule(&prompt.model))?;
    Ok(Decision {
        answer,
        pace: Pace::default(),
        cutoff: None,
    })
}

fn is_applicable(fault: &Fault, prompt_tokens: u32) -> bool {
    match fault.kind {
        FaultKind::ContextLength(limit) => prompt_tokens > limit,
        FaultKind::HttpError(_) | FaultKind::Cutoff(_) => true,
    }
}

/// What the conditions match in the request; `None` unless all of them hold.
fn matches(when: &When, prompt: &Prompt) -> Option<Matches> {
    let format = match prompt.format {
        Format::Text => FormatYaml::Text,
        Format::JsonObject => FormatYaml::JsonObject,
        Format::JsonSchema(_) => FormatYaml::JsonSchema,
    };
    let holds = when.turn.contains(prompt.turn)
        && when.step.contains(prompt.step)
        && when.format.is_none_or(|wanted| wanted == format)
        && when.offers.iter().all(|name| prompt.function(name).is_some())
        // A rule for a message must not apply again to the results of its own calls.
        && when.result.is_some() != prompt.results.is_empty();
    if !holds {
        return None;
    }
    let mut matches = Matches::default();
    if let Some(condition) = &when.result {
        let mut results = prompt.results.iter().enumerate();
        let (index, groups) = results.find_map(|(index, result)| {
            let is_named = condition
                .name
                .as_ref()
                .is_none_or(|name| *name == result.name);
            let groups = match &condition.output {
                Some(expression) => groups(expression, &result.output)?,
                None => Groups::new(),
            };
            is_named.then_some((index, groups))
        })?;
        matches.result = Some(index);
        matches.groups.insert(Source::Result, groups);
    }
    if let Some(expression) = &when.file {
        let mut files = prompt.files.iter();
        let (path, groups) = files.find_map(|path| Some((path, groups(expression, path)?)))?;
        matches.file = Some(path.clone());
        matches.groups.insert(Source::File, groups);
    }
    let texts = [
        (Source::User, &when.user, std::slice::from_ref(&prompt.user)),
        (Source::History, &when.history, &prompt.history),
        (
            Source::Instructions,
            &when.instructions,
            std::slice::from_ref(&prompt.instructions),
        ),
    ];
    for (source, expression, texts) in texts {
        if let Some(expression) = expression {
            let groups = texts.iter().find_map(|text| groups(expression, text))?;
            matches.groups.insert(source, groups);
        }
    }
    Some(matches)
}

fn groups(expression: &Regex, text: &str) -> Option<Groups> {
    let captures = expression.captures(text)?;
    let mut groups = Groups::new();
    for (number, name) in expression.capture_names().enumerate() {
        let value = captures.get(number).map_or("", |group| group.as_str());
        groups.insert(number.to_string(), value.to_owned());
        groups.extend(name.map(|name| (name.to_owned(), value.to_owned())));
    }
    Some(groups)
}

/// The answer of a rule; `None` if the request does not allow it.
fn answer_of(
    answer: &AnswerRule,
    rule: &Rule,
    prompt: &Prompt,
    matches: &Matches,
) -> Option<Answer> {
    let calls = calls_of(&answer.calls, prompt, matches)?;
    let is_refusal = matches!(answer.content, Content::Refusal(_));
    let is_allowed = match &prompt.tool_choice {
        ToolChoice::Auto => true,
        ToolChoice::None => calls.is_empty(),
        ToolChoice::Required => is_refusal || !calls.is_empty(),
        ToolChoice::Function(name) => {
            is_refusal || (!calls.is_empty() && calls.iter().all(|call| call.name == *name))
        }
    };
    if !is_allowed {
        return None;
    }
    let reasoning = answer.reasoning.as_ref();
    let mut made = Answer {
        reasoning: reasoning
            .map(|text| text.fill(prompt, matches))
            .unwrap_or_default(),
        calls,
        finish: answer.finish,
        usage: answer.usage,
        ..Answer::default()
    };
    match &answer.content {
        Content::Nothing => {}
        Content::Refusal(text) => made.refusal = text.fill(prompt, matches),
        Content::GeneratedJson => made.text = generated_json(prompt)?,
        Content::Text(text) => {
            made.text = text.fill(prompt, matches);
            let is_json_demanded = prompt.format != Format::Text && rule.when.format.is_none();
            if is_json_demanded && made.calls.is_empty() && !is_json(&made.text) {
                return None;
            }
        }
    }
    Some(made)
}

/// The calls of a rule; `None` if it calls what the message speaks of and that is nothing.
fn calls_of(calls: &Calls, prompt: &Prompt, matches: &Matches) -> Option<Vec<ToolCall>> {
    let mut calls: Vec<ToolCall> = match calls {
        Calls::None => return Some(Vec::new()),
        Calls::Listed(calls) => calls
            .iter()
            .map(|call| ToolCall {
                name: call.name.clone(),
                arguments: match &call.arguments {
                    Arguments::Generated => generated_arguments(prompt, &call.name),
                    Arguments::Raw(text) => text.fill(prompt, matches),
                    Arguments::Json(value) => value.fill(prompt, matches).to_string(),
                },
            })
            .collect(),
        Calls::Mentioned => mentioned::calls(prompt),
    };
    if !prompt.allows_parallel_calls {
        calls.truncate(1);
    }
    (!calls.is_empty()).then_some(calls)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// What a request demands when no rule fits: a forced tool call, or JSON.
fn demanded(prompt: &Prompt) -> Option<Answer> {
    let forced = match &prompt.tool_choice {
        ToolChoice::Required => prompt.functions.first().map(|function| &function.name),
        ToolChoice::Function(name) => Some(name),
        ToolChoice::Auto | ToolChoice::None => None,
    };
    let Some(name) = forced else {
        let text = generated_json(prompt)?;
        return Some(Answer {
            text,
            ..Answer::default()
        });
    };
    let call = ToolCall {
        name: name.clone(),
        arguments: generated_arguments(prompt, name),
    };
    Some(Answer {
        calls: vec![call],
        ..Answer::default()
    })
}

fn generated_arguments(prompt: &Prompt, name: &str) -> String {
    let Some(function) = prompt.function(name) else {
        return "{}".to_owned();
    };
    generate::arguments(&function.parameters, MessageValues::of(&prompt.user)).to_string()
}

fn generated_json(prompt: &Prompt) -> Option<String> {
    let document = match &prompt.format {
        Format::Text => return None,
        Format::JsonObject => json!({ "answer": prompt.user }),
        Format::JsonSchema(schema) => generate::document(schema, MessageValues::of(&prompt.user)),
    };
    Some(document.to_string())
}
