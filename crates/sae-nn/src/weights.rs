//! An SAE's weights on disk: the directory format of SAELens v6, `cfg.json` beside `sae_weights.safetensors`.
//!
//! SAELens writes `W_enc [D, F]` and `W_dec [F, D]`; the decoder's rows are stored at unit length, so that a reader that
//! does not normalise computes the same.

use std::path::{Path, PathBuf};

use sae_config::file;
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::saelens::Config;
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
    /// Whether the model's weights were processed as TransformerLens does by default; readers that do not do so
    /// themselves are told to.
    pub processed: bool,
}

/// Writes an SAE into `folder`, whole or not at all.
pub fn save(sae: &Sae, provenance: Provenance<'_>, folder: &Path) -> Result<(), SaeError> {
    let partial = file::partial(folder);
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
    file::create_new_folder(folder).map_err(io("create", folder))?;
    let mut cfg = json!({
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
    if provenance.processed {
        cfg["metadata"]["model_from_pretrained_kwargs"] =
            json!({"fold_ln": true, "center_writing_weights": true, "center_unembed": true});
    }
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

/// An SAE and the name of the site that it is for.
#[derive(Debug)]
pub struct NamedSae {
    /// As TransformerLens writes it; a file with one SAE may leave it to its configuration.
    pub hook_name: Option<String>,
    /// The SAE.
    pub sae: Sae,
}

/// Loads the SAEs at `path`: a folder in this format, a run's folder or checkpoint with several, or the reference's `.pt`.
pub fn load_all(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedSae>, SaeError> {
    if path.extension().is_some_and(|extension| extension == "pt") {
        return crate::reference::load(path, device, kind);
    }
    let load = |folder: &Path| {
        let config = Config::read(folder)?;
        Ok(NamedSae { hook_name: Some(config.hook_name()?), sae: config.load(device, kind)? })
    };
    if path.join("cfg.json").is_file() {
        return Ok(vec![load(path)?]);
    }
    // A run's folder has its SAEs in `sae/`, a converted file's has them side by side.
    let folder = path.join("sae");
    let folder = if folder.is_dir() { folder } else { path.to_owned() };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map_err(io("list", &folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("cfg.json").is_file())
        .collect();
    folders.sort();
    if folders.is_empty() {
        return Err(SaeError::Format {
            path: path.to_owned(),
            message: "it holds no SAE; expected a folder with cfg.json, a run's folder, or a .pt of the reference"
                .to_owned(),
        });
    }
    folders.iter().map(|folder| load(folder)).collect()
}

/// Loads an SAE from a folder in this format, whatever SAELens writes there that an SAE of this software can compute:
/// decoder rows of any length and a subtracted decoder bias are folded into the encoder (the reconstruction is the same; a
/// feature's activation is measured in units of its unit-norm dictionary element). The rest is refused by name.
pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Sae, SaeError> {
    Config::read(folder)?.load(device, kind)
}
