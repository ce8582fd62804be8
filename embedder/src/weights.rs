//! Reads tensors from a safetensors file: eight bytes with the length of a header, the header
//! (JSON: name → type, shape, place), then the numbers. Only what is asked for is read, one tensor
//! at a time, so that opening a model takes little more memory than keeping it.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use ndarray::Array1;
use ndarray::Array2;
use serde::Deserialize;

use crate::OpenError;

/// Headers of real models are some KB; the format's own limit is 100 MB.
const LARGEST_HEADER: u64 = 1 << 20;

#[derive(Deserialize)]
struct Place {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

pub(crate) struct Weights {
    path: PathBuf,
    file: BufReader<File>,
    places: HashMap<String, Place>,
    /// Where the numbers begin.
    start: u64,
}

impl Weights {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Read {
            path: path.to_owned(),
            source,
        };
        let unfit = |reason: &str| OpenError::Unfit {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER {
            return Err(unfit("it is no safetensors file"));
        }
        let mut header = Vec::new();
        (&mut file)
            .take(length)
            .read_to_end(&mut header)
            .map_err(failed)?;
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|_| unfit("it is no safetensors file"))?;
        header.remove("__metadata__");
        let places = serde_json::from_value(header.into())
            .map_err(|_| unfit("it is no safetensors file"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            places,
            start: length + 8,
        })
    }

    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Array1<f32>, OpenError> {
        Ok(Array1::from_vec(self.read(name, &[length])?))
    }

    /// The matrix `name`, of whatever number of rows it has.
    pub(crate) fn rows(&mut self, name: &str, columns: usize) -> Result<Array2<f32>, OpenError> {
        let rows = match self.places.get(name).map(|place| place.shape.as_slice()) {
            Some(&[rows, _]) => rows,
            _ => return Err(self.unfit(format!("it has no matrix {name}"))),
        };
        self.matrix(name, rows, columns)
    }

    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Array2<f32>, OpenError> {
        let numbers = self.read(name, &[rows, columns])?;
        Ok(Array2::from_shape_vec((rows, columns), numbers)
            .expect("read checks that there are as many numbers as the shape says"))
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OpenError> {
        let Some(place) = self.places.get(name) else {
            return Err(self.unfit(format!("it has no tensor {name}")));
        };
        if place.dtype != "F32" || place.shape != shape {
            let Place {
                dtype, shape: is, ..
            } = place;
            return Err(self.unfit(format!("{name} is {dtype} {is:?} instead of F32 {shape:?}")));
        }
        let (from, to) = place.data_offsets;
        let count: usize = shape.iter().product();
        if to.checked_sub(from) != Some(4 * count as u64) {
            return Err(self.unfit(format!("{name} has a wrong length")));
        }
        let numbers = self.numbers(self.start + from, count);
        let numbers = numbers.map_err(|source| OpenError::Read {
            path: self.path.clone(),
            source,
        })?;
        // One of these would spread to every vector, and from there into the database.
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(self.unfit(format!("{name} holds a number that is none")));
        }
        Ok(numbers)
    }

    fn numbers(&mut self, from: u64, count: usize) -> std::io::Result<Vec<f32>> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut numbers = Vec::with_capacity(count);
        let mut bytes = [0; 4];
        for _ in 0..count {
            self.file.read_exact(&mut bytes)?;
            numbers.push(f32::from_le_bytes(bytes));
        }
        Ok(numbers)
    }

    pub(crate) fn unfit(&self, reason: String) -> OpenError {
        OpenError::Unfit {
            path: self.path.clone(),
            reason,
        }
    }
}
