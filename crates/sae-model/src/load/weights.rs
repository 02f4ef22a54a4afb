//! The tensors of a model, taken by name and checked against the shape that the configuration promises.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sae_tensors::TensorFiles;
use tch::{Device, Kind, Tensor};

use crate::config::NormKind;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::{ModelConfig, ModelError};

/// Where weights may lie in a folder; the first that is there is read.
const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Tensors by name.
pub(super) struct Weights {
    path: PathBuf,
    files: TensorFiles,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Opens the weights in a folder.
    pub fn open(folder: &Path, device: Device, kind: Kind) -> Result<Self, ModelError> {
        Self::read(&find(folder)?, device, kind)
    }

    /// Opens a file of weights.
    pub fn read(path: &Path, device: Device, kind: Kind) -> Result<Self, ModelError> {
        Ok(Self { path: path.to_owned(), files: TensorFiles::open(path)?, device, kind })
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// The prefix that a head model gives its trunk's tensors, or none where the trunk was saved alone.
    pub fn prefix<'a>(&self, prefix: &'a str, probe: &str) -> &'a str {
        if self.has(&format!("{prefix}{probe}")) { prefix } else { "" }
    }

    /// Takes a tensor of this shape.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        if let Some(found) = self.files.shape(name)
            && found != shape
        {
            return Err(ModelError::Weights {
                path: self.path.clone(),
                message: format!(
                    "tensor `{name}` has shape {found:?}, the model's configuration promises {shape:?}"
                ),
            });
        }
        let tensor = self.files.read(name)?;
        if !matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
            return Err(ModelError::Weights {
                path: self.path.clone(),
                message: format!(
                    "tensor `{name}` holds {:?}; quantised weights are not supported, only f64, f32, f16 and bf16",
                    tensor.kind()
                ),
            });
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// An affine map stored `[out, in]`, with its bias if it is said to have one.
    pub fn linear(
        &self,
        name: &str,
        out: usize,
        input: usize,
        bias: bool,
    ) -> Result<Linear, ModelError> {
        let weight = self.take(&format!("{name}.weight"), &[out, input])?;
        let bias = if bias { Some(self.take(&format!("{name}.bias"), &[out])?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// The same, stored `[in, out]`.
    pub fn linear_transposed(
        &self,
        name: &str,
        out: usize,
        input: usize,
    ) -> Result<Linear, ModelError> {
        let weight = self.take(&format!("{name}.weight"), &[input, out])?;
        let bias = Some(self.take(&format!("{name}.bias"), &[out])?);
        Ok(Linear { weight: weight.f_tr()?.f_contiguous()?, bias })
    }

    /// A norm of the model's kind: with a bias for layer norms, without for the others.
    pub fn norm(&self, name: &str, config: &ModelConfig) -> Result<Norm, ModelError> {
        let take = |rest: &str| self.take(&format!("{name}.{rest}"), &[config.d_model]);
        let bias = match config.norm {
            NormKind::Layer => Some(take("bias")?),
            NormKind::Rms => None,
        };
        Ok(Norm { kind: config.norm, weight: Some(take("weight")?), bias, eps: config.norm_eps })
    }

    /// The unembedding: a tensor of its own, or the token embedding.
    pub fn unembedding(
        &self,
        name: &str,
        tied: bool,
        token_embedding: &Tensor,
        config: &ModelConfig,
    ) -> Result<Tensor, ModelError> {
        if tied {
            Ok(token_embedding.shallow_clone())
        } else {
            self.take(name, &[config.vocabulary, config.d_model])
        }
    }
}

/// The file of weights in a folder, or the index of several.
fn find(folder: &Path) -> Result<PathBuf, ModelError> {
    let path = FILES.into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    path.ok_or_else(|| ModelError::Weights {
        path: folder.to_owned(),
        message: format!("there are none; expected one of {}", FILES.join(", ")),
    })
}

/// All files that hold the weights in a folder, in the order of their names.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let path = find(folder)?;
    if !path.to_string_lossy().ends_with(".index.json") {
        return Ok(vec![path]);
    }
    let names: BTreeSet<String> = TensorFiles::weight_map(&path)?.into_values().collect();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Several maps of the same input as one, their outputs in order.
pub(super) fn concatenated(maps: &[Linear]) -> Result<Linear, ModelError> {
    let weights: Vec<&Tensor> = maps.iter().map(|map| &map.weight).collect();
    let biases: Option<Vec<&Tensor>> = maps.iter().map(|map| map.bias.as_ref()).collect();
    let bias = match biases {
        Some(biases) => Some(Tensor::f_cat(&biases, 0)?),
        None => None,
    };
    Ok(Linear { weight: Tensor::f_cat(&weights, 0)?, bias })
}
