//! The sandbox worker, compared with Jupyter kernels.

mod connection;
mod jupyter;
mod steps;
mod worker;

pub(crate) use steps::measure;

use crate::BenchError;
use serde::Deserialize;
use std::path::PathBuf;

/// The programs to measure.
pub(crate) struct Programs {
    pub(crate) worker: PathBuf,
    /// A Python with Jupyter, if there is one.
    pub(crate) jupyter: Option<PathBuf>,
}

/// Code and its expected output.
struct Cell {
    code: &'static str,
    /// The text of the result, if it is checked.
    result: Option<&'static str>,
    pictures: usize,
}

/// The smallest cell with a result.
const TRIVIAL: Cell = Cell {
    code: "1+1",
    result: Some("2"),
    pictures: 0,
};

/// The usual imports of an analysis.
const IMPORTS: Cell = Cell {
    code: "import numpy, pandas, matplotlib.pyplot",
    result: Some(""),
    pictures: 0,
};

/// A small plot.
const PLOT: Cell = Cell {
    code: "import numpy, pandas, matplotlib.pyplot\n\
           pandas.DataFrame({'month': range(12), 'revenue': numpy.arange(12) ** 2})\
           .plot('month', 'revenue', figsize=(4, 3))",
    result: None,
    pictures: 1,
};

#[derive(Debug, Default, Deserialize)]
struct CellOutput {
    result: String,
    pictures: usize,
}

impl CellOutput {
    fn check(&self, cell: &Cell) -> Result<(), BenchError> {
        let is_expected = cell.result.is_none_or(|text| self.result.trim() == text);
        if is_expected && self.pictures == cell.pictures {
            return Ok(());
        }
        Err(BenchError::Unexpected("a cell showed something else"))
    }
}
