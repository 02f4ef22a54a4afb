//! The decoder rows of alive features, from `sae_weights.safetensors`.
//!
//! The file is that of SAELens: `W_dec [F, D]`, a row a feature. It is read row by row, and `W_enc` beside it not at all:
//! at the paper's size (F = 46 080, D = 768) each of them takes 142 MB.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::Feature;
use crate::AnalysisError;
use crate::matrix::Matrix;

/// The largest header that is read, as the format's own library has it.
const LARGEST_HEADER: u64 = 100_000_000;

/// The rows of the alive features: `[A, D]`.
pub(super) fn read(
    path: &Path,
    features: &[Feature],
    table: &Path,
) -> Result<Matrix, AnalysisError> {
    let failed = |message: String| AnalysisError::Format { path: path.to_owned(), message };
    let io = |source| AnalysisError::Read { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let length = file.get_ref().metadata().map_err(io)?.len();
    let found = locate(&mut file, length).map_err(|error| match error {
        Refused::Io(source) => io(source),
        Refused::Format(message) => failed(message),
    })?;
    if found.rows != features.len() {
        return Err(failed(format!(
            "its W_dec has {} rows, but {} tells of {} features: they are not of one run",
            found.rows,
            table.display(),
            features.len()
        )));
    }
    file.seek(SeekFrom::Start(found.start)).map_err(io)?;
    let mut row = vec![0; found.columns * size_of::<f32>()];
    let n_alive = features.iter().filter(|feature| feature.alive).count();
    let mut values = Vec::with_capacity(n_alive * found.columns);
    for feature in features {
        file.read_exact(&mut row).map_err(io)?;
        if feature.alive {
            let (numbers, _) = row.as_chunks();
            values.extend(numbers.iter().copied().map(f32::from_le_bytes));
        }
    }
    Matrix::new(found.columns, values)
        .map_err(|error| failed(format!("of its W_dec's alive rows: {error}")))
}

/// Where the decoder lies in the file.
struct Place {
    start: u64,
    rows: usize,
    columns: usize,
}

enum Refused {
    Io(std::io::Error),
    Format(String),
}

fn locate(file: &mut impl Read, length: u64) -> Result<Place, Refused> {
    let damaged = |message: String| {
        Refused::Format(format!("{message}; the file is truncated, damaged or no safetensors file"))
    };
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| damaged(format!("it has {length} bytes")))?;
    let size = u64::from_le_bytes(size);
    let data = match size.checked_add(8) {
        Some(data) if data <= length && size <= LARGEST_HEADER => data,
        _ => return Err(damaged(format!("its header claims {size} of {length} bytes"))),
    };
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(Refused::Io)?;
    // Offsets that overlap, leave gaps or do not fit the shapes are refused here.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| damaged(format!("its header is not valid: {error}")))?;
    if metadata.data_len() as u64 != length - data {
        return Err(damaged(format!(
            "its header promises {} bytes of tensors, {} are there",
            metadata.data_len(),
            length - data
        )));
    }
    let decoder = metadata
        .info("W_dec")
        .ok_or_else(|| Refused::Format("it has no tensor `W_dec`".to_owned()))?;
    match (decoder.dtype, decoder.shape.as_slice()) {
        (Dtype::F32, &[rows, columns]) if columns > 0 => {
            Ok(Place { start: data + decoder.data_offsets.0 as u64, rows, columns })
        }
        (dtype, shape) => Err(Refused::Format(format!(
            "its W_dec is {dtype:?} of shape {shape:?}, expected F32 of shape [F, D]"
        ))),
    }
}
