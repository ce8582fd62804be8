//! The change of figures between two sittings, and the noise that it must exceed to count.

use crate::BenchError;
use crate::history;
use crate::history::Rounds;
use crate::history::Sitting;
use crate::load::median;
use crate::markdown;
use crate::report::Ratio;
use crate::run::HISTORY;
use crate::targets::Figure;
use crate::targets::TABLES;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which kept sittings to compare.
#[derive(Parser)]
pub(crate) struct Compare {
    /// Compare the newest sitting with this commit's [default: with the one before it]
    commit: Option<String>,
    /// Compare full sittings instead of quick ones
    #[arg(long)]
    full: bool,
    /// Folder of the results
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// Shows the change between two kept sittings.
pub(crate) fn run(options: &Compare) -> Result<ExitCode, BenchError> {
    let plan = if options.full { "full" } else { "quick" };
    let mut sittings = history::read(&options.results.join(HISTORY))?;
    sittings.retain(|sitting| sitting.plan == plan);
    let newest = sittings.pop();
    let before = sittings.iter().rev().find(|sitting| {
        let wanted = options.commit.as_deref();
        wanted.is_none_or(|commit| sitting.commit.starts_with(commit))
    });
    let (before, newest) = before.zip(newest.as_ref()).ok_or(BenchError::Unexpected(
        "there are no two kept sittings to compare",
    ))?;
    println!("# {} compared with {}\n", newest.name(), before.name());
    print!("{}", markdown(before, newest, Taken::Apart));
    Ok(ExitCode::SUCCESS)
}

/// The standard errors that a change must exceed. With three rounds a side, two figures of equal servers
/// differ by more in one case of sixty.
const STANDARD_ERRORS: f64 = 4.0;

/// The least noise of any figure.
const LEAST_NOISE: f64 = 0.03;

/// The noise of times and rates that are measured once a sitting.
const NOISE_OF_SINGLE_TIME: f64 = 0.25;

/// The noise of memory that is measured once a sitting.
const NOISE_OF_SINGLE_MEMORY: f64 = 0.1;

/// How two sittings were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At different times: what the null server or Jupyter has too is compared by ratio, except memory.
    Apart,
    /// In the same rounds: compared round by round.
    ByTurns,
}

/// A figure's relative change.
struct Change {
    change: f64,
    noise: f64,
}

impl Change {
    fn between(figure: &Figure, before: &Rounds, after: &Rounds, taken: Taken) -> Self {
        let has_other = !before.other.is_empty() && !after.other.is_empty();
        let values = |rounds: &Rounds| match taken {
            Taken::Apart if has_other && figure.varies_with_speed() => ratios(rounds),
            _ => rounds.tested.clone(),
        };
        let (before, after) = (values(before), values(after));
        let (from, to) = (median(&before), median(&after));
        let change = if from == to { 0.0 } else { to / from - 1.0 };
        let error = match taken {
            Taken::ByTurns if before.len() == after.len() => {
                standard_error(&quotients(&after, &before))
            }
            _ => standard_error(&before)
                .zip(standard_error(&after))
                .map(|(a, b)| a.hypot(b)),
        };
        let noise = match error {
            Some(error) => STANDARD_ERRORS * error,
            None if figure.varies_with_speed() => NOISE_OF_SINGLE_TIME,
            None => NOISE_OF_SINGLE_MEMORY,
        };
        Self {
            change,
            noise: noise.max(LEAST_NOISE),
        }
    }

    fn verdict(&self, figure: &Figure) -> &'static str {
        if self.change.abs() <= self.noise {
            ""
        } else if (self.change > 0.0) == figure.is_higher_better() {
            "better"
        } else {
            "WORSE"
        }
    }
}

/// The rounds' ratios to the null server or Jupyter.
fn ratios(rounds: &Rounds) -> Vec<f64> {
    if rounds.tested.len() == rounds.other.len() {
        return quotients(&rounds.tested, &rounds.other);
    }
    let other = median(&rounds.other);
    rounds.tested.iter().map(|tested| tested / other).collect()
}

fn quotients(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}

/// The standard error of the samples' mean, relative to it; none for a single one.
fn standard_error(samples: &[f64]) -> Option<f64> {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    if samples.len() < 2 || mean == 0.0 {
        return None;
    }
    let squares = samples.iter().map(|sample| (sample - mean).powi(2));
    let variance = squares.sum::<f64>() / (count - 1.0);
    Some((variance / count).sqrt() / mean.abs())
}

/// The figures that both sittings have, and the number of changes beyond noise.
pub(crate) fn markdown(before: &Sitting, after: &Sitting, taken: Taken) -> String {
    let head = [
        "figure", "before", "× other", "after", "× other", "change", "noise", "",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut verdicts = Vec::new();
    for figure in TABLES.iter().flat_map(|table| table.figures) {
        let Some((from, to)) = before.rounds(figure.name).zip(after.rounds(figure.name)) else {
            continue;
        };
        let change = Change::between(figure, from, to, taken);
        let verdict = change.verdict(figure);
        verdicts.push(verdict);
        lines.push(cells(figure, from, to, &change, verdict));
    }
    if lines.len() == 1 {
        return "The sittings have no figure in common.\n".to_owned();
    }
    let count = |wanted| {
        verdicts
            .iter()
            .filter(|verdict| **verdict == wanted)
            .count()
    };
    let mut out = markdown::table(&lines, &(1..=6));
    out.push_str(&format!(
        "\n{} figures: {} better, {} worse, {} within noise.\n",
        verdicts.len(),
        count("better"),
        count("WORSE"),
        count("")
    ));
    if before.machine != after.machine {
        out.push_str(&format!(
            "The machines differ ({}; {}): only ratios can be compared.\n",
            before.machine, after.machine
        ));
    }
    out
}

fn cells(
    figure: &Figure,
    before: &Rounds,
    after: &Rounds,
    change: &Change,
    verdict: &str,
) -> Vec<String> {
    let ratio = |rounds: &Rounds| match rounds.other.is_empty() {
        true => String::new(),
        false => Ratio(median(&ratios(rounds))).to_string(),
    };
    vec![
        figure.label.to_owned(),
        figure.shown(median(&before.tested)),
        ratio(before),
        figure.shown(median(&after.tested)),
        ratio(after),
        format!("{:+.1} %", 100.0 * change.change),
        format!("± {:.1} %", 100.0 * change.noise),
        verdict.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sitting(figures: &[(&str, &[f64], &[f64])]) -> Sitting {
        let figures = figures.iter().map(|(name, tested, other)| {
            let (tested, other) = (tested.to_vec(), other.to_vec());
            ((*name).to_owned(), Rounds { tested, other })
        });
        Sitting {
            plan: "quick".to_owned(),
            commit: "0123abc".to_owned(),
            date: "2026-01-02 03:04 UTC".to_owned(),
            machine: "2 cores".to_owned(),
            figures: figures.collect(),
        }
    }

    fn verdict(table: &str, label: &str) -> String {
        let line = table
            .lines()
            .find(|line| line.contains(label))
            .expect(label);
        line.rsplit('|').nth(1).expect("a table").trim().to_owned()
    }

    #[test]
    fn only_changes_beyond_the_noise_are_flagged() {
        let before = sitting(&[
            ("flow.16.rate", &[600.0, 606.0, 594.0], &[]),
            ("flow.64.rate", &[500.0, 400.0, 600.0], &[]),
            ("run.p50", &[4.0, 4.04, 3.96], &[]),
            ("memory.warm", &[33.0], &[9.0]),
            ("restart.first-answer", &[200.0], &[]),
            ("crash.doubled", &[0.0], &[]),
        ]);
        let after = sitting(&[
            ("flow.16.rate", &[500.0, 505.0, 495.0], &[]),
            ("flow.64.rate", &[450.0, 350.0, 550.0], &[]),
            ("run.p50", &[3.0, 3.03, 2.97], &[]),
            ("memory.warm", &[34.0], &[12.0]),
            ("restart.first-answer", &[160.0], &[]),
            ("crash.doubled", &[0.0], &[]),
        ]);
        let table = markdown(&before, &after, Taken::Apart);
        let labels = [
            "flow, 16",
            "flow, 64",
            "run alone",
            "warm server",
            "full table",
            "doubled",
        ];
        let verdicts = labels.map(|label| verdict(&table, label));
        assert_eq!(verdicts, ["WORSE", "", "better", "", "", ""], "{table}");
        assert!(
            table.contains("6 figures: 1 better, 1 worse, 4 within noise."),
            "{table}"
        );
    }

    #[test]
    fn sittings_on_a_slower_machine_are_compared_by_ratio() {
        let before = sitting(&[("run.p50", &[4.0, 4.1, 4.0], &[2.0, 2.05, 2.0])]);
        let after = sitting(&[("run.p50", &[8.0, 8.1, 8.2], &[4.0, 4.05, 4.1])]);
        let table = markdown(&before, &after, Taken::Apart);
        assert_eq!(verdict(&table, "run alone"), "", "{table}");
    }

    #[test]
    fn rounds_taken_by_turns_are_compared_in_pairs() {
        // The machine gets slower, both servers with it.
        let before = sitting(&[("flow.16.rate", &[600.0, 500.0, 400.0], &[])]);
        let after = sitting(&[("flow.16.rate", &[660.0, 551.0, 440.0], &[])]);
        let apart = markdown(&before, &after, Taken::Apart);
        assert_eq!(verdict(&apart, "flow, 16"), "", "{apart}");
        let turns = markdown(&before, &after, Taken::ByTurns);
        assert_eq!(verdict(&turns, "flow, 16"), "better", "{turns}");
    }
}
