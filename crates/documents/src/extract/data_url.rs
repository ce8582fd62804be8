//! Files inside of texts.

const SCHEME: &str = "data:";
const BASE64: &str = ";base64,";

/// Longest type of a file in front of its content.
const MAX_TYPE_BYTES: usize = 100;

/// Removes the contents of `data:…;base64,…` URLs: pictures and fonts, which are no words.
pub(super) fn without_contents(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(SCHEME) {
        let (before, url) = rest.split_at(start + SCHEME.len());
        out.push_str(before);
        rest = url;
        let head = &url.as_bytes()[..url.len().min(MAX_TYPE_BYTES)];
        let marker = head
            .windows(BASE64.len())
            .position(|window| window == BASE64.as_bytes());
        // The type in front of the marker has no spaces.
        if let Some(marker) = marker.filter(|&at| !head[..at].contains(&b' ')) {
            let (kept, content) = url.split_at(marker + BASE64.len());
            out.push_str(kept);
            rest = content.trim_start_matches(|c: char| {
                c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | '%')
            });
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contents_of_data_urls_are_removed() {
        for (text, expected) in [
            (
                "![Chart](data:image/png;base64,QUJD+/==) and text",
                "![Chart](data:image/png;base64,) and text",
            ),
            ("data: see ;base64,abc", "data: see ;base64,abc"),
            ("the data: é;base", "the data: é;base"),
            ("data:", "data:"),
        ] {
            assert_eq!(without_contents(text), expected);
        }
    }
}
