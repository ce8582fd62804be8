//! Time stamps that travel inside the answer's text.
//!
//! The fake upstream writes each token as the moment it was sent, so whoever reads the tokens at
//! the far end can tell the server's share of a delay from the upstream's own. The first token also
//! says when the request arrived and how many messages it carried.

use std::fmt::Write;

const FIRST: u8 = b'^';
const NEXT: u8 = b'~';
const HEX: usize = 16;

/// What a token says of itself; times as [`crate::clock::now_ns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The answer's first token.
    First {
        /// When the request had arrived at the upstream.
        arrived: u64,
        /// When this token was sent.
        sent: u64,
        /// How many messages the request carried.
        messages: u64,
    },
    /// Any later token.
    Next {
        /// When this token was sent.
        sent: u64,
    },
}

impl Stamp {
    /// Appends the token's text. It is plain ASCII and needs no escaping in JSON.
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

/// Calls `each` for every whole stamp in `text`, in order.
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
