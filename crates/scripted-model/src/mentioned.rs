//! Which of the offered functions a message speaks of.

use std::cmp::Reverse;

use super::decide::ToolCall;
use super::generate;
use super::hints::Hints;
use super::prompt::Function;
use super::prompt::Prompt;
use super::prompt::ToolChoice;

/// Most calls to one function in one answer.
const CALL_LIMIT: usize = 8;

/// The built-in tools: code cannot be made from a message, and what is searched for is not named by
/// the words "file" and "search".
const BUILT_IN: [&str; 2] = ["code_interpreter", "file_search"];

/// Words that say nothing about what a function is for.
const STOP_WORDS: &[&str] = &[
    "all",
    "and",
    "any",
    "are",
    "based",
    "call",
    "can",
    "current",
    "data",
    "does",
    "for",
    "from",
    "function",
    "get",
    "give",
    "given",
    "has",
    "have",
    "how",
    "info",
    "information",
    "into",
    "its",
    "look",
    "make",
    "may",
    "name",
    "not",
    "one",
    "our",
    "out",
    "please",
    "provide",
    "return",
    "set",
    "some",
    "that",
    "the",
    "their",
    "then",
    "there",
    "thi",
    "this",
    "tool",
    "use",
    "used",
    "user",
    "using",
    "value",
    "was",
    "what",
    "when",
    "which",
    "who",
    "will",
    "with",
    "would",
    "you",
    "your",
];

/// Calls to the functions that the user's message names, with arguments made from the message.
pub(super) fn calls(prompt: &Prompt) -> Vec<ToolCall> {
    let said = words(&prompt.user);
    let allowed = |function: &&Function| match &prompt.tool_choice {
        ToolChoice::Function(name) => function.name == *name,
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => true,
    };
    let functions: Vec<&Function> = prompt
        .functions
        .iter()
        .filter(|function| !BUILT_IN.contains(&function.name.as_str()))
        .filter(allowed)
        .collect();
    let hints = Hints::of(&prompt.user);
    let chosen = by_name(&functions, &said);
    let chosen = if chosen.is_empty() {
        by_description(&functions, &said)
    } else {
        chosen
    };
    match chosen.as_slice() {
        [only] => one_call_a_name(only, &hints),
        several => several
            .iter()
            .map(|function| call(function, hints.clone()))
            .collect(),
    }
}

/// The functions whose names share a word with the message, each with a word of its own.
fn by_name<'a>(functions: &[&'a Function], said: &[String]) -> Vec<&'a Function> {
    let mut scored: Vec<(usize, Vec<String>)> = functions
        .iter()
        .enumerate()
        .map(|(index, function)| {
            let shared = words(&function.name)
                .into_iter()
                .filter(|word| said.contains(word));
            (index, shared.collect::<Vec<_>>())
        })
        .filter(|(_, shared)| !shared.is_empty())
        .collect();
    scored.sort_by_key(|(_, shared)| Reverse(shared.len()));
    let mut covered: Vec<String> = Vec::new();
    let mut chosen: Vec<usize> = Vec::new();
    for (index, shared) in scored {
        if shared.iter().any(|word| !covered.contains(word)) {
            covered.extend(shared);
            chosen.push(index);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|index| functions[index]).collect()
}

/// The function whose description shares the most words with the message.
fn by_description<'a>(functions: &[&'a Function], said: &[String]) -> Vec<&'a Function> {
    let score = |function: &Function| {
        words(&function.description)
            .iter()
            .filter(|word| said.contains(word))
            .count()
    };
    // The first of equals: `max_by_key` would take the last.
    let best = functions
        .iter()
        .rev()
        .max_by_key(|function| score(function));
    best.filter(|function| score(function) > 0)
        .copied()
        .into_iter()
        .collect()
}

/// "the weather in Paris and London" is two calls when there is one place to put a name.
fn one_call_a_name(function: &Function, hints: &Hints) -> Vec<ToolCall> {
    if generate::name_property(&function.parameters).is_none() || hints.name_count() < 2 {
        return vec![call(function, hints.clone())];
    }
    let names = hints.names().take(CALL_LIMIT);
    names
        .map(|name| call(function, hints.with_name(name.clone())))
        .collect()
}

fn call(function: &Function, hints: Hints) -> ToolCall {
    ToolCall {
        name: function.name.clone(),
        arguments: generate::arguments_with(&function.parameters, hints).to_string(),
    }
}

/// The telling words of a text or an identifier, in lower case and without a plural's `s`.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for letter in text.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        after_lower = letter.is_lowercase();
        if letter.is_alphanumeric() {
            let word = words.last_mut().expect("there is always a last word");
            word.extend(letter.to_lowercase());
        }
    }
    words
        .into_iter()
        .map(|word| match word.strip_suffix('s') {
            Some(singular) if !singular.ends_with('s') => singular.to_owned(),
            Some(_) | None => word,
        })
        .filter(|word| word.chars().count() > 2 && !STOP_WORDS.contains(&word.as_str()))
        .collect()
}
