//! What the documents quote is what the program does.

use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;

const LOGGING: &str = include_str!("../../docs/logging.md");

/// Lines that libraries write.
const OF_LIBRARIES: [&str; 1] = ["slow statement: …"];

/// The text of all sources, with strings on one line and their placeholders as `…`.
fn strings_of_sources() -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).expect("the folder exists") {
            let path = entry.expect("the file is readable").path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("the file is readable");
                writeln!(text, "{source}").expect("strings take everything");
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["src", "crates", "sandbox/src"] {
        collect(&root.join(folder), &mut text);
    }
    let continued = Regex::new(r"\\\n\s*").expect("a valid pattern");
    let placeholder = Regex::new(r"\{[^{}\n]*\}").expect("a valid pattern");
    let text = continued.replace_all(&text, "");
    placeholder.replace_all(&text, "…").into_owned()
}

#[test]
fn every_log_line_that_is_explained_exists() {
    let strings = strings_of_sources();
    let (_, tables) = LOGGING
        .split_once("## Lines and what to do")
        .expect("the heading exists");
    let code = Regex::new("`([^`]+)`").expect("a valid pattern");
    let mut count = 0;
    for row in tables.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        for line in code.captures_iter(cell).map(|found| found[1].to_owned()) {
            count += 1;
            let parts = line.split('…').map(str::trim).filter(|part| part.len() > 2);
            let is_found =
                parts.clone().count() > 0 && parts.clone().all(|it| strings.contains(it));
            assert!(
                is_found || OF_LIBRARIES.contains(&&*line),
                "docs/logging.md explains a line that no source has: {line}"
            );
        }
    }
    assert!(count > 40, "only {count} lines were found");
}
