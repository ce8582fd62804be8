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
    /// Where the numbers begin, in bytes.
    start: u64,
    /// How many bytes of numbers there are.
    length: u64,
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
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut header_length = [0; 8];
        file.read_exact(&mut header_length).map_err(failed)?;
        let header_length = u64::from_le_bytes(header_length);
        let start = header_length.saturating_add(8);
        let Some(length) = size.checked_sub(start) else {
            return Err(unfit("it is no safetensors file, or cut off"));
        };
        if header_length > LARGEST_HEADER {
            return Err(unfit("its header is too long"));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| unfit(&error.to_string()))?;
        header.remove("__metadata__");
        let places = serde_json::from_value(header.into()).map_err(|it| unfit(&it.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            places,
            start,
            length,
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
        let bytes = shape
            .iter()
            .try_fold(4_u64, |bytes, &count| bytes.checked_mul(count as u64));
        if to.checked_sub(from) != bytes || to > self.length {
            return Err(self.unfit(format!("{name} does not lie where it should")));
        }
        let count = shape.iter().product();
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
        let mut bytes = [0; 1 << 12];
        while numbers.len() < count {
            let next = bytes.len().min(4 * (count - numbers.len()));
            self.file.read_exact(&mut bytes[..next])?;
            let (fours, _) = bytes[..next].as_chunks();
            numbers.extend(fours.iter().copied().map(f32::from_le_bytes));
        }
        Ok(numbers)
    }

    fn unfit(&self, reason: String) -> OpenError {
        OpenError::Unfit {
            path: self.path.clone(),
            reason,
        }
    }
}
