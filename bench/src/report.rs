//! Figures with their targets, as Markdown tables and as JSON.

use crate::BenchError;
use crate::load::median;
use crate::steps::Figures;
use crate::targets::Figure;
use crate::targets::TABLES;
use crate::targets::Table;
use crate::targets::Target;
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Display;
use std::fmt::Write;

/// All figures of a benchmark.
pub(crate) struct Report {
    tested: &'static str,
    started: String,
    values: HashMap<String, Values>,
    failures: Vec<String>,
}

#[derive(Default)]
struct Values {
    tested: Vec<f64>,
    other: Vec<f64>,
    other_processes: f64,
}

/// A figure is doubtful if other processes used more than this many cores.
const QUIET: f64 = 0.5;

impl Report {
    /// An empty report on the server named `tested`.
    pub(crate) fn new(tested: &'static str) -> Self {
        Self {
            tested,
            started: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            values: HashMap::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add_tested(&mut self, step: impl Display, figures: Result<Figures, BenchError>) {
        self.add(step, self.tested, figures, |values| &mut values.tested);
    }

    /// Adds the figures of the compared program `name`.
    pub(crate) fn add_other(
        &mut self,
        other: &str,
        step: impl Display,
        figures: Result<Figures, BenchError>,
    ) {
        self.add(step, other, figures, |values| &mut values.other);
    }

    fn add(
        &mut self,
        step: impl Display,
        server: &str,
        figures: Result<Figures, BenchError>,
        side: impl Fn(&mut Values) -> &mut Vec<f64>,
    ) {
        match figures {
            Ok(figures) => {
                for (name, value) in figures.values {
                    let values = self.values.entry(name).or_default();
                    values.other_processes = values.other_processes.max(figures.other_processes);
                    side(values).push(value);
                }
            }
            Err(error) => {
                let failure = format!("{step} on {server}: {error}");
                eprintln!("FAILED {failure}");
                self.failures.push(failure);
            }
        }
    }

    /// Whether a step failed.
    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    fn rows(&self, table: &Table) -> impl Iterator<Item = Row<'_>> {
        let figures = table.figures.iter();
        figures.filter_map(|figure| Some(Row::new(figure, self.values.get(figure.name)?)))
    }

    /// The tables as aligned Markdown.
    pub(crate) fn markdown(&self, title: &str) -> String {
        let mut out = format!("# {title}\n\n{} · {}\n", self.started, machine());
        for table in &TABLES {
            self.write_table(table, &mut out);
        }
        for failure in &self.failures {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "\nFAILED: {failure}");
        }
        out
    }

    fn write_table(&self, table: &Table, out: &mut String) {
        let rows: Vec<_> = self.rows(table).map(|row| row.cells()).collect();
        if rows.is_empty() {
            return;
        }
        let other = table.other.unwrap_or_default();
        let head = ["figure", self.tested, other, "ratio", "target", ""];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(rows);
        let mut widths = [0; 6];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        // A table without a comparison has neither its column nor a ratio.
        let is_shown = |column: &usize| table.other.is_some() || !matches!(column, 2..=3);
        let columns: Vec<usize> = (0..widths.len()).filter(is_shown).collect();
        out.push('\n');
        for (n, line) in lines.iter().enumerate() {
            out.push('|');
            for &column in &columns {
                let cell = &line[column];
                let pad = " ".repeat(widths[column] - cell.chars().count());
                match column {
                    1..=3 => out.push_str(&format!(" {pad}{cell} |")),
                    _ => out.push_str(&format!(" {cell}{pad} |")),
                }
            }
            out.push('\n');
            if n == 0 {
                out.push('|');
                for &column in &columns {
                    let width = widths[column];
                    match column {
                        1..=3 => out.push_str(&format!("{}:|", "-".repeat(width + 1))),
                        _ => out.push_str(&format!("{}|", "-".repeat(width + 2))),
                    }
                }
                out.push('\n');
            }
        }
    }

    /// All figures of every round.
    pub(crate) fn json(&self) -> serde_json::Value {
        let figures: Vec<_> = TABLES
            .iter()
            .flat_map(|table| self.rows(table).map(|row| (table.other, row)))
            .map(|(other, row)| {
                let mut figure = json!({
                    "name": row.figure.name,
                    "label": row.figure.label,
                    "tested": row.values.tested,
                    "target": row.target(),
                    "met": row.verdict,
                    "strangers_cores": row.values.other_processes,
                });
                if let Some(other) = other {
                    figure[other] = json!(row.values.other);
                }
                figure
            })
            .collect();
        json!({
            "started": self.started,
            "machine": machine(),
            "tested": self.tested,
            "failures": self.failures,
            "figures": figures,
        })
    }
}

struct Row<'a> {
    figure: &'static Figure,
    values: &'a Values,
    tested: Option<f64>,
    other: Option<f64>,
    verdict: Option<bool>,
    noisy: bool,
}

impl<'a> Row<'a> {
    fn new(figure: &'static Figure, values: &'a Values) -> Self {
        let middle = |rounds: &[f64]| (!rounds.is_empty()).then(|| median(rounds));
        let (tested, other) = (middle(&values.tested), middle(&values.other));
        let shown = tested.map(|value| figure.rounded(value));
        let verdict = match figure.target {
            Target::AtMost(limit) => shown.map(|value| value <= limit),
            Target::AtLeast(limit) => shown.map(|value| value >= limit),
            Target::AtMostTimesNull(times) => {
                tested.zip(other).map(|(value, null)| value <= times * null)
            }
            Target::None => None,
        };
        Self {
            figure,
            values,
            tested,
            other,
            verdict,
            noisy: values.other_processes > QUIET,
        }
    }

    fn target(&self) -> String {
        match self.figure.target {
            Target::AtMost(limit) => format!("≤ {limit}"),
            Target::AtLeast(limit) => format!("≥ {limit}"),
            Target::AtMostTimesNull(times) => format!("≤ {times}× null"),
            Target::None => String::new(),
        }
    }

    fn cells(&self) -> [String; 6] {
        let number =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| self.figure.shown(value));
        let ratio = self.tested.zip(self.other).map(|(a, b)| a / b);
        let verdict = match self.verdict {
            Some(true) => "ok",
            Some(false) => "MISS",
            None => "",
        };
        let noise = if self.noisy { " ~" } else { "" };
        [
            self.figure.label.to_owned(),
            number(self.tested),
            number(self.other),
            ratio.map_or(String::new(), shown_ratio),
            self.target(),
            format!("{verdict}{noise}"),
        ]
    }
}

/// A ratio with two decimals, or more for small ones.
fn shown_ratio(ratio: f64) -> String {
    if ratio < 0.095 {
        format!("{ratio:.4}")
    } else {
        format!("{ratio:.2}")
    }
}

/// A short description of the machine.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({model}), {:.0} GiB, Linux {}",
        kib / 1024.0 / 1024.0,
        kernel.trim()
    )
}
