//! Loading a model from a folder in Hugging Face layout; one file a family.

mod gpt2;
mod weights;

use std::path::Path;

use tch::{Device, Kind};

use crate::{ModelError, Transformer};

/// Families, by the `model_type` of `config.json`.
const SUPPORTED: &[&str] = &["gpt2"];

/// Loads `config.json` and `model.safetensors` from `folder`.
pub fn load(folder: &Path, device: Device, kind: Kind) -> Result<Transformer, ModelError> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let failed = |message: String| ModelError::Config { path: path.clone(), message };
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    match json["model_type"].as_str() {
        Some("gpt2") => gpt2::load(folder, &path, json, device, kind),
        other => Err(failed(format!(
            "model_type is {}, supported are {}",
            other.map_or("missing".to_owned(), |name| format!("`{name}`")),
            SUPPORTED.join(", ")
        ))),
    }
}

/// Writes a model as `config.json` and `model.safetensors` in GPT-2's layout, the weights in precision `kind`.
pub fn save(model: &Transformer, folder: &Path, kind: Kind) -> Result<(), ModelError> {
    gpt2::save(model, folder, kind)
}
