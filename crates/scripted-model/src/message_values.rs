//! The values that a message clearly contains: quotations, names, numbers, dates, addresses.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// Words that begin a question or an order, and are no names although they begin with a capital.
const OPENERS: &[&str] = &[
    "a",
    "about",
    "add",
    "also",
    "am",
    "an",
    "and",
    "are",
    "as",
    "ask",
    "at",
    "book",
    "but",
    "buy",
    "calculate",
    "call",
    "can",
    "check",
    "compare",
    "compute",
    "convert",
    "could",
    "create",
    "do",
    "does",
    "email",
    "extract",
    "fetch",
    "find",
    "for",
    "from",
    "get",
    "give",
    "hello",
    "hey",
    "hi",
    "how",
    "i",
    "if",
    "in",
    "is",
    "it",
    "let",
    "list",
    "look",
    "make",
    "may",
    "my",
    "now",
    "of",
    "on",
    "or",
    "order",
    "plan",
    "play",
    "please",
    "read",
    "remind",
    "reply",
    "run",
    "search",
    "send",
    "set",
    "should",
    "show",
    "tell",
    "thanks",
    "the",
    "then",
    "there",
    "this",
    "to",
    "translate",
    "use",
    "was",
    "we",
    "weather",
    "what",
    "when",
    "where",
    "which",
    "who",
    "why",
    "will",
    "with",
    "would",
    "write",
    "you",
];

/// Properties that want a whole sentence, by their names.
const SENTENCE_PROPERTIES: &[&str] = &[
    "answer",
    "body",
    "comment",
    "content",
    "description",
    "expression",
    "input",
    "message",
    "note",
    "prompt",
    "query",
    "question",
    "reason",
    "summary",
    "text",
    "thought",
];

static NAMES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b\p{Lu}[\p{L}\p{M}\d-]*(?: \p{Lu}[\p{L}\p{M}\d-]*)*"));
static QUOTATIONS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""([^"]+)"|“([^”]+)”|`([^`]+)`|(?:^|\s)'([^']+)'"#));
static NUMBERS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:^|[\s($€£*/+=,])(-?\d+(?:\.\d+)?)\b"));
static AFTER_PREPOSITION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:in|for|of|to|at|from|about|called|named) (?:the )?([\p{L}\d_-]+)")
});
static DATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\d{4}-\d{2}-\d{2}\b"));
static EMAIL: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"));
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"https?://[^\s<>"']+"#));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// What a message has to offer. Values are taken in order, each once.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    message: String,
    names: VecDeque<String>,
    numbers: VecDeque<f64>,
}

impl Hints {
    pub(super) fn of(message: &str) -> Self {
        let mut numbers = VecDeque::new();
        let without_dates = DATE.replace_all(message, " ");
        let mut at = 0;
        // One separator may end one number and begin the next, so matches may overlap by it.
        while let Some(found) = NUMBERS
            .captures_at(&without_dates, at)
            .and_then(|c| c.get(1))
        {
            numbers.extend(found.as_str().parse::<f64>().ok());
            at = found.end();
        }
        Self {
            message: message.trim().to_owned(),
            names: names(message),
            numbers,
        }
    }

    /// As if the message had this one name only.
    pub(super) fn with_name(&self, name: String) -> Self {
        Self {
            names: VecDeque::from([name]),
            ..self.clone()
        }
    }

    /// Whether a property of this name is best filled with a whole sentence.
    pub(super) fn takes_whole_message(property: &str) -> bool {
        let words = property.to_lowercase();
        SENTENCE_PROPERTIES
            .iter()
            .any(|word| words.split(['_', '-']).any(|part| part == *word))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    pub(super) fn has_name(&self) -> bool {
        !self.names.is_empty()
    }

    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    pub(super) fn has_number(&self) -> bool {
        !self.numbers.is_empty()
    }

    pub(super) fn number_count(&self) -> usize {
        self.numbers.len()
    }

    /// The option that the message names as a word.
    pub(super) fn option(&self, options: &[Value]) -> Option<Value> {
        let message = self.message.to_lowercase();
        let words: Vec<&str> = message
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .collect();
        let named = options.iter().find(|option| match option {
            Value::String(text) => {
                let text = text.to_lowercase();
                words.contains(&text.as_str()) || (text.contains(' ') && message.contains(&text))
            }
            Value::Number(number) => words.contains(&number.to_string().as_str()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        });
        named.cloned()
    }

    /// The first number that fits.
    pub(super) fn take_number(&mut self, fits: &dyn Fn(f64) -> bool) -> Option<f64> {
        let position = self.numbers.iter().position(|number| fits(*number))?;
        self.numbers.remove(position)
    }

    /// A string in one of JSON Schema's formats, from the message or made up.
    pub(super) fn formatted(&self, format: &str) -> Option<String> {
        let found = |regex: &Regex| {
            regex
                .find(&self.message)
                .map(|found| found.as_str().to_owned())
        };
        let or =
            |text: Option<String>, default: &str| Some(text.unwrap_or_else(|| default.to_owned()));
        match format {
            "date" => or(found(&DATE), "2025-01-01"),
            "date-time" => or(
                found(&DATE).map(|date| date + "T00:00:00Z"),
                "2025-01-01T00:00:00Z",
            ),
            "time" => or(None, "12:00:00Z"),
            "duration" => or(None, "PT1H"),
            "email" => or(found(&EMAIL), "someone@example.com"),
            "uri" | "url" => or(found(&URL), "https://example.com/"),
            "hostname" => or(None, "example.com"),
            "ipv4" => or(None, "192.0.2.1"),
            "ipv6" => or(None, "2001:db8::1"),
            "uuid" => or(None, "00000000-0000-4000-8000-000000000000"),
            _ => None,
        }
    }

    /// Text for a property, going by its name.
    pub(super) fn take_text(&mut self, property: &str) -> Option<String> {
        let lower = property.to_lowercase();
        let found = |regex: &Regex| {
            regex
                .find(&self.message)
                .map(|found| found.as_str().to_owned())
        };
        let special = [
            ("email", &EMAIL),
            ("url", &URL),
            ("link", &URL),
            ("date", &DATE),
        ];
        if let Some((_, regex)) = special.iter().find(|(word, _)| lower.contains(word)) {
            return found(regex);
        }
        if Self::takes_whole_message(property) {
            return (!self.message.is_empty()).then(|| self.message.clone());
        }
        if property.is_empty() {
            return self.names.pop_front();
        }
        self.names.pop_front().or_else(|| {
            let last = AFTER_PREPOSITION.captures_iter(&self.message).last()?;
            Some(last[1].to_owned())
        })
    }
}

/// Quotations, then words that begin with a capital inside a sentence, then such words at the
/// beginning of one.
fn names(message: &str) -> VecDeque<String> {
    let mut names: Vec<String> = Vec::new();
    for captures in QUOTATIONS.captures_iter(message) {
        names.extend(
            captures
                .iter()
                .skip(1)
                .flatten()
                .map(|quotation| quotation.as_str().to_owned()),
        );
    }
    let unquoted = QUOTATIONS.replace_all(message, " ");
    let mut beginnings = Vec::new();
    for found in NAMES.find_iter(&unquoted) {
        let before = unquoted[..found.start()].trim_end();
        let begins_sentence = before.is_empty() || before.ends_with(['.', '!', '?', ':']);
        let mut words: Vec<&str> = found.as_str().split(' ').collect();
        while words
            .first()
            .is_some_and(|word| OPENERS.contains(&word.to_lowercase().as_str()))
        {
            words.remove(0);
        }
        let dropped_opener = words.len() < found.as_str().split(' ').count();
        let name = words.join(" ");
        if name.is_empty() {
            continue;
        }
        if begins_sentence && !dropped_opener {
            beginnings.push(name)
        } else {
            names.push(name)
        }
    }
    names.into_iter().chain(beginnings).collect()
}
