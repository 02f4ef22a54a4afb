//! The tensors of a weights file, taken out by name and checked against the shape that the configuration promises.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::ModelError;

/// Tensors by name.
pub(super) struct Weights {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Reads a safetensors file.
    pub fn read(path: &Path, device: Device, kind: Kind) -> Result<Self, ModelError> {
        // The system's own message first: libtorch's does not tell a missing file from a damaged one.
        std::fs::File::open(path).map_err(|source| ModelError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        let tensors = Tensor::read_safetensors(path)
            .map_err(|error| ModelError::Weights {
                path: path.to_owned(),
                message: format!("{error}; the file is truncated or damaged"),
            })?
            .into_iter()
            .collect();
        Ok(Self { path: path.to_owned(), tensors, device, kind })
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor of this shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let failed = |message: String| ModelError::Weights { path: self.path.clone(), message };
        let tensor =
            self.tensors.remove(name).ok_or_else(|| failed(format!("no tensor `{name}`")))?;
        let expected: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        if tensor.size() != expected {
            return Err(failed(format!(
                "tensor `{name}` has shape {:?}, config.json promises {expected:?}",
                tensor.size()
            )));
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// Takes a matrix stored `[in, out]` and returns it `[out, in]`.
    pub fn take_transposed(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
    ) -> Result<Tensor, ModelError> {
        Ok(self.take(name, &[input, out])?.f_tr()?.f_contiguous()?)
    }
}
