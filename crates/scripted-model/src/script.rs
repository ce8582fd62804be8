//! A script after validation: its rules with compiled regular expressions and templates.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde_json::{Map, Value};

use crate::http_error::HttpError;
use crate::prompt::Prompt;
use crate::template::{Matches, Source, Template};
use crate::yaml::{
    CallYaml, Count, FaultYaml, FinishYaml, FormatYaml, ModelYaml, RuleYaml, ScriptYaml, ThenYaml,
    UsageYaml, WhenYaml,
};

/// The models of a script by name, without [`PREFIX`](crate::PREFIX).
pub(crate) type Script = BTreeMap<String, Model>;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) context_window: Option<u32>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) when: When,
    /// `None` for a rule that is only a fault.
    pub(crate) answer: Option<AnswerRule>,
    pub(crate) fault: Option<Fault>,
    pub(crate) pace: Pace,
}

#[derive(Debug)]
pub(crate) struct When {
    pub(crate) user: Option<Regex>,
    pub(crate) history: Option<Regex>,
    pub(crate) instructions: Option<Regex>,
    pub(crate) file: Option<Regex>,
    pub(crate) offers: Vec<String>,
    pub(crate) result: Option<ResultCondition>,
    pub(crate) turn: Count,
    pub(crate) step: Count,
    pub(crate) format: Option<FormatYaml>,
}

#[derive(Debug)]
pub(crate) struct ResultCondition {
    pub(crate) name: Option<String>,
    pub(crate) output: Option<Regex>,
}

#[derive(Debug)]
pub(crate) struct AnswerRule {
    pub(crate) reasoning: Option<Template>,
    pub(crate) content: Content,
    pub(crate) calls: Calls,
    pub(crate) finish: Option<FinishYaml>,
    pub(crate) usage: UsageYaml,
}

#[derive(Debug)]
pub(crate) enum Content {
    Nothing,
    Text(Template),
    Refusal(Template),
    GeneratedJson,
}

#[derive(Debug)]
pub(crate) enum Calls {
    None,
    Listed(Vec<CallRule>),
    /// Of the offered functions that the user's message speaks of.
    Mentioned,
}

#[derive(Debug)]
pub(crate) struct CallRule {
    pub(crate) name: String,
    pub(crate) arguments: Arguments,
}

#[derive(Debug)]
pub(crate) enum Arguments {
    Generated,
    /// This text, JSON or not.
    Raw(Template),
    Json(ValueTemplate),
}

/// A JSON value whose strings are templates.
#[derive(Debug)]
pub(crate) enum ValueTemplate {
    Plain(Value),
    Text(Template),
    List(Vec<ValueTemplate>),
    Object(Vec<(String, ValueTemplate)>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    pub(crate) latency: Duration,
    /// `None`: all tokens at once.
    pub(crate) tokens_per_second: Option<f64>,
}

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// The number of occurrences; `None`: always.
    pub(crate) times: Option<u32>,
    /// Occurrences are counted per value of this key.
    pub(crate) key: Option<Template>,
}

#[derive(Clone, Debug)]
pub(crate) enum FaultKind {
    HttpError(HttpError),
    /// Occurs if the prompt has more tokens than this.
    ContextLength(u32),
    Cutoff(Cutoff),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cutoff {
    pub(crate) after: u32,
    pub(crate) kind: CutoffKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutoffKind {
    Disconnect,
    Garbage,
    ErrorEvent,
}

impl ValueTemplate {
    pub(crate) fn fill(&self, prompt: &Prompt, matches: &Matches) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.fill_value(prompt, matches),
            Self::List(items) => items
                .iter()
                .map(|item| item.fill(prompt, matches))
                .collect(),
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.fill(prompt, matches)));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// Parses and validates a script.
///
/// # Errors
/// The text names the model, the rule and the field, and gives the reason.
pub(crate) fn parse(yaml: &str) -> Result<Script, String> {
    let script: ScriptYaml = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
    script
        .models
        .into_iter()
        .map(|(name, model)| {
            let model =
                compile_model(model).map_err(|reason| format!("model `{name}`: {reason}"))?;
            Ok((name, model))
        })
        .collect()
}

fn compile_model(yaml: ModelYaml) -> Result<Model, String> {
    let ModelYaml {
        context_window,
        latency,
        tokens_per_second,
        rules,
    } = yaml;
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
    Ok(Model {
        context_window,
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn compile_rule(yaml: RuleYaml, model_pace: Pace) -> Result<Rule, String> {
    let RuleYaml {
        name: _,
        when,
        then,
    } = yaml;
    let when = compile_when(when)?;
    let ThenYaml {
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
    let has_group = |source: Source, group: &str| when.has_group(source, group);
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
    /// Whether the expression for `source` has this capture group, by number or name.
    fn has_group(&self, source: Source, group: &str) -> bool {
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

fn compile_when(yaml: WhenYaml) -> Result<When, String> {
    let WhenYaml {
        user,
        history,
        instructions,
        file,
        offers,
        tool_result,
        turn,
        step,
        response_format,
    } = yaml;
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
    yaml: CallYaml,
    has_group: &dyn Fn(Source, &str) -> bool,
) -> Result<CallRule, String> {
    if yaml.name.is_empty() {
        return Err("name: is empty".into());
    }
    let template =
        |text: &str| Template::parse(text, has_group).map_err(|why| format!("arguments: {why}"));
    let arguments = match yaml.arguments {
        None => Arguments::Generated,
        Some(Value::String(text)) => Arguments::Raw(template(&text)?),
        Some(value) => Arguments::Json(compile_value(value, &template)?),
    };
    Ok(CallRule {
        name: yaml.name,
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

fn compile_fault(yaml: FaultYaml, key: Option<Template>, no_answer: bool) -> Result<Fault, String> {
    let FaultYaml {
        http_error,
        context_length,
        disconnect_after,
        garbage_after,
        error_after,
        times,
        key: _,
    } = yaml;
    let cutoffs = [
        (disconnect_after, CutoffKind::Disconnect),
        (garbage_after, CutoffKind::Garbage),
        (error_after, CutoffKind::ErrorEvent),
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
        .chain(cutoffs.into_iter().filter_map(|(after, kind)| {
            Some(FaultKind::Cutoff(Cutoff {
                after: after?,
                kind,
            }))
        }))
        .collect();
    let Ok([kind]) = <[FaultKind; 1]>::try_from(kinds) else {
        return Err(
            "give exactly one of `http_error`, `context_length`, `disconnect_after`, \
             `garbage_after` and `error_after`"
                .into(),
        );
    };
    if no_answer && matches!(kind, FaultKind::Cutoff(_)) {
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
