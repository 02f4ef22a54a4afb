//! A dictionary's weights on disk: the directory format of SAELens v6, `cfg.json` beside `sae_weights.safetensors`.
//!
//! SAELens writes `W_enc [D, F]` and `W_dec [F, E]`; the decoder's rows are stored at unit length, so that a reader that
//! does not normalise computes the same. `cfg.json` names what of SAELens computes the same at inference; the architecture
//! that was trained, with its options, stands in its metadata as `dictionary`, where it is not the same.

use std::path::{Path, PathBuf};

use sae_config::{Architecture, file};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

use crate::saelens::{self, Config};
use crate::{Dictionary, SaeError};

/// The version of the format that `cfg.json` names; without it SAELens assumes an old schema.
const FORMAT_VERSION: &str = "6.54.12";

/// Where a dictionary belongs, for `cfg.json`.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// The model's name or path.
    pub model: &'a str,
    /// The name of the site that is read.
    pub hook_name: &'a str,
    /// The name of the site that is written, where it is another.
    pub hook_name_out: Option<&'a str>,
    /// Tokens in a window in training.
    pub context_length: usize,
    /// Whether the model's weights were processed as TransformerLens does by default; readers that do not do so
    /// themselves are told to.
    pub processed: bool,
}

/// Writes a dictionary into `folder`, whole or not at all.
pub fn save(
    dictionary: &Dictionary,
    provenance: Provenance<'_>,
    folder: &Path,
) -> Result<(), SaeError> {
    let partial = file::partial(folder);
    write(dictionary, provenance, &partial)
        .and_then(|()| {
            if folder.exists() {
                std::fs::remove_dir_all(folder).map_err(io("replace", folder))?;
            }
            std::fs::rename(&partial, folder).map_err(io("rename", &partial))
        })
        .inspect_err(|_| {
            // Half a dictionary is of no use; the error that is reported says what happened.
            let _ = std::fs::remove_dir_all(&partial);
        })
}

fn write(
    dictionary: &Dictionary,
    provenance: Provenance<'_>,
    folder: &Path,
) -> Result<(), SaeError> {
    file::create_new_folder(folder).map_err(io("create", folder))?;
    let exported = no_grad(|| dictionary.exported())?;
    let sizes = dictionary.sizes();
    let is_transcoder = provenance.hook_name_out.is_some();
    let mut cfg = json!({
        "architecture": saelens::architecture_name(exported.architecture, is_transcoder, sizes.skip),
        "d_in": sizes.input,
        "d_sae": sizes.features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": false,
        "normalize_activations": "none",
        // TransformerLens has the heads in a dimension of their own.
        "reshape_activations":
            if provenance.hook_name.ends_with("attn.hook_z") { "hook_z" } else { "none" },
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            "model_name": provenance.model,
            "hook_name": provenance.hook_name,
            "context_size": provenance.context_length,
        },
    });
    for (key, value) in exported.keys {
        cfg[key] = value;
    }
    if is_transcoder {
        cfg["d_out"] = json!(sizes.output);
        cfg["metadata"]["hook_name_out"] = json!(provenance.hook_name_out);
    }
    if *dictionary.options() != Architecture::default() {
        cfg["metadata"][saelens::OPTIONS] = json!(dictionary.options());
    }
    if provenance.processed {
        cfg["metadata"]["model_from_pretrained_kwargs"] = json!({
            "fold_ln": true,
            "center_writing_weights": true,
            "center_unembed": true,
            "fold_value_biases": true,
        });
    }
    let path = folder.join("cfg.json");
    std::fs::write(&path, format!("{cfg:#}\n")).map_err(io("write", &path))?;
    let path = folder.join("sae_weights.safetensors");
    let tensors = no_grad(|| -> Result<_, SaeError> {
        let store = |tensor: &Tensor| {
            tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()
        };
        let mut tensors = vec![
            ("W_enc", store(&dictionary.w_enc().f_tr()?)?),
            ("b_enc", store(dictionary.b_enc())?),
            ("W_dec", store(&dictionary.elements()?)?),
            ("b_dec", store(dictionary.b_dec())?),
        ];
        if let Some(skip) = dictionary.skip() {
            tensors.push(("W_skip", store(skip)?));
        }
        if let Some(threshold) = &exported.threshold {
            tensors.push(("threshold", store(threshold)?));
        }
        Ok(tensors)
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

/// A dictionary and the names of the sites that it is for, as TransformerLens writes them; a file with one dictionary may
/// leave them to its configuration.
#[derive(Debug)]
pub struct NamedDictionary {
    /// The site that is read.
    pub hook_name: Option<String>,
    /// The site that is written, where it is another.
    pub hook_name_out: Option<String>,
    /// The dictionary.
    pub dictionary: Dictionary,
}

/// Loads the dictionaries at `path`: a folder in this format, a run's folder or checkpoint with several, or the reference's
/// `.pt`.
pub fn load_all(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedDictionary>, SaeError> {
    if path.extension().is_some_and(|extension| extension == "pt") {
        return crate::reference::load(path, device, kind);
    }
    let load = |folder: &Path| {
        let config = Config::read(folder)?;
        Ok(NamedDictionary {
            hook_name: Some(config.hook_name()?),
            hook_name_out: config.hook_name_out()?,
            dictionary: config.load(device, kind)?,
        })
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

/// Loads a dictionary from a folder in this format, whatever SAELens writes there that one of this software can compute:
/// decoder rows of any length and a subtracted decoder bias are folded into the encoder (the reconstruction is the same; a
/// feature's activation is measured in units of its unit-norm dictionary element). The rest is refused by name.
pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Dictionary, SaeError> {
    Config::read(folder)?.load(device, kind)
}
