//! Safetensors: the header is read and checked against the file's length, a tensor's bytes when they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use tch::Kind;

use crate::TensorError;
use crate::files::Description;

/// The largest header that is read, as the format's own library has it.
const LARGEST_HEADER: u64 = 100_000_000;

#[derive(Debug)]
pub(crate) struct Safetensors {
    path: PathBuf,
    pub tensors: BTreeMap<String, Description>,
    ranges: BTreeMap<String, (u64, usize)>,
}

impl Safetensors {
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let io = |source| TensorError::Io { action: "open", path: path.to_owned(), source };
        let failed = |message: String| TensorError::Format {
            path: path.to_owned(),
            message: format!(
                "{message}; the file is truncated or damaged: fetch or write it again"
            ),
        };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| failed(format!("{length} bytes are too short for safetensors")))?;
        let size = u64::from_le_bytes(size);
        let data = match size.checked_add(8) {
            Some(data) if data <= length && size <= LARGEST_HEADER => data,
            _ => return Err(failed(format!("its header claims {size} bytes of {length}"))),
        };
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        // Offsets that overlap, leave gaps or do not fit the shapes are refused here.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| failed(format!("its header is not valid: {error}")))?;
        let promised = metadata.data_len() as u64;
        if promised != length - data {
            return Err(failed(format!(
                "its header promises {promised} bytes of tensors, {} are there",
                length - data
            )));
        }
        let (mut tensors, mut ranges) = (BTreeMap::new(), BTreeMap::new());
        for (name, info) in metadata.tensors() {
            let kind = kind(info.dtype).ok_or_else(|| TensorError::Format {
                path: path.to_owned(),
                message: format!("`{name}` is of type {:?}, which is not supported", info.dtype),
            })?;
            let (start, end) = info.data_offsets;
            tensors.insert(name.clone(), Description { shape: info.shape.clone(), kind });
            ranges.insert(name, (data + start as u64, end - start));
        }
        Ok(Self { path: path.to_owned(), tensors, ranges })
    }

    pub fn read(&self, name: &str) -> Result<Vec<u8>, TensorError> {
        let &(start, length) = self.ranges.get(name).unwrap_or(&(0, 0));
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| TensorError::Io { action: "read", path: self.path.clone(), source })
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
