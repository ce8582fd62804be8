//! Markdown: divided at its headings, otherwise unchanged.

use pulldown_cmark::Event;
use pulldown_cmark::Options;
use pulldown_cmark::Parser;
use pulldown_cmark::Tag;
use pulldown_cmark::TagEnd;

use crate::ExtractError;

use super::headings::HeadingPath;
use super::output::Output;

pub(super) fn extract(text: &str, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut path = HeadingPath::default();
    let mut section_start = 0;
    let mut title: Option<String> = None;
    for (event, range) in
        Parser::new_ext(text, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS).into_offset_iter()
    {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                output.push(None, path.titles(), &text[section_start..range.start])?;
                section_start = range.start;
                title = Some(String::new());
            }
            Event::End(TagEnd::Heading(level)) => {
                path.enter(level as u8, title.take().unwrap_or_default());
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some(title) = &mut title {
                    title.push_str(&words);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(title) = &mut title {
                    title.push(' ');
                }
            }
            _ => {}
        }
    }
    output.push(None, path.titles(), &text[section_start..])
}
