//! Calls to the offered functions that a message speaks of.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::answer::ToolCall;
use crate::generate;
use crate::message_values::MessageValues;
use crate::prompt::{Function, Prompt, ToolChoice};
use crate::words::words;

const MAX_CALLS: usize = 8;

/// Tools that are never called because a message mentions them: a message cannot be turned into code,
/// and the words "file" and "search" do not say what to search for.
const BUILT_IN: [&str; 2] = ["code_interpreter", "file_search"];

/// Calls the functions whose names share words with the user's message or, if there is none, the
/// one whose description shares most. The arguments are made from the message.
pub(crate) fn calls(prompt: &Prompt) -> Vec<ToolCall> {
    let message: BTreeSet<String> = words(&prompt.user).collect();
    let is_allowed = |function: &&Function| match &prompt.tool_choice {
        ToolChoice::Function(name) => function.name == *name,
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => true,
    };
    let functions = prompt.functions.iter();
    let functions = functions.filter(|it| !BUILT_IN.contains(&it.name.as_str()));
    let functions: Vec<&Function> = functions.filter(is_allowed).collect();
    let mut mentioned = named(&functions, &message);
    if mentioned.is_empty() {
        mentioned.extend(described(&functions, &message));
    }
    let values = MessageValues::of(&prompt.user);
    match mentioned.as_slice() {
        [only] => calls_per_name(only, values),
        several => several
            .iter()
            .map(|function| call(function, values.clone()))
            .collect(),
    }
}

/// The functions whose names share a word with the message. Of functions that share the same words
/// only the first is called, so that "cancel order 5" does not call `search_orders`, too.
fn named<'a>(functions: &[&'a Function], message: &BTreeSet<String>) -> Vec<&'a Function> {
    let shared_words = |function: &Function| -> BTreeSet<String> {
        words(&function.name)
            .filter(|word| message.contains(word))
            .collect()
    };
    let mut candidates: Vec<_> = functions
        .iter()
        .map(|it| shared_words(it))
        .enumerate()
        .collect();
    candidates.sort_by_key(|(_, shared)| Reverse(shared.len()));
    let mut covered = BTreeSet::new();
    candidates.retain(|(_, shared)| {
        let adds_words = !shared.is_subset(&covered);
        covered.extend(shared.iter().cloned());
        adds_words
    });
    candidates.sort_by_key(|(index, _)| *index);
    let indexes = candidates.into_iter().map(|(index, _)| index);
    indexes.map(|index| functions[index]).collect()
}

fn described<'a>(functions: &[&'a Function], message: &BTreeSet<String>) -> Option<&'a Function> {
    let score = |function: &Function| {
        let words = words(&function.description);
        words.filter(|word| message.contains(word)).count()
    };
    // In reverse, since `max_by_key` returns the last of equals.
    let best = functions.iter().rev().max_by_key(|it| score(it));
    best.copied().filter(|function| score(function) > 0)
}

/// "the weather in Paris and London" is two calls if the function takes one name.
fn calls_per_name(function: &Function, values: MessageValues) -> Vec<ToolCall> {
    let names = values.names().len();
    if names < 2 || !generate::takes_one_name(&function.parameters) {
        return vec![call(function, values)];
    }
    let names = values.names().take(MAX_CALLS);
    names
        .map(|name| call(function, values.with_name(name)))
        .collect()
}

fn call(function: &Function, values: MessageValues) -> ToolCall {
    ToolCall {
        name: function.name.clone(),
        arguments: generate::arguments(&function.parameters, values).to_string(),
    }
}
