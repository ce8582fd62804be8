//! The sandbox worker by itself, beside Jupyter kernels that do the same.

mod dialogue;
mod jupyter;
mod steps;
mod worker;

pub(crate) use steps::sit;

use crate::BenchError;
use serde::Deserialize;
use std::path::PathBuf;

/// What is measured.
pub(crate) struct Programs {
    /// The worker.
    pub(crate) worker: PathBuf,
    /// A Python that has Jupyter, if there is one.
    pub(crate) jupyter: Option<PathBuf>,
}

/// Code, and what it is to show.
struct Cell {
    code: &'static str,
    /// The text of its result, if that matters.
    result: Option<&'static str>,
    pictures: usize,
}

/// As little as a cell can do and show.
const TRIVIAL: Cell = Cell {
    code: "1+1",
    result: Some("2"),
    pictures: 0,
};

/// What an analysis begins with.
const IMPORTS: Cell = Cell {
    code: "import numpy, pandas, matplotlib.pyplot",
    result: Some(""),
    pictures: 0,
};

/// An analysis that is nothing but its picture.
const PLOT: Cell = Cell {
    code: "import numpy, pandas, matplotlib.pyplot\n\
           pandas.DataFrame({'month': range(12), 'revenue': numpy.arange(12) ** 2})\
           .plot('month', 'revenue', figsize=(4, 3))",
    result: None,
    pictures: 1,
};

/// What a cell showed.
#[derive(Debug, Default, Deserialize)]
struct Shown {
    result: String,
    pictures: usize,
}

impl Shown {
    fn check(&self, cell: &Cell) -> Result<(), BenchError> {
        let is_expected = cell.result.is_none_or(|text| self.result.trim() == text);
        if is_expected && self.pictures == cell.pictures {
            return Ok(());
        }
        Err(BenchError::Unexpected("a cell showed something else"))
    }
}
