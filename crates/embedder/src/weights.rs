//! Reads tensors from a safetensors file: the length of the header as a little-endian `u64`, the
//! header (JSON: name → type, shape, offsets), then the data. Tensors are read one at a time, so
//! loading a model needs little more memory than the model itself.

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

/// Maximum length of the header in bytes. Headers of real models have some KiB; the format allows
/// 100 MB.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// The header entry of a tensor. Offsets are in bytes from the start of the data.
#[derive(Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

pub(crate) struct Weights {
    path: PathBuf,
    file: BufReader<File>,
    tensors: HashMap<String, TensorInfo>,
    data_start: u64,
    data_length: u64,
}

impl Weights {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Read {
            path: path.to_owned(),
            source,
        };
        let incompatible = |reason: &str| OpenError::Incompatible {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut header_length = [0; 8];
        file.read_exact(&mut header_length).map_err(failed)?;
        let header_length = u64::from_le_bytes(header_length);
        let data_start = header_length.saturating_add(8);
        let Some(data_length) = size.checked_sub(data_start) else {
            return Err(incompatible(
                "it is not a safetensors file, or is truncated",
            ));
        };
        if header_length > HEADER_BYTES_MAX {
            return Err(incompatible("its header is too long"));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| incompatible(&error.to_string()))?;
        header.remove("__metadata__");
        let tensors =
            serde_json::from_value(header.into()).map_err(|it| incompatible(&it.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            tensors,
            data_start,
            data_length,
        })
    }

    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Array1<f32>, OpenError> {
        Ok(Array1::from_vec(self.read(name, &[length])?))
    }

    pub(crate) fn rows(&mut self, name: &str, columns: usize) -> Result<Array2<f32>, OpenError> {
        let rows = match self.tensors.get(name).map(|tensor| tensor.shape.as_slice()) {
            Some(&[rows, _]) => rows,
            _ => return Err(self.incompatible(format!("it has no matrix {name}"))),
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
            .expect("`read` returns as many numbers as the shape has"))
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OpenError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(self.incompatible(format!("it has no tensor {name}")));
        };
        if tensor.dtype != "F32" || tensor.shape != shape {
            let TensorInfo {
                dtype,
                shape: actual,
                ..
            } = tensor;
            return Err(self.incompatible(format!(
                "{name} is {dtype} {actual:?} instead of F32 {shape:?}"
            )));
        }
        let (from, to) = tensor.data_offsets;
        let bytes = shape
            .iter()
            .try_fold(4_u64, |bytes, &count| bytes.checked_mul(count as u64));
        if to.checked_sub(from) != bytes || to > self.data_length {
            return Err(self.incompatible(format!("{name} has invalid offsets")));
        }
        let count = shape.iter().product();
        let numbers = self.read_numbers(self.data_start + from, count);
        let numbers = numbers.map_err(|source| OpenError::Read {
            path: self.path.clone(),
            source,
        })?;
        // A NaN or an infinity would propagate to every embedding.
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(self.incompatible(format!("{name} contains a NaN or an infinity")));
        }
        Ok(numbers)
    }

    fn read_numbers(&mut self, from: u64, count: usize) -> std::io::Result<Vec<f32>> {
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

    fn incompatible(&self, reason: String) -> OpenError {
        OpenError::Incompatible {
            path: self.path.clone(),
            reason,
        }
    }
}
