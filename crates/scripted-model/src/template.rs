//! Texts with `{{placeholders}}`, filled from the request.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::prompt::Prompt;
use crate::quotes::quotes;

/// The capture groups of a regular expression, by number and by name.
pub(crate) type Groups = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub(crate) groups: BTreeMap<Source, Groups>,
    pub(crate) file: Option<String>,
    /// The index of the matching tool result in [`Prompt::results`].
    pub(crate) result: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
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
    /// JSON text, which becomes a JSON value where the placeholder stands alone.
    Json,
    /// A string literal in double quotes, with the escapes of JSON.
    Quoted,
    /// Of a result of `file_search`: the sentences nearest to the user's message.
    Quotes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
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
    Group(String),
    /// A JSON Pointer.
    Pointer(String),
}

impl Template {
    /// Parses a text. `has_group` tells whether the expression for a source has a capture group.
    ///
    /// # Errors
    /// When a placeholder is not valid; the text names it and gives the reason.
    pub(crate) fn parse(
        text: &str,
        has_group: &dyn Fn(Source, &str) -> bool,
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
            let part = placeholder(inside, has_group)
                .map_err(|reason| format!("`{{{{{inside}}}}}`: {reason}"))?;
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The filled text. What the request does not have is left empty.
    pub(crate) fn fill(&self, prompt: &Prompt, matches: &Matches) -> String {
        let fill = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Placeholder {
                source,
                pick,
                filter,
            } => {
                let value = value(*source, pick, prompt, matches);
                match filter {
                    Some(Filter::Quoted) => Value::String(value).to_string(),
                    Some(Filter::Quotes) => quotes(&value, &prompt.user),
                    Some(Filter::Json) | None => value,
                }
            }
        };
        self.parts.iter().map(fill).collect()
    }

    /// The filled text as a JSON value: a string, or the value of a lone `{{… | json}}`.
    pub(crate) fn fill_value(&self, prompt: &Prompt, matches: &Matches) -> Value {
        let text = self.fill(prompt, matches);
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

fn placeholder(inside: &str, has_group: &dyn Fn(Source, &str) -> bool) -> Result<Part, String> {
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
        (name, Pick::Group(group.to_owned()))
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
            Pick::Group(group),
            Source::User | Source::History | Source::Instructions | Source::File | Source::Result,
        ) => {
            if !has_group(source, group) {
                let field = match source {
                    Source::Result => "tool_result.output",
                    _ => name,
                };
                return Err(format!("`when.{field}` has no group `{group}`"));
            }
        }
        (Pick::Group(_), _) => return Err(format!("`{name}` has no groups")),
        (Pick::Pointer(_), Source::Result | Source::Arguments) | (Pick::Whole, _) => {}
        (Pick::Pointer(_), _) => return Err(format!("`{name}` is not JSON")),
    }
    Ok(Part::Placeholder {
        source,
        pick,
        filter,
    })
}

fn value(source: Source, pick: &Pick, prompt: &Prompt, matches: &Matches) -> String {
    match pick {
        Pick::Whole => whole(source, prompt, matches),
        Pick::Group(name) => group(source, name, matches),
        Pick::Pointer(pointer) => {
            let json = serde_json::from_str(&whole(source, prompt, matches));
            match json.unwrap_or(Value::Null).pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            }
        }
    }
}

fn group(source: Source, name: &str, matches: &Matches) -> String {
    let group = matches
        .groups
        .get(&source)
        .and_then(|groups| groups.get(name));
    group.cloned().unwrap_or_default()
}

fn whole(source: Source, prompt: &Prompt, matches: &Matches) -> String {
    let result = matches.result.and_then(|index| prompt.results.get(index));
    match source {
        Source::User => prompt.user.clone(),
        Source::History => group(source, "0", matches),
        Source::Instructions => prompt.instructions.clone(),
        Source::File => matches.file.clone().unwrap_or_default(),
        Source::Result => result.map(|it| it.output.clone()).unwrap_or_default(),
        Source::Arguments => result.map(|it| it.arguments.clone()).unwrap_or_default(),
        Source::Results => prompt.results_as_text(),
        Source::Model => prompt.model.clone(),
        Source::Turn => prompt.turn.to_string(),
        Source::Step => prompt.step.to_string(),
    }
}
