//! The kept figures of earlier sittings, in a text file with one figure a line, so that the file's
//! history is readable.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// The figures of one benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sitting {
    /// `quick` or `full`: figures of different plans are not compared.
    pub(crate) plan: String,
    /// The commit of the measured server.
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    /// By name, in the order of the tables.
    pub(crate) figures: Vec<(String, Rounds)>,
}

/// The values of a figure, one for each round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rounds {
    pub(crate) tested: Vec<f64>,
    /// Of the null server or Jupyter; empty if it lacks the figure.
    pub(crate) other: Vec<f64>,
}

/// Why kept figures cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: not a kept figure: {line}", path = path.display())]
    Malformed { path: PathBuf, line: String },
}

const HEAD: &str = "\
# Kept sittings, the newest last: for each figure the values of its rounds, and after the slash those of the
# null server or Jupyter in the same rounds. bench/run appends to this file, bench/compare reads it.
";

impl Sitting {
    pub(crate) fn rounds(&self, name: &str) -> Option<&Rounds> {
        let found = self.figures.iter().find(|(found, _)| found == name);
        found.map(|(_, rounds)| rounds)
    }

    /// The commit and the date.
    pub(crate) fn name(&self) -> String {
        format!("{} of {}", self.commit, self.date)
    }

    fn write(&self, out: &mut String) {
        let Self {
            plan,
            commit,
            date,
            machine,
            figures,
        } = self;
        out.push_str(&format!(
            "\nplan: {plan}\ncommit: {commit}\ndate: {date}\nmachine: {machine}\n"
        ));
        for (name, rounds) in figures {
            out.push_str(&format!("{name}: {}", numbers(&rounds.tested)));
            if !rounds.other.is_empty() {
                out.push_str(&format!(" / {}", numbers(&rounds.other)));
            }
            out.push('\n');
        }
    }

    /// Reads the lines of a sitting; the first one that is malformed is the error.
    fn parse(block: &str) -> Result<Self, &str> {
        let mut sitting = Self {
            plan: String::new(),
            commit: String::new(),
            date: String::new(),
            machine: String::new(),
            figures: Vec::new(),
        };
        for line in block.lines() {
            let (name, value) = line.split_once(": ").ok_or(line)?;
            match name {
                "plan" => sitting.plan = value.to_owned(),
                "commit" => sitting.commit = value.to_owned(),
                "date" => sitting.date = value.to_owned(),
                "machine" => sitting.machine = value.to_owned(),
                _ => {
                    let (tested, other) = value.split_once(" / ").unwrap_or((value, ""));
                    let rounds = Rounds {
                        tested: parse_numbers(tested).ok_or(line)?,
                        other: parse_numbers(other).ok_or(line)?,
                    };
                    sitting.figures.push((name.to_owned(), rounds));
                }
            }
        }
        Ok(sitting)
    }
}

/// Numbers with four significant digits, which is more than their noise.
fn numbers(values: &[f64]) -> String {
    let shown = values.iter().map(|value| {
        let rounded = format!("{value:.3e}").parse().unwrap_or(*value);
        rounded.to_string()
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn parse_numbers(text: &str) -> Option<Vec<f64>> {
    text.split_whitespace()
        .map(|word| word.parse().ok())
        .collect()
}

/// All kept sittings, the newest last; none if there is no file.
pub(crate) fn read(path: &Path) -> Result<Vec<Sitting>, HistoryError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(path, error)),
    };
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n'));
    let blocks = blocks.filter(|block| !block.is_empty() && !block.starts_with('#'));
    let sittings = blocks.map(|block| {
        Sitting::parse(block).map_err(|line| HistoryError::Malformed {
            path: path.to_owned(),
            line: line.to_owned(),
        })
    });
    sittings.collect()
}

/// Appends a sitting; creates the file if there is none.
pub(crate) fn append(path: &Path, sitting: &Sitting) -> Result<(), HistoryError> {
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => HEAD.to_owned(),
        read => read.map_err(|error| io_error(path, error))?,
    };
    sitting.write(&mut text);
    fs::write(path, text).map_err(|error| io_error(path, error))
}

fn io_error(path: &Path, error: io::Error) -> HistoryError {
    HistoryError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sitting(commit: &str) -> Sitting {
        let rounds = |tested: &[f64], other: &[f64]| Rounds {
            tested: tested.to_vec(),
            other: other.to_vec(),
        };
        Sitting {
            plan: "quick".to_owned(),
            commit: commit.to_owned(),
            date: "2026-01-02 03:04 UTC".to_owned(),
            machine: "2 cores (AMD EPYC), 24 GiB, Linux 6.18".to_owned(),
            figures: vec![
                (
                    "flow.16.rate".to_owned(),
                    rounds(&[605.4, 598.0], &[6010.0, 5900.0]),
                ),
                ("commits.writing".to_owned(), rounds(&[2.2], &[])),
            ],
        }
    }

    #[test]
    fn sittings_are_read_as_they_were_kept_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.txt");
        assert_eq!(read(&path).expect("no file is no sitting"), []);
        let [first, second] = ["0123abc", "4567def"].map(sitting);
        append(&path, &first).expect("the folder is writable");
        let one = fs::read_to_string(&path).expect("it was written");
        append(&path, &second).expect("the folder is writable");
        assert_eq!(read(&path).expect("the file is whole"), [first, second]);
        let both = fs::read_to_string(&path).expect("it was written");
        assert!(both.starts_with(&one), "an earlier sitting was changed");
        assert!(
            both.contains("\nflow.16.rate: 605.4 598 / 6010 5900\n"),
            "{both}"
        );
    }

    #[test]
    fn a_malformed_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.txt");
        fs::write(&path, "plan: quick\nflow.16.rate: fast\n").expect("the folder is writable");
        let error = read(&path).expect_err("fast is no number").to_string();
        assert!(
            error.ends_with("not a kept figure: flow.16.rate: fast"),
            "{error}"
        );
    }
}
