//! The values that a message states: quotations, names, numbers, dates, addresses.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// Properties that take the whole message, by the words of their names.
const WHOLE_MESSAGE_PROPERTIES: &str = "answer body comment content description expression input \
     message note prompt query question reason summary text thought";

static QUOTATIONS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""([^"]+)"|“([^”]+)”|`([^`]+)`|(?:^|\s)'([^']+)'"#));
/// Words with capitals, as many as follow each other.
static NAMES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b\p{Lu}[\p{L}\p{M}\d-]+(?: \p{Lu}[\p{L}\p{M}\d-]*)*"));
static NUMBERS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:^|[\s($€£*/+=,])(-?\d+(?:\.\d+)?)\b"));
static AFTER_PREPOSITION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:in|for|of|to|at|from|about|called|named) (?:the )?([\p{L}\d_-]+)")
});
static DATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\d{4}-\d{2}-\d{2}\b"));
static EMAIL: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"));
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"https?://[^\s<>"']+"#));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the expression is a constant, which the tests compile")
}

/// The values of a message. Names and numbers are taken in order, each once.
#[derive(Clone, Debug)]
pub(crate) struct MessageValues {
    message: String,
    names: VecDeque<String>,
    numbers: VecDeque<f64>,
}

impl MessageValues {
    pub(crate) fn of(message: &str) -> Self {
        Self {
            message: message.trim().to_owned(),
            names: names(message),
            numbers: numbers(message),
        }
    }

    /// As if the message had this name only.
    pub(crate) fn with_name(&self, name: &str) -> Self {
        Self {
            names: VecDeque::from([name.to_owned()]),
            ..self.clone()
        }
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(crate) fn number_count(&self) -> usize {
        self.numbers.len()
    }

    /// The option of an enumeration that the message names as a word.
    pub(crate) fn option(&self, options: &[Value]) -> Option<Value> {
        let message = self.message.to_lowercase();
        let is_separator = |c: char| !c.is_alphanumeric() && c != '_' && c != '-';
        let has_word = |word: &str| message.split(is_separator).any(|other| other == word);
        let is_named = |option: &&Value| match option {
            Value::String(text) => {
                let text = text.to_lowercase();
                has_word(&text) || (text.contains(' ') && message.contains(&text))
            }
            Value::Number(number) => has_word(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        options.iter().find(is_named).cloned()
    }

    pub(crate) fn take_number(&mut self, fits: impl Fn(f64) -> bool) -> Option<f64> {
        let position = self.numbers.iter().position(|number| fits(*number))?;
        self.numbers.remove(position)
    }

    /// A string in one of JSON Schema's formats: from the message, or an example.
    pub(crate) fn formatted(&self, format: &str) -> Option<String> {
        let example = match format {
            "date" => "2025-01-01",
            "date-time" => "2025-01-01T00:00:00Z",
            "time" => "12:00:00Z",
            "duration" => "PT1H",
            "email" => "someone@example.com",
            "uri" | "url" => "https://example.com/",
            "hostname" => "example.com",
            "ipv4" => "192.0.2.1",
            "ipv6" => "2001:db8::1",
            "uuid" => "00000000-0000-4000-8000-000000000000",
            _ => return None,
        };
        let stated = match format {
            "date" => self.first(&DATE),
            "date-time" => self.first(&DATE).map(|date| date + "T00:00:00Z"),
            "email" => self.first(&EMAIL),
            "uri" | "url" => self.first(&URL),
            _ => None,
        };
        Some(stated.unwrap_or_else(|| example.to_owned()))
    }

    pub(crate) fn take_text(&mut self, property: &str) -> Option<String> {
        let lower = property.to_lowercase();
        let by_name = [("email", &EMAIL), ("url", &URL), ("date", &DATE)];
        if let Some((_, pattern)) = by_name.iter().find(|(word, _)| lower.contains(word)) {
            return self.first(pattern);
        }
        if takes_whole_message(property) {
            return Some(self.message.clone()).filter(|message| !message.is_empty());
        }
        self.names.pop_front().or_else(|| {
            let last = AFTER_PREPOSITION.captures_iter(&self.message).last()?;
            Some(last[1].to_owned())
        })
    }

    fn first(&self, pattern: &Regex) -> Option<String> {
        let first = pattern.find(&self.message)?;
        Some(first.as_str().to_owned())
    }
}

pub(crate) fn takes_whole_message(property: &str) -> bool {
    let lower = property.to_lowercase();
    let mut listed = WHOLE_MESSAGE_PROPERTIES.split(' ');
    listed.any(|word| lower.split(['_', '-']).any(|part| part == word))
}

/// Quotations, then words with capitals inside a sentence. The first word of a sentence has a
/// capital in any case, so it is not taken for a name.
fn names(message: &str) -> VecDeque<String> {
    let quotations = QUOTATIONS.captures_iter(message);
    let quotations = quotations.filter_map(|captures| captures.iter().skip(1).flatten().next());
    let mut names: VecDeque<String> = quotations.map(|it| it.as_str().to_owned()).collect();
    let unquoted = QUOTATIONS.replace_all(message, " ");
    for words in NAMES.find_iter(&unquoted) {
        let before = unquoted[..words.start()].trim_end();
        let begins_sentence = before.is_empty() || before.ends_with(['.', '!', '?', ':']);
        let name = match words.as_str().split_once(' ') {
            Some((_, following)) if begins_sentence => following,
            None if begins_sentence => continue,
            Some(_) | None => words.as_str(),
        };
        names.push_back(name.to_owned());
    }
    names
}

fn numbers(message: &str) -> VecDeque<f64> {
    let without_dates = DATE.replace_all(message, " ");
    let mut numbers = VecDeque::new();
    let mut position = 0;
    // One separator may end a number and begin the next, so matches overlap by it.
    while let Some(number) = NUMBERS
        .captures_at(&without_dates, position)
        .and_then(|captures| captures.get(1))
    {
        numbers.extend(number.as_str().parse::<f64>().ok());
        position = number.end();
    }
    numbers
}
