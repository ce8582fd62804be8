//! Rewriting of queries.

const OPENING_PHRASES: [&str; 14] = [
    "please",
    "can you",
    "could you",
    "would you",
    "tell me",
    "show me",
    "find",
    "explain",
    "what is",
    "what are",
    "who is",
    "i want to know",
    "about",
    "do you know",
];

/// Removes the opening phrases and the final punctuation of a question: what remains resembles the
/// text that answers it.
pub fn rewrite_query(query: &str) -> String {
    let plain = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = plain.trim_end_matches(['?', '!', '.']);
    while let Some(shorter) = OPENING_PHRASES
        .iter()
        .find_map(|phrase| strip(rest, phrase))
    {
        rest = shorter;
    }
    match rest {
        "" => plain,
        rest => rest.to_owned(),
    }
}

fn strip<'a>(text: &'a str, phrase: &str) -> Option<&'a str> {
    let head = text.get(..phrase.len())?;
    let rest = text.get(phrase.len()..)?.strip_prefix([' ', ','])?;
    head.eq_ignore_ascii_case(phrase).then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewritten_queries_keep_what_is_asked() {
        for (query, expected) in [
            (
                "Please tell me about  the refund policy?",
                "the refund policy",
            ),
            ("What is the speed of light?", "the speed of light"),
            ("what", "what"),
            ("Can you?", "Can you"),
            ("aboutness of texts", "aboutness of texts"),
            ("ä", "ä"),
        ] {
            assert_eq!(rewrite_query(query), expected);
        }
    }
}
