//! Figures with their targets, as Markdown tables and as JSON.

use crate::BenchError;
use crate::history::Rounds;
use crate::history::Sitting;
use crate::load::median;
use crate::markdown;
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
    /// What differs from an ordinary benchmark, such as the number of replicas.
    conditions: Vec<String>,
    values: HashMap<String, Values>,
    /// The database's tables after the last step.
    tables: Vec<Vec<String>>,
    failures: Vec<String>,
}

/// The values of a figure, one for each round.
#[derive(Default)]
struct Values {
    tested: Vec<f64>,
    /// Of the server that the tested one is compared with.
    base: Vec<f64>,
    /// Of the null server or Jupyter.
    other: Vec<f64>,
    other_processes: f64,
}

/// A figure is doubtful if other processes used more than this many cores.
const QUIET: f64 = 0.5;

impl Report {
    /// An empty report on the server named `tested`.
    pub(crate) fn new(tested: &'static str, conditions: Vec<String>) -> Self {
        Self {
            tested,
            started: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            conditions,
            values: HashMap::new(),
            tables: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add_tested(&mut self, step: impl Display, figures: Result<Figures, BenchError>) {
        self.add(step, self.tested, figures, |values| &mut values.tested);
    }

    /// Adds the database's tables, as [`crate::database::Database::tables`] gives them.
    pub(crate) fn add_tables(&mut self, tables: Vec<Vec<String>>) {
        self.tables = tables;
    }

    /// Adds the figures of the server that the tested one is compared with.
    pub(crate) fn add_base(&mut self, step: impl Display, figures: Result<Figures, BenchError>) {
        self.add(step, "base", figures, |values| &mut values.base);
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
        figures.filter_map(|figure| {
            let values = self.values.get(figure.name)?;
            Some(Row::new(figure, values, self.other(figure)))
        })
    }

    /// The rounds of the compared program's figure.
    fn other(&self, figure: &Figure) -> &[f64] {
        let values = self.values.get(figure.counterpart);
        values.map_or(&[], |values| &values.other)
    }

    /// The tested server's figures, as they are kept.
    pub(crate) fn sitting(&self, plan: &str, commit: &str) -> Sitting {
        self.sitting_of(plan, commit, |values| &values.tested)
    }

    /// The figures of the server that the tested one was compared with.
    pub(crate) fn base_sitting(&self, plan: &str) -> Sitting {
        self.sitting_of(plan, "base", |values| &values.base)
    }

    fn sitting_of(&self, plan: &str, commit: &str, side: impl Fn(&Values) -> &Vec<f64>) -> Sitting {
        let shown = TABLES.iter().flat_map(|table| table.figures);
        let figures = shown.filter_map(|figure| {
            let tested = side(self.values.get(figure.name)?).clone();
            let other = self.other(figure).to_vec();
            (!tested.is_empty()).then(|| (figure.name.to_owned(), Rounds { tested, other }))
        });
        Sitting {
            plan: plan.to_owned(),
            commit: commit.to_owned(),
            date: self.started.clone(),
            machine: machine(),
            figures: figures.collect(),
        }
    }

    /// The tables as aligned Markdown.
    pub(crate) fn markdown(&self, title: &str) -> String {
        let mut out = format!("# {title}\n\n{} · {}", self.started, machine());
        for condition in &self.conditions {
            // Writing to a String cannot fail.
            let _ = write!(out, " · {condition}");
        }
        out.push('\n');
        for table in &TABLES {
            self.write_table(table, &mut out);
        }
        if !self.tables.is_empty() {
            let head = [
                "table",
                "MiB",
                "of it indexes",
                "rows",
                "dead",
                "autovacuums",
            ];
            let mut lines = vec![head.map(str::to_owned).to_vec()];
            lines.extend(self.tables.iter().cloned());
            let _ = write!(out, "\n{}", markdown::table(&lines, &(1..=5)));
        }
        for failure in &self.failures {
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
        // A table without a comparison has neither its column nor a ratio.
        let is_shown = |column: usize| table.other.is_some() || !matches!(column, 2..=3);
        let lines: Vec<Vec<String>> = lines
            .into_iter()
            .map(|line| {
                let cells = line.into_iter().enumerate();
                let shown = cells.filter(|(column, _)| is_shown(*column));
                shown.map(|(_, cell)| cell).collect()
            })
            .collect();
        let numbers = 1..=(if table.other.is_some() { 3 } else { 1 });
        out.push('\n');
        out.push_str(&markdown::table(&lines, &numbers));
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
                    figure[other] = json!(self.other(row.figure));
                }
                figure
            })
            .collect();
        json!({
            "started": self.started,
            "machine": machine(),
            "conditions": self.conditions,
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
    fn new(figure: &'static Figure, values: &'a Values, other: &[f64]) -> Self {
        let middle = |rounds: &[f64]| (!rounds.is_empty()).then(|| median(rounds));
        let (tested, other) = (middle(&values.tested), middle(other));
        let shown = tested.map(|value| figure.rounded(value));
        let ratio = tested
            .zip(other)
            .map(|(value, null)| Ratio(value / null).rounded());
        let verdict = match figure.target {
            Target::AtMost(limit) => shown.map(|value| value <= limit),
            Target::AtLeast(limit) => shown.map(|value| value >= limit),
            Target::AtMostTimesNull(limit, _) => ratio.map(|ratio| ratio <= limit),
            Target::AtLeastTimesNull(limit, _) => ratio.map(|ratio| ratio >= limit),
            Target::Low | Target::High => None,
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
            Target::AtMostTimesNull(times, absolute) => format!("≤ {times}× null (≤ {absolute})"),
            Target::AtLeastTimesNull(times, absolute) => format!("≥ {times}× null (≥ {absolute})"),
            Target::Low | Target::High => String::new(),
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
            ratio.map_or(String::new(), |ratio| Ratio(ratio).to_string()),
            self.target(),
            format!("{verdict}{noise}"),
        ]
    }
}

/// A ratio, shown with two decimals, or four if it is small.
pub(crate) struct Ratio(pub(crate) f64);

impl Ratio {
    fn decimals(&self) -> usize {
        if self.0 < 0.095 { 4 } else { 2 }
    }

    fn rounded(&self) -> f64 {
        let scale = if self.decimals() == 4 { 1e4 } else { 1e2 };
        (self.0 * scale).round() / scale
    }
}

impl Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.*}", self.decimals(), self.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, f64)]) -> Result<Figures, BenchError> {
        let mut figures = Figures::default();
        values
            .iter()
            .for_each(|(name, value)| figures.put(*name, *value));
        Ok(figures)
    }

    fn line<'a>(table: &'a str, label: &str) -> &'a str {
        table
            .lines()
            .find(|line| line.contains(label))
            .expect(label)
    }

    #[test]
    fn a_figure_that_the_null_server_has_is_judged_by_their_ratio() {
        let mut report = Report::new("assistd", Vec::new());
        // A machine ten times slower than the absolute bounds are for.
        report.add_tested("flow.16", figures(&[("flow.16.rate", 40.0)]));
        report.add_other("null", "flow.16", figures(&[("flow.16.rate", 180.0)]));
        report.add_tested("run", figures(&[("run.p50", 4.0)]));
        report.add_other("null", "run", figures(&[("run.p50", 2.0)]));
        let table = report.markdown("Benchmark");
        let flow = line(&table, "whole flow, 16");
        assert!(
            flow.contains("≥ 0.22× null (≥ 400)") && flow.contains("ok"),
            "{flow}"
        );
        let run = line(&table, "run alone: ms p50");
        assert!(run.contains("MISS"), "{run}");
    }

    #[test]
    fn the_databases_cpu_is_compared_with_the_null_servers() {
        let mut report = Report::new("assistd", Vec::new());
        let flow = [("flow.16.server-cpu", 0.9), ("flow.16.database-cpu", 1.2)];
        report.add_tested("flow.16", figures(&flow));
        report.add_other("null", "flow.16", figures(&[("flow.16.server-cpu", 0.3)]));
        let table = report.markdown("Benchmark");
        let database = line(&table, "database CPU");
        assert!(
            database.contains("4.00") && database.contains("ok"),
            "{database}"
        );
        let kept = report.sitting("quick", "0123abc");
        let rounds = kept
            .rounds("flow.16.database-cpu")
            .expect("it was measured");
        assert_eq!((&*rounds.tested, &*rounds.other), (&[1.2][..], &[0.3][..]));
    }
}
