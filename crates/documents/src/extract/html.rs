//! HTML: converted to Markdown, without elements that browsers do not show.

use encoding_rs::Encoding;
use htmd::HtmlToMarkdown;
use htmd::options::BulletListMarker;
use htmd::options::Options;

use crate::ExtractError;

use super::data_url;
use super::markdown;
use super::output::Output;
use super::text;

/// Number of bytes in which the declaration of an encoding is searched for, as in the HTML
/// standard.
const PRESCAN_BYTES: usize = 1024;

const HIDDEN_TAGS: &[&str] = &["script", "style", "template", "svg", "iframe", "object"];

pub(super) fn extract(bytes: &[u8], output: &mut Output<'_>) -> Result<(), ExtractError> {
    let html = match declared_encoding(bytes) {
        Some(encoding) => encoding.decode(bytes).0.into_owned(),
        None => text::decode(bytes)?,
    };
    let markdown = HtmlToMarkdown::builder()
        .options(Options {
            bullet_list_marker: BulletListMarker::Dash,
            ul_bullet_spacing: 1,
            ol_number_spacing: 1,
            ..Options::default()
        })
        .skip_tags(HIDDEN_TAGS.to_vec())
        .scripting_enabled(false)
        .build()
        .convert(&data_url::without_contents(&html))
        .map_err(|_| ExtractError::Damaged {
            expected: "an HTML page".to_owned(),
        })?;
    drop(html);
    markdown::extract(&markdown, output)
}

/// The encoding that `<meta charset=…>` or `<meta … content="…; charset=…">` declares. Ignored if
/// the page is valid UTF-8 or has a byte order mark.
fn declared_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    if Encoding::for_bom(bytes).is_some() || std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    let head =
        String::from_utf8_lossy(&bytes[..bytes.len().min(PRESCAN_BYTES)]).to_ascii_lowercase();
    let (_, declared) = head.split_once("charset=")?;
    let label: String = declared
        .trim_start_matches(['"', '\''])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_:".contains(*c))
        .collect();
    Encoding::for_label(label.as_bytes())
}
