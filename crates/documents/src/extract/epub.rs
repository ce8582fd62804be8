//! EPUB books: their chapters, which are web pages, in reading order.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::BytesStart;
use quick_xml::events::Event;

use crate::ExtractError;

use super::archive::Archive;
use super::archive::attribute;
use super::html;
use super::output::Output;

const CONTAINER: &str = "META-INF/container.xml";
const ENCRYPTION: &str = "META-INF/encryption.xml";

/// Begins the name of each method that encrypts chapters; fonts are hidden by other methods.
const CIPHER: &str = "http://www.w3.org/2001/04/xmlenc#";

pub(super) fn extract(bytes: Vec<u8>, output: &mut Output<'_>) -> Result<(), ExtractError> {
    let mut archive = Archive::open(bytes, "an EPUB book")?;
    if archive.contains(ENCRYPTION) {
        let encryption = archive.read_text(ENCRYPTION)?;
        if encryption.contains(&format!("Algorithm=\"{CIPHER}")) {
            return Err(ExtractError::Encrypted);
        }
    }
    let container = archive.read_text(CONTAINER)?;
    let mut package = None;
    for_each_element(&container, &mut |element| {
        if element.local_name().as_ref() == "rootfile" && package.is_none() {
            package = attribute(element, "full-path");
        }
    });
    let package = package.ok_or_else(|| archive.damaged())?;
    let folder = package.rsplit_once('/').map_or("", |(folder, _)| folder);
    for chapter in chapters(&archive.read_text(&package)?) {
        let path = resolve(folder, &chapter);
        // A book without one of its chapters is still of use.
        if archive.contains(&path) {
            html::extract(&archive.read(&path)?, output)?;
        }
    }
    Ok(())
}

/// The paths of the chapters, as the package lists them.
fn chapters(package: &str) -> Vec<String> {
    let mut paths = HashMap::new();
    let mut order = Vec::new();
    for_each_element(
        package,
        &mut |element| match element.local_name().as_ref() {
            "item" => {
                if let (Some(id), Some(path)) =
                    (attribute(element, "id"), attribute(element, "href"))
                {
                    paths.insert(id, path);
                }
            }
            "itemref" => order.extend(attribute(element, "idref")),
            _ => {}
        },
    );
    order.iter().filter_map(|id| paths.remove(id)).collect()
}

fn for_each_element(xml: &str, visit: &mut dyn FnMut(&BytesStart<'_>)) {
    let mut reader = Reader::from_str(xml);
    // What follows an error is not read.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(element) | Event::Empty(element) => visit(&element),
            Event::Eof => return,
            _ => {}
        }
    }
}

/// The name in the archive of a URL relative to a folder.
fn resolve(folder: &str, url: &str) -> String {
    let path = url.split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    percent_decoded(&parts.join("/"))
}

fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if code.is_some() { &after[2..] } else { after };
        bytes.push(code.unwrap_or(first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_package() {
        for (folder, url, path) in [
            (
                "OEBPS",
                "text/one%20two.xhtml#part",
                "OEBPS/text/one two.xhtml",
            ),
            ("", "one.xhtml", "one.xhtml"),
            ("a/b", "../c/./d.xhtml", "a/c/d.xhtml"),
            ("", "100%.xhtml", "100%.xhtml"),
        ] {
            assert_eq!(resolve(folder, url), path);
        }
    }
}
