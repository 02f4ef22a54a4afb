//! An SAE's weights on disk: the directory format of SAELens v6, `cfg.json` beside `sae_weights.safetensors`.
//!
//! SAELens writes `W_enc [D, F]` and `W_dec [F, D]`; the decoder's rows are stored at unit length, so that a reader that
//! does not normalise computes the same.

use std::path::{Path, PathBuf};

use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::{Sae, SaeError};

/// The version of the format that `cfg.json` names; without it SAELens assumes an old schema.
const FORMAT_VERSION: &str = "6.54.12";

/// Where an SAE belongs, for `cfg.json`.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// The model's name or path.
    pub model: &'a str,
    /// The site's name.
    pub hook_name: &'a str,
    /// Tokens in a window in training.
    pub context_length: usize,
}

/// Writes an SAE into `folder`, whole or not at all.
pub fn save(sae: &Sae, provenance: Provenance<'_>, folder: &Path) -> Result<(), SaeError> {
    let mut partial = folder.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    write(sae, provenance, &partial)
        .and_then(|()| {
            if folder.exists() {
                std::fs::remove_dir_all(folder).map_err(io("replace", folder))?;
            }
            std::fs::rename(&partial, folder).map_err(io("rename", &partial))
        })
        .inspect_err(|_| {
            // Half an SAE is of no use; the error that is reported says what happened.
            let _ = std::fs::remove_dir_all(&partial);
        })
}

fn write(sae: &Sae, provenance: Provenance<'_>, folder: &Path) -> Result<(), SaeError> {
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let cfg = json!({
        "architecture": "standard",
        "d_in": sae.d_model(),
        "d_sae": sae.n_features(),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": false,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            "model_name": provenance.model,
            "hook_name": provenance.hook_name,
            "context_size": provenance.context_length,
        },
    });
    let path = folder.join("cfg.json");
    std::fs::write(&path, format!("{cfg:#}\n")).map_err(io("write", &path))?;
    let path = folder.join("sae_weights.safetensors");
    let [w_enc, b_enc, _, b_dec] = sae.parameters();
    let tensors = no_grad(|| -> Result<_, SaeError> {
        let store = |tensor: &Tensor| {
            tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()
        };
        Ok([
            ("W_enc", store(&w_enc.f_tr()?)?),
            ("b_enc", store(b_enc)?),
            ("W_dec", store(&sae.dictionary()?)?),
            ("b_dec", store(b_dec)?),
        ])
    })?;
    Tensor::write_safetensors(&tensors, &path).map_err(|error| SaeError::Format {
        path: path.clone(),
        message: format!("cannot write: {error}"),
    })
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SaeError {
    let path = path.to_owned();
    move |source| SaeError::Io { action, path, source }
}

/// Loads an SAE from a folder in this format.
pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Sae, SaeError> {
    let path = folder.join("cfg.json");
    let failed = |message: String| SaeError::Format { path: path.clone(), message };
    let text = std::fs::read_to_string(&path).map_err(|source| SaeError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let cfg: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    if cfg["architecture"] != "standard" || cfg["apply_b_dec_to_input"] == true {
        return Err(failed(format!(
            "architecture {} with apply_b_dec_to_input {}: supported is \"standard\" with false",
            cfg["architecture"], cfg["apply_b_dec_to_input"]
        )));
    }
    let path = folder.join("sae_weights.safetensors");
    let failed = |message: String| SaeError::Format { path: path.clone(), message };
    std::fs::File::open(&path).map_err(|source| SaeError::Io {
        action: "open",
        path: path.clone(),
        source,
    })?;
    let mut tensors: std::collections::HashMap<String, Tensor> = Tensor::read_safetensors(&path)
        .map_err(|error| failed(format!("{error}; the file is truncated or damaged")))?
        .into_iter()
        .collect();
    let mut take = |name: &str| -> Result<Tensor, SaeError> {
        let tensor = tensors.remove(name).ok_or_else(|| failed(format!("no tensor `{name}`")))?;
        Ok(tensor.f_to_device(device)?.f_to_kind(kind)?)
    };
    let (w_enc, b_enc) = (take("W_enc")?.f_tr()?.f_contiguous()?, take("b_enc")?);
    Sae::from_tensors(w_enc, b_enc, take("W_dec")?, take("b_dec")?)
}
