//! Removes the Markdown fence that some models put around the code in their arguments.

use std::mem;

const FENCE: usize = 3;

/// Words that are a language tag even if code follows them on the same line. At the end of a line,
/// any word is a language tag.
const LANGUAGES: [&str; 7] = [
    "python",
    "python3",
    "py",
    "py3",
    "ipython",
    "ipython3",
    "tool_code",
];

/// Removes the fence from code that comes piece by piece. No valid Python begins with back-ticks, so
/// nothing else is ever removed.
#[derive(Debug, Default)]
pub(super) struct CodeFence {
    state: State,
    /// Characters that may turn out to be part of the fence.
    held: String,
    ticks: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Start,
    Language,
    AfterLanguage,
    Fenced,
    /// In back-ticks that may be the closing fence.
    Closing,
    /// After the closing fence, where only white space may follow.
    Closed,
    Plain,
}

impl CodeFence {
    pub(super) fn push(&mut self, piece: String) -> String {
        if matches!(self.state, State::Plain) {
            return piece;
        }
        let mut code = String::with_capacity(piece.len());
        for char in piece.chars() {
            self.take(char, &mut code);
        }
        code
    }

    fn take(&mut self, char: char, code: &mut String) {
        match self.state {
            State::Start => self.start(char, code),
            State::Language => self.language(char, code),
            State::AfterLanguage => match char {
                ' ' | '\t' | '\r' => {}
                '\n' => self.state = State::Fenced,
                char => self.fenced(char, code),
            },
            State::Fenced => self.fenced(char, code),
            State::Closing if char == '`' => self.held.push(char),
            State::Closing if char.is_whitespace() && self.held.len() >= self.ticks => {
                self.held.push(char);
                self.state = State::Closed;
            }
            State::Closed if char.is_whitespace() => self.held.push(char),
            State::Closing | State::Closed => self.fenced(char, code),
            State::Plain => code.push(char),
        }
    }

    fn start(&mut self, char: char, code: &mut String) {
        match char {
            '`' => {
                self.ticks += 1;
                self.held.push(char);
            }
            _ if self.ticks >= FENCE => {
                self.held.clear();
                self.state = State::Language;
                self.language(char, code);
            }
            char if char.is_whitespace() && self.ticks == 0 => self.held.push(char),
            char => {
                code.push_str(&mem::take(&mut self.held));
                code.push(char);
                self.state = State::Plain;
            }
        }
    }

    fn language(&mut self, char: char, code: &mut String) {
        let is_language = || {
            let word = self.held.to_ascii_lowercase();
            LANGUAGES.contains(&word.as_str())
        };
        match char {
            '\n' => {
                self.held.clear();
                self.state = State::Fenced;
            }
            ' ' | '\t' | '\r' if self.held.is_empty() => {}
            '\r' => {
                self.held.clear();
                self.state = State::AfterLanguage;
            }
            ' ' | '\t' if is_language() => {
                self.held.clear();
                self.state = State::AfterLanguage;
            }
            char if char.is_alphanumeric() || matches!(char, '_' | '-' | '+' | '.' | '#') => {
                self.held.push(char);
            }
            char => self.fenced(char, code),
        }
    }

    fn fenced(&mut self, char: char, code: &mut String) {
        code.push_str(&mem::take(&mut self.held));
        if char == '`' {
            self.held.push(char);
            self.state = State::Closing;
        } else {
            code.push(char);
            self.state = State::Fenced;
        }
    }
}
