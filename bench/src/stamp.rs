//! Time stamps in the text of answers.
//!
//! The fake upstream writes each token as the time at which it was sent, so that a client can separate
//! the server's delay from the upstream's. The first token also has the time at which the request
//! arrived, and the number of its messages.

use std::fmt::Write;

const FIRST: u8 = b'^';
const NEXT: u8 = b'~';
const HEX: usize = 16;

/// The content of a token; times are those of [`crate::clock::now_ns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The first token of an answer.
    First {
        /// When the request arrived at the upstream.
        arrived: u64,
        /// When this token was sent.
        sent: u64,
        /// The number of messages in the request.
        messages: u64,
    },
    /// Any later token.
    Next {
        /// When this token was sent.
        sent: u64,
    },
}

impl Stamp {
    /// Appends the token's text: ASCII without characters that JSON escapes.
    pub(crate) fn write(self, text: &mut String) {
        let written = match self {
            Self::First {
                arrived,
                sent,
                messages,
            } => write!(text, "^{arrived:016x}{sent:016x}{messages:016x} "),
            Self::Next { sent } => write!(text, "~{sent:016x} "),
        };
        written.expect("writing to a String cannot fail");
    }
}

/// Calls `each` for every complete stamp in `text`, in order.
pub(crate) fn scan(text: &[u8], mut each: impl FnMut(Stamp)) {
    for mark in memchr::memchr2_iter(FIRST, NEXT, text) {
        let field = |n: usize| hex(text.get(mark + 1 + n * HEX..mark + 1 + (n + 1) * HEX)?);
        let stamp = if text[mark] == FIRST {
            field(0)
                .zip(field(1))
                .zip(field(2))
                .map(|((arrived, sent), messages)| Stamp::First {
                    arrived,
                    sent,
                    messages,
                })
        } else {
            field(0).map(|sent| Stamp::Next { sent })
        };
        if let Some(stamp) = stamp {
            each(stamp);
        }
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_any_surrounding_text_and_torn_ones_are_skipped() {
        let stamps = [
            Stamp::First {
                arrived: 1,
                sent: u64::MAX,
                messages: 1_020,
            },
            Stamp::Next { sent: 7 },
            Stamp::Next { sent: 8 },
        ];
        let mut text = String::from("{\"value\":\"~torn ");
        stamps.iter().for_each(|stamp| stamp.write(&mut text));
        text.push_str("\"}~0000");
        let mut seen = Vec::new();
        scan(text.as_bytes(), |stamp| seen.push(stamp));
        assert_eq!(seen, stamps);
    }
}
