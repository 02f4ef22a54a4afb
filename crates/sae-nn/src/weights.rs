//! An SAE's weights on disk: the directory format of SAELens v6, `cfg.json` beside `sae_weights.safetensors`.
//!
//! SAELens writes `W_enc [D, F]` and `W_dec [F, D]`; the decoder's rows are stored at unit length, so that a reader that
//! does not normalise computes the same.

use std::path::{Path, PathBuf};

use sae_tensors::TensorFiles;
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
    /// Whether the model's weights were processed as TransformerLens does by default; readers that do not do so
    /// themselves are told to.
    pub processed: bool,
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

/// Loads the SAEs at `path`: a folder in this format, a run's folder with several, or the reference's `.pt`.
pub fn load_all(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedSae>, SaeError> {
    if path.extension().is_some_and(|extension| extension == "pt") {
        return crate::reference::load(path, device, kind);
    }
    if path.join("cfg.json").is_file() {
        let hook_name = Some(hook_name(path)?);
        return Ok(vec![NamedSae { hook_name, sae: load(path, device, kind)? }]);
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
    folders
        .into_iter()
        .map(|folder| {
            let hook_name = Some(hook_name(&folder)?);
            Ok(NamedSae { hook_name, sae: load(&folder, device, kind)? })
        })
        .collect()
}

fn read_cfg(folder: &Path) -> Result<serde_json::Value, SaeError> {
    let path = folder.join("cfg.json");
    let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    serde_json::from_str(&text)
        .map_err(|error| SaeError::Format { path, message: error.to_string() })
}

/// The site that `cfg.json` names: in its metadata, or, in older files, beside the sizes.
fn hook_name(folder: &Path) -> Result<String, SaeError> {
    let cfg = read_cfg(folder)?;
    let name = cfg["metadata"]["hook_name"].as_str().or_else(|| cfg["hook_name"].as_str());
    name.map(ToOwned::to_owned).ok_or_else(|| SaeError::Format {
        path: folder.join("cfg.json"),
        message: "it does not say which site the SAE is for: metadata.hook_name is missing"
            .to_owned(),
    })
}

/// Loads an SAE from a folder in this format.
pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Sae, SaeError> {
    let cfg = read_cfg(folder)?;
    if cfg["architecture"] != "standard" || cfg["apply_b_dec_to_input"] == true {
        return Err(SaeError::Format {
            path: folder.join("cfg.json"),
            message: format!(
                "architecture {} with apply_b_dec_to_input {}: supported is \"standard\" with false",
                cfg["architecture"], cfg["apply_b_dec_to_input"]
            ),
        });
    }
    let path = folder.join("sae_weights.safetensors");
    let files = TensorFiles::open(&path)?;
    let take = |name: &str| -> Result<Tensor, SaeError> {
        Ok(files.read(name)?.f_to_device(device)?.f_to_kind(kind)?)
    };
    let w_enc = take("W_enc")?;
    if w_enc.dim() != 2 {
        let message = format!("W_enc has shape {:?}, expected [D, F]", w_enc.size());
        return Err(SaeError::Format { path, message });
    }
    let (w_enc, b_enc) = (w_enc.f_tr()?.f_contiguous()?, take("b_enc")?);
    Sae::from_tensors(w_enc, b_enc, take("W_dec")?, take("b_dec")?)
        .map_err(|error| SaeError::Format { path: path.clone(), message: error.to_string() })
}
