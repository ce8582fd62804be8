//! A script that was checked: its rules with compiled expressions and texts.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde_json::Map;
use serde_json::Value;

use super::file::CallFile;
use super::file::Count;
use super::file::FaultFile;
use super::file::FinishFile;
use super::file::FormatFile;
use super::file::HttpErrorFile;
use super::file::ModelFile;
use super::file::RuleFile;
use super::file::ScriptFile;
use super::file::ThenFile;
use super::file::UsageFile;
use super::file::WhenFile;
use super::prompt::Prompt;
use super::template::Found;
use super::template::Source;
use super::template::Template;

/// The models of a script by name, without the `scripted/`.
pub(super) type Script = BTreeMap<String, ScriptedModel>;

#[derive(Debug)]
pub(super) struct ScriptedModel {
    pub(super) context_window: Option<u32>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) when: When,
    /// What the rule answers; a rule that is only a fault has none.
    pub(super) answer: Option<AnswerRule>,
    pub(super) fault: Option<Fault>,
    pub(super) pace: Pace,
}

#[derive(Debug)]
pub(super) struct When {
    pub(super) user: Option<Regex>,
    pub(super) history: Option<Regex>,
    pub(super) instructions: Option<Regex>,
    pub(super) file: Option<Regex>,
    pub(super) offers: Vec<String>,
    pub(super) result: Option<ResultCondition>,
    pub(super) turn: Count,
    pub(super) step: Count,
    pub(super) format: Option<FormatFile>,
}

#[derive(Debug)]
pub(super) struct ResultCondition {
    pub(super) name: Option<String>,
    pub(super) output: Option<Regex>,
}

#[derive(Debug)]
pub(super) struct AnswerRule {
    pub(super) reasoning: Option<Template>,
    pub(super) content: Content,
    pub(super) calls: Calls,
    pub(super) finish: Option<FinishFile>,
    pub(super) usage: UsageFile,
}

#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Text(Template),
    Refusal(Template),
    /// JSON for the requested schema.
    GeneratedJson,
}

#[derive(Debug)]
pub(super) enum Calls {
    None,
    Listed(Vec<CallRule>),
    /// The offered functions that the user's message speaks of.
    Mentioned,
}

#[derive(Debug)]
pub(super) struct CallRule {
    pub(super) name: String,
    pub(super) arguments: Arguments,
}

#[derive(Debug)]
pub(super) enum Arguments {
    /// From the function's schema and the user's message.
    Generated,
    /// Exactly this text, JSON or not.
    Raw(Template),
    Json(ValueTemplate),
}

/// A JSON value whose strings are templates.
#[derive(Debug)]
pub(super) enum ValueTemplate {
    Plain(Value),
    Text(Template),
    List(Vec<ValueTemplate>),
    Object(Vec<(String, ValueTemplate)>),
}

/// How fast an answer comes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// Time to the first token.
    pub(super) latency: Duration,
    /// `None`: all at once.
    pub(super) tokens_per_second: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// How often it happens; always when absent.
    pub(super) times: Option<u32>,
    /// What it is counted by.
    pub(super) key: Option<Template>,
}

#[derive(Clone, Debug)]
pub(super) enum FaultKind {
    HttpError(HttpErrorFile),
    /// The prompt has more tokens than this.
    ContextLength(u32),
    Break(Break),
}

/// An answer that goes wrong after some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) after: u32,
    pub(super) how: BreakKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakKind {
    Disconnect,
    Garbage,
    ErrorEvent,
}

impl ValueTemplate {
    pub(super) fn fill(&self, prompt: &Prompt, found: &Found) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.fill_value(prompt, found),
            Self::List(items) => items.iter().map(|item| item.fill(prompt, found)).collect(),
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.fill(prompt, found)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// Reads and checks a script.
///
/// # Errors
/// Names the model, the rule and the field that is wrong, and why.
pub(super) fn parse(yaml: &str) -> Result<Script, String> {
    let file: ScriptFile = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
    file.models
        .into_iter()
        .map(|(name, model)| {
            let model =
                compile_model(model).map_err(|reason| format!("model `{name}`: {reason}"))?;
            Ok((name, model))
        })
        .collect()
}

fn compile_model(file: ModelFile) -> Result<ScriptedModel, String> {
    let ModelFile {
        context_window,
        latency,
        tokens_per_second,
        rules,
    } = file;
    let pace = Pace {
        latency: latency.unwrap_or_default(),
        tokens_per_second: rate(tokens_per_second)?,
    };
    let rules = rules.into_iter().enumerate().map(|(index, rule)| {
        let label = match &rule.name {
            Some(name) => format!("rule {} (`{name}`)", index + 1),
            None => format!("rule {}", index + 1),
        };
        compile_rule(rule, pace).map_err(|reason| format!("{label}: {reason}"))
    });
    Ok(ScriptedModel {
        context_window,
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn compile_rule(file: RuleFile, model_pace: Pace) -> Result<Rule, String> {
    let RuleFile {
        name: _,
        when,
        then,
    } = file;
    let when = compile_when(when)?;
    let ThenFile {
        reasoning,
        text,
        refusal,
        tool_calls,
        call_mentioned,
        generate_json,
        finish,
        usage,
        latency,
        tokens_per_second,
        fault,
    } = then;
    let has_group = |source: Source, group: &str| when.captures(source, group);
    let template = |field: &str, text: Option<String>| {
        text.map(|text| {
            Template::parse(&text, &has_group).map_err(|why| format!("then.{field}: {why}"))
        })
        .transpose()
    };
    let content = match (
        template("text", text)?,
        template("refusal", refusal)?,
        generate_json,
    ) {
        (None, None, false) => Content::Nothing,
        (Some(text), None, false) => Content::Text(text),
        (None, Some(refusal), false) => Content::Refusal(refusal),
        (None, None, true) => Content::GeneratedJson,
        _ => return Err("then: give one of `text`, `refusal` and `generate_json`".into()),
    };
    let calls = match (tool_calls.is_empty(), call_mentioned) {
        (true, false) => Calls::None,
        (true, true) => Calls::Mentioned,
        (false, true) => return Err("then: give `tool_calls` or `call_mentioned`, not both".into()),
        (false, false) => {
            let calls = tool_calls.into_iter().enumerate().map(|(index, call)| {
                compile_call(call, &has_group)
                    .map_err(|why| format!("then.tool_calls[{index}].{why}"))
            });
            Calls::Listed(calls.collect::<Result<_, _>>()?)
        }
    };
    let reasoning = template("reasoning", reasoning)?;
    let empty = matches!(
        (&content, &calls, &reasoning),
        (Content::Nothing, Calls::None, None)
    );
    if empty && fault.is_none() {
        return Err(
            "then: gives no answer; add `text`, `refusal`, `tool_calls`, `call_mentioned`, \
             `generate_json` or `fault`"
                .into(),
        );
    }
    let fault = match fault {
        Some(fault) => {
            let key = template("fault.key", fault.key.clone())?;
            Some(compile_fault(fault, key, empty).map_err(|why| format!("then.fault: {why}"))?)
        }
        None => None,
    };
    let answer = AnswerRule {
        reasoning,
        content,
        calls,
        finish,
        usage: usage.unwrap_or_default(),
    };
    let pace = Pace {
        latency: latency.unwrap_or(model_pace.latency),
        tokens_per_second: rate(tokens_per_second)
            .map_err(|why| format!("then.{why}"))?
            .or(model_pace.tokens_per_second),
    };
    Ok(Rule {
        when,
        answer: (!empty).then_some(answer),
        fault,
        pace,
    })
}

impl When {
    fn captures(&self, source: Source, group: &str) -> bool {
        let regex = match source {
            Source::User => self.user.as_ref(),
            Source::History => self.history.as_ref(),
            Source::Instructions => self.instructions.as_ref(),
            Source::File => self.file.as_ref(),
            Source::Result => self
                .result
                .as_ref()
                .and_then(|result| result.output.as_ref()),
            Source::Arguments | Source::Results | Source::Model | Source::Turn | Source::Step => {
                None
            }
        };
        regex.is_some_and(|regex| match group.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|name| name == group),
        })
    }
}

fn compile_when(file: WhenFile) -> Result<When, String> {
    let WhenFile {
        user,
        history,
        instructions,
        file,
        offers,
        tool_result,
        turn,
        step,
        response_format,
    } = file;
    let regex = |field: &str, text: Option<String>| {
        text.map(|text| Regex::new(&text).map_err(|error| format!("when.{field}: {error}")))
            .transpose()
    };
    let result = match tool_result {
        Some(condition) => Some(ResultCondition {
            name: condition.name,
            output: regex("tool_result.output", condition.output)?,
        }),
        None => None,
    };
    Ok(When {
        user: regex("user", user)?,
        history: regex("history", history)?,
        instructions: regex("instructions", instructions)?,
        file: regex("file", file)?,
        offers,
        result,
        turn,
        step,
        format: response_format,
    })
}

fn compile_call(
    file: CallFile,
    has_group: &dyn Fn(Source, &str) -> bool,
) -> Result<CallRule, String> {
    if file.name.is_empty() {
        return Err("name: is empty".into());
    }
    let template =
        |text: &str| Template::parse(text, has_group).map_err(|why| format!("arguments: {why}"));
    let arguments = match file.arguments {
        None => Arguments::Generated,
        Some(Value::String(text)) => Arguments::Raw(template(&text)?),
        Some(value) => Arguments::Json(compile_value(value, &template)?),
    };
    Ok(CallRule {
        name: file.name,
        arguments,
    })
}

fn compile_value(
    value: Value,
    template: &dyn Fn(&str) -> Result<Template, String>,
) -> Result<ValueTemplate, String> {
    Ok(match value {
        Value::String(text) => ValueTemplate::Text(template(&text)?),
        Value::Array(items) => ValueTemplate::List(
            items
                .into_iter()
                .map(|item| compile_value(item, template))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => ValueTemplate::Object(
            fields
                .into_iter()
                .map(|(name, value)| Ok((name, compile_value(value, template)?)))
                .collect::<Result<_, String>>()?,
        ),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => ValueTemplate::Plain(plain),
    })
}

fn compile_fault(file: FaultFile, key: Option<Template>, no_answer: bool) -> Result<Fault, String> {
    let FaultFile {
        http_error,
        context_length,
        disconnect_after,
        garbage_after,
        error_after,
        times,
        key: _,
    } = file;
    let breaks = [
        (disconnect_after, BreakKind::Disconnect),
        (garbage_after, BreakKind::Garbage),
        (error_after, BreakKind::ErrorEvent),
    ];
    if let Some(error) = http_error
        .as_ref()
        .filter(|error| !(400..=599).contains(&error.status))
    {
        return Err(format!(
            "http_error.status: {} is not an error status (400 to 599)",
            error.status
        ));
    }
    let kinds: Vec<FaultKind> = http_error
        .map(FaultKind::HttpError)
        .into_iter()
        .chain(context_length.map(FaultKind::ContextLength))
        .chain(
            breaks
                .into_iter()
                .filter_map(|(after, how)| Some(FaultKind::Break(Break { after: after?, how }))),
        )
        .collect();
    let Ok([kind]) = <[FaultKind; 1]>::try_from(kinds) else {
        return Err(
            "give exactly one of `http_error`, `context_length`, `disconnect_after`, \
             `garbage_after` and `error_after`"
                .into(),
        );
    };
    if no_answer && matches!(kind, FaultKind::Break(_)) {
        return Err("there is no answer to break off; add `text` or `tool_calls`".into());
    }
    Ok(Fault { kind, times, key })
}

fn rate(tokens_per_second: Option<f64>) -> Result<Option<f64>, String> {
    match tokens_per_second {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err("tokens_per_second: must be more than 0".into())
        }
        rate => Ok(rate),
    }
}
