//! Texts with `{{placeholders}}`: what the rules of a script say, filled from the request.

use std::collections::BTreeMap;

use serde_json::Value;

use super::prompt::Prompt;
use super::quotes::quotes;

/// What the regular expressions of a rule captured, by group name and by number.
pub(super) type Captured = BTreeMap<String, String>;

/// What a rule's conditions found in a request.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) user: Captured,
    pub(super) history: Captured,
    pub(super) instructions: Captured,
    /// The path of the file that matched, and its captures.
    pub(super) file: Option<(String, Captured)>,
    /// Which of the prompt's tool results matched, and its captures.
    pub(super) result: Option<(usize, Captured)>,
}

/// A text whose placeholders are known to be good.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Placeholder {
        source: Source,
        pick: Pick,
        filter: Option<Filter>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// The value is JSON text that stands for itself where it stands alone.
    Json,
    /// The value becomes a string literal, in double quotes and escaped as in JSON.
    Quoted,
    /// The value is what file_search returned; its sentences nearest to the user's message remain.
    Quotes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    User,
    History,
    Instructions,
    File,
    Result,
    Arguments,
    Results,
    Model,
    Turn,
    Step,
}

#[derive(Clone, Debug, PartialEq)]
enum Pick {
    Whole,
    Capture(String),
    Pointer(String),
}

impl Template {
    /// Reads a text. `captures` tells whether a source captures a group.
    ///
    /// # Errors
    /// Says which placeholder is wrong and why.
    pub(super) fn parse(
        text: &str,
        captures: &dyn Fn(Source, &str) -> bool,
    ) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after
                .split_once("}}")
                .ok_or_else(|| format!("`{{{{{after}` is not closed by `}}}}`"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let part = placeholder(inside, captures)
                .map_err(|reason| format!("`{{{{{inside}}}}}`: {reason}"))?;
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text, filled. What the request does not have is left empty.
    pub(super) fn fill(&self, prompt: &Prompt, found: &Found) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Placeholder {
                    source,
                    pick,
                    filter,
                } => {
                    let value = value(*source, pick, prompt, found);
                    match filter {
                        Some(Filter::Quoted) => Value::String(value).to_string(),
                        Some(Filter::Quotes) => quotes(&value, &prompt.user),
                        Some(Filter::Json) | None => value,
                    }
                }
            })
            .collect()
    }

    /// The text as a JSON value: a string, or what a lone `{{… | json}}` stands for.
    pub(super) fn fill_value(&self, prompt: &Prompt, found: &Found) -> Value {
        let text = self.fill(prompt, found);
        match self.parts.as_slice() {
            [
                Part::Placeholder {
                    filter: Some(Filter::Json),
                    ..
                },
            ] => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            _ => Value::String(text),
        }
    }
}

fn placeholder(inside: &str, captures: &dyn Fn(Source, &str) -> bool) -> Result<Part, String> {
    let (reference, filter) = match inside.split_once('|') {
        None => (inside, None),
        Some((reference, filter)) => match filter.trim() {
            "json" => (reference, Some(Filter::Json)),
            "quoted" => (reference, Some(Filter::Quoted)),
            "quotes" => (reference, Some(Filter::Quotes)),
            other => {
                return Err(format!(
                    "there is no filter `{other}`, only `json`, `quoted` and `quotes`"
                ));
            }
        },
    };
    let reference = reference.trim();
    let (name, pick) = if let Some((name, pointer)) = reference.split_once(':') {
        if !pointer.starts_with('/') {
            return Err("a path into JSON begins with `/`".into());
        }
        (name, Pick::Pointer(pointer.to_owned()))
    } else if let Some((name, group)) = reference.split_once('.') {
        (name, Pick::Capture(group.to_owned()))
    } else {
        (reference, Pick::Whole)
    };
    let source = match name {
        "user" => Source::User,
        "history" => Source::History,
        "instructions" => Source::Instructions,
        "file" => Source::File,
        "result" => Source::Result,
        "arguments" => Source::Arguments,
        "results" => Source::Results,
        "model" => Source::Model,
        "turn" => Source::Turn,
        "step" => Source::Step,
        other => return Err(format!("there is no value `{other}`")),
    };
    match (&pick, source) {
        (
            Pick::Capture(group),
            Source::User | Source::History | Source::Instructions | Source::File | Source::Result,
        ) => {
            if !captures(source, group) {
                let field = if source == Source::Result {
                    "tool_result.output"
                } else {
                    name
                };
                return Err(format!("`when.{field}` has no group `{group}`"));
            }
        }
        (Pick::Capture(_), _) => return Err(format!("`{name}` has no groups")),
        (Pick::Pointer(_), Source::Result | Source::Arguments) | (Pick::Whole, _) => {}
        (Pick::Pointer(_), _) => return Err(format!("`{name}` is not JSON")),
    }
    Ok(Part::Placeholder {
        source,
        pick,
        filter,
    })
}

fn value(source: Source, pick: &Pick, prompt: &Prompt, found: &Found) -> String {
    let result = found
        .result
        .as_ref()
        .and_then(|(index, _)| prompt.results.get(*index));
    let captured = match source {
        Source::User => &found.user,
        Source::History => &found.history,
        Source::Instructions => &found.instructions,
        Source::File => match &found.file {
            Some((_, captured)) => captured,
            None => return String::new(),
        },
        Source::Result => match &found.result {
            Some((_, captured)) => captured,
            None => return String::new(),
        },
        Source::Arguments | Source::Results | Source::Model | Source::Turn | Source::Step => {
            &Captured::new()
        }
    };
    let whole = || match source {
        Source::User => prompt.user.clone(),
        Source::History => captured.get("0").cloned().unwrap_or_default(),
        Source::Instructions => prompt.instructions.clone(),
        Source::File => found
            .file
            .as_ref()
            .map(|(path, _)| path.clone())
            .unwrap_or_default(),
        Source::Result => result
            .map(|result| result.output.clone())
            .unwrap_or_default(),
        Source::Arguments => result
            .map(|result| result.arguments.clone())
            .unwrap_or_default(),
        Source::Results => prompt.results_in_words(),
        Source::Model => prompt.model.clone(),
        Source::Turn => prompt.turn.to_string(),
        Source::Step => prompt.step.to_string(),
    };
    match pick {
        Pick::Whole => whole(),
        Pick::Capture(group) => captured.get(group).cloned().unwrap_or_default(),
        Pick::Pointer(pointer) => {
            let json = serde_json::from_str::<Value>(&whole()).unwrap_or(Value::Null);
            match json.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            }
        }
    }
}
