//! What `torch.save` writes. The pickle is parsed for tensors and never executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PytorchReader};
use tch::Kind;

use crate::TensorError;
use crate::files::Description;

pub(crate) struct Pytorch {
    path: PathBuf,
    reader: PytorchReader,
    pub tensors: BTreeMap<String, Description>,
}

impl std::fmt::Debug for Pytorch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pytorch").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Pytorch {
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let io = |source| TensorError::Io { action: "open", path: path.to_owned(), source };
        let failed = |message: String| TensorError::Format { path: path.to_owned(), message };
        let length = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(io)?.len();
        let reader = PytorchReader::new(path).map_err(|error| {
            failed(format!(
                "{error}; expected the state dict of a module (tensors by name) as torch.save writes it"
            ))
        })?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in reader.tensors() {
            // A view may claim more than its storage: an expanded one repeats it. Nobody saves those on purpose.
            if tensor.byte_len() as u64 > length {
                return Err(failed(format!(
                    "`{name}` of shape {:?} is larger than the file of {length} bytes",
                    tensor.shape()
                )));
            }
            let kind = kind(tensor.dtype()).ok_or_else(|| {
                failed(format!("`{name}` is of type {:?}, which is not supported", tensor.dtype()))
            })?;
            tensors.insert(name.clone(), Description { shape: tensor.shape().to_vec(), kind });
        }
        if tensors.is_empty() {
            return Err(failed(
                "it holds no tensors; expected the state dict of a module (tensors by name) as torch.save writes it"
                    .to_owned(),
            ));
        }
        Ok(Self { path: path.to_owned(), reader, tensors })
    }

    pub fn read(&self, name: &str) -> Result<Vec<u8>, TensorError> {
        let failed = |message: String| TensorError::Format { path: self.path.clone(), message };
        let tensor = self.reader.get(name).ok_or_else(|| failed(format!("no tensor `{name}`")))?;
        tensor.read().map_err(|error| failed(error.to_string()))
    }
}

fn kind(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        DType::U16 | DType::U32 | DType::U64 => return None,
    })
}
