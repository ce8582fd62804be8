//! Extracts the code from a call's arguments while the model is still writing them.

use std::mem;

use super::fence::CodeFence;

/// Keys under which models pass the code: that of the definition, and those of their training.
const KEYS: [&str; 4] = ["code", "input", "python", "source"];

/// Parses `{"code": "…"}` piece by piece. Arguments that are not a JSON object are the code itself:
/// some models send that. A Markdown fence around the code is removed.
#[derive(Debug, Default)]
pub(in crate::engine) struct CodeArgument {
    state: State,
    /// The first half of a UTF-16 surrogate pair.
    high: Option<u16>,
    fence: CodeFence,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    Raw,
    Members,
    Key(String),
    /// Between a key and its value. Whether the key is one of [`KEYS`].
    Value(bool),
    Code,
    Escape,
    Unicode(String),
    /// In the value of another key, at this depth of brackets, within a string or not, after a
    /// backslash or not.
    Skip {
        depth: usize,
        string: bool,
        escape: bool,
    },
    Done,
}

impl CodeArgument {
    pub(in crate::engine) fn push(&mut self, piece: &str) -> String {
        let mut code = String::with_capacity(piece.len());
        for char in piece.chars() {
            self.state = self.next(char, &mut code);
        }
        self.fence.push(code)
    }

    fn next(&mut self, char: char, code: &mut String) -> State {
        match mem::take(&mut self.state) {
            State::Start => match char {
                '{' => State::Members,
                char if char.is_whitespace() => State::Start,
                char => {
                    code.push(char);
                    State::Raw
                }
            },
            State::Raw => {
                code.push(char);
                State::Raw
            }
            State::Members => match char {
                '"' => State::Key(String::new()),
                '}' => State::Done,
                _ => State::Members,
            },
            State::Key(key) if char == '"' => State::Value(KEYS.contains(&key.as_str())),
            State::Key(mut key) => {
                key.push(char);
                State::Key(key)
            }
            State::Value(is_code) => match char {
                ':' => State::Value(is_code),
                char if char.is_whitespace() => State::Value(is_code),
                '"' if is_code => State::Code,
                char => skip(0, false, false, char),
            },
            State::Code => match char {
                '"' => {
                    self.end_pair(code);
                    State::Done
                }
                '\\' => State::Escape,
                char => {
                    self.end_pair(code);
                    code.push(char);
                    State::Code
                }
            },
            State::Escape => {
                if char == 'u' {
                    return State::Unicode(String::new());
                }
                self.end_pair(code);
                match char {
                    'n' => code.push('\n'),
                    't' => code.push('\t'),
                    'r' => code.push('\r'),
                    'b' => code.push('\u{8}'),
                    'f' => code.push('\u{c}'),
                    '"' | '\\' | '/' => code.push(char),
                    // Invalid JSON: the model has not escaped a backslash of its code.
                    char => code.extend(['\\', char]),
                }
                State::Code
            }
            State::Unicode(mut digits) => {
                digits.push(char);
                if digits.len() < 4 {
                    return State::Unicode(digits);
                }
                match u16::from_str_radix(&digits, 16) {
                    Ok(unit) => self.push_utf16(unit, code),
                    Err(_) => code.push(char::REPLACEMENT_CHARACTER),
                }
                State::Code
            }
            State::Skip {
                depth,
                string,
                escape,
            } => skip(depth, string, escape, char),
            State::Done => State::Done,
        }
    }

    fn push_utf16(&mut self, unit: u16, code: &mut String) {
        if let Some(high) = self.high.take() {
            match char::decode_utf16([high, unit]).next() {
                Some(Ok(char)) => return code.push(char),
                _ => code.push(char::REPLACEMENT_CHARACTER),
            }
        }
        match char::from_u32(unit.into()) {
            // Neither Python nor PostgreSQL accepts U+0000.
            Some('\0') => code.push(char::REPLACEMENT_CHARACTER),
            Some(char) => code.push(char),
            None => self.high = Some(unit),
        }
    }

    fn end_pair(&mut self, code: &mut String) {
        if self.high.take().is_some() {
            code.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn skip(depth: usize, string: bool, escape: bool, char: char) -> State {
    let inside = |depth, string, escape| State::Skip {
        depth,
        string,
        escape,
    };
    match char {
        _ if string && escape => inside(depth, true, false),
        '\\' if string => inside(depth, true, true),
        '"' => inside(depth, !string, false),
        _ if string => inside(depth, true, false),
        '{' | '[' => inside(depth + 1, false, false),
        '}' if depth == 0 => State::Done,
        '}' | ']' => inside(depth.saturating_sub(1), false, false),
        ',' if depth == 0 => State::Members,
        _ => inside(depth, false, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of these arguments, checked to be the same when they come character by character.
    fn read(arguments: &str) -> String {
        let whole = CodeArgument::default().push(arguments);
        let mut reader = CodeArgument::default();
        let pieces: String = arguments
            .chars()
            .map(|char| reader.push(&char.to_string()))
            .collect();
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn every_string_comes_out_as_it_went_in() {
        for code in [
            "print('hello')\nx = \"a\\tb\"\t# ä → 😀",
            "{}",
            "\\",
            "\"\"",
            "\u{8}\u{c}\r\u{1}/",
        ] {
            assert_eq!(read(&serde_json::json!({ "code": code }).to_string()), code);
        }
        assert_eq!(read(r#"{"code": "\ud83d\ude00 \u00e4"}"#), "😀 ä");
    }

    #[test]
    fn other_members_are_passed_over() {
        let arguments =
            r#" {"why": "a \" } , \\", "n": [1, {"code": "no"}], "code" : "yes", "z": 1}"#;
        assert_eq!(read(arguments), "yes");
        assert_eq!(read(r#"{"input": "1"}"#), "1");
        assert_eq!(read(r#"{"other": "1"}"#), "");
        assert_eq!(read("{}"), "");
    }

    #[test]
    fn what_is_no_json_is_read_as_it_was_meant() {
        assert_eq!(read("print(1)\n"), "print(1)\n");
        assert_eq!(
            read("{\"code\": \"re.match('\\d')\nx\"}"),
            "re.match('\\d')\nx"
        );
        assert_eq!(read(r#"{"code": "\ud83d!\ude00"}"#), "\u{fffd}!\u{fffd}");
        assert_eq!(read(r#"{"code": "cut o"#), "cut o");
        assert_eq!(read(r#"{"code": "a\u0000b"}"#), "a\u{fffd}b");
    }

    #[test]
    fn a_markdown_fence_is_not_code() {
        let cases = [
            ("```python\nprint(1)\n```", "print(1)\n"),
            ("```\nprint(1)\n```\n", "print(1)\n"),
            ("```python print(1)```", "print(1)"),
            ("``` print(1) ```", "print(1) "),
            ("```print(1)```", "print(1)"),
            ("```x = 1\ny = x```", "x = 1\ny = x"),
            (
                "\n ```Python \r\nif 1:\r\n  x\r\n```\r\n",
                "if 1:\r\n  x\r\n",
            ),
            ("```tool_code\n1", "1"),
            ("````py\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
            ("```py\ns = '''\n```\n'''\n```", "s = '''\n```\n'''\n"),
            ("```\nprint('``')\n```", "print('``')\n"),
            ("  print('```')", "  print('```')"),
            ("``x``", "``x``"),
        ];
        for (fenced, code) in cases {
            let arguments = serde_json::json!({ "code": fenced }).to_string();
            assert_eq!(read(&arguments), code, "{fenced:?}");
        }
        assert_eq!(read("```python\nprint(1)\n```"), "print(1)\n");
    }
}
