//! What the documents quote is what the program does.

use std::fmt::Write as _;
use std::path::Path;

use assistd::telemetry::{Kind, METRICS, Metric};
use regex::Regex;

const ALERTS: &str = include_str!("../../deploy/alerts.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana.json");
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

/// The labels of a metric, which its help text names in parentheses.
fn labels(metric: &Metric) -> Vec<&str> {
    let (_, rest) = metric.help.rsplit_once('(').unwrap_or_default();
    rest.trim_end_matches(')').split(", ").collect()
}

#[test]
fn alerts_and_dashboard_query_metrics_that_exist() {
    /// Of Prometheus itself.
    const COMMON: [&str; 3] = ["job", "instance", "le"];
    let name = Regex::new(r"assistd_[a-z_]+").expect("a valid pattern");
    let by = Regex::new(r"by \(([a-z_, ]+)\)").expect("a valid pattern");
    let filter = Regex::new(r"([a-z_]+)(?:=~|!~|!=|=)").expect("a valid pattern");
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().map(|target| &target["expr"]);
    let queries = queries.map(|query| query.as_str().expect("a query is text").to_owned());
    // Alerts are compared one by one.
    let alerts = ALERTS.split("- alert:").skip(1).map(str::to_owned);
    let (mut count, mut seen) = (0, Vec::new());
    for query in queries.chain(alerts) {
        count += 1;
        let mut allowed = COMMON.to_vec();
        for found in name.find_iter(&query) {
            let found = found.as_str();
            let of = |suffix: &str| {
                METRICS
                    .iter()
                    .find(|it| it.name == found.trim_end_matches(suffix))
            };
            let metric = match of("_bucket").or_else(|| of("_count")) {
                Some(metric) => metric,
                None => panic!("no metric {found}: {query}"),
            };
            let is_histogram = matches!(metric.kind, Kind::Seconds(_));
            assert_eq!(metric.name != found, is_histogram, "{found}: {query}");
            allowed.extend(labels(metric));
            seen.push(metric.name);
        }
        let grouped = by.captures_iter(&query).map(|found| found[1].to_owned());
        let grouped = grouped.flat_map(|it| it.split(", ").map(str::to_owned).collect::<Vec<_>>());
        let selectors = query
            .split('{')
            .skip(1)
            .filter_map(|it| it.split('}').next());
        let filtered =
            selectors.flat_map(|it| filter.captures_iter(it).map(|found| found[1].to_owned()));
        for label in grouped.chain(filtered) {
            assert!(allowed.contains(&&*label), "no label {label}: {query}");
        }
    }
    assert!(count > 30, "only {count} queries were found");
    let missing = METRICS.iter().filter(|metric| !seen.contains(&metric.name));
    let missing: Vec<_> = missing.map(|metric| metric.name).collect();
    assert!(
        missing.is_empty(),
        "the dashboard does not show {missing:?}"
    );
}
