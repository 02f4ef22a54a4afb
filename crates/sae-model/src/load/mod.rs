//! Loading a model in Hugging Face layout; one file a family, which maps `config.json` to a
//! [`ModelConfig`] and the names of the tensors to the parts of a
//! [`Transformer`].

mod family;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod llama;
mod transformer_lens;
mod weights;

use std::path::Path;

use sae_config::fingerprint::Fingerprint;
use sae_config::run::Processing;
use tch::{Device, Kind};

use crate::transformer::Parts;
use crate::{ModelConfig, ModelError, Transformer, process};
use family::Json;
use weights::Weights;

/// A family: its `model_type` and what it makes of a folder.
struct Family {
    model_type: &'static str,
    config: fn(&Json) -> Result<ModelConfig, ModelError>,
    assemble: fn(&Json, &ModelConfig, &Weights) -> Result<Parts, ModelError>,
}

const FAMILIES: &[Family] = &[gpt2::FAMILY, gpt_neo::FAMILY, gpt_neox::FAMILY, llama::FAMILY];

/// Loads a model: a folder with `config.json` and weights (`model.safetensors` or `pytorch_model.bin`, whole or
/// sharded), or a checkpoint `.pt` of a TransformerLens model that the reference trained, with `final_config.yaml`
/// beside it. Weights are brought to the device and precision, then processed.
pub fn load(
    path: &Path,
    processing: Processing,
    device: Device,
    kind: Kind,
) -> Result<Transformer, ModelError> {
    let mut model = if path.extension().is_some_and(|extension| extension == "pt") {
        transformer_lens::load(path, device, kind)?
    } else {
        let json = Json::read(path)?;
        let family = family(&json)?;
        let config = (family.config)(&json)?;
        let weights = Weights::open(path, device, kind)?;
        let parts = (family.assemble)(&json, &config, &weights)?;
        Transformer::new(config, parts)?
    };
    match processing {
        Processing::None => {}
        Processing::TransformerLens => process::transformer_lens(&mut model)?,
    }
    Ok(model)
}

/// Reads the hyper-parameters alone; no weights have to be there.
pub fn config(path: &Path) -> Result<ModelConfig, ModelError> {
    if path.extension().is_some_and(|extension| extension == "pt") {
        return transformer_lens::config(path);
    }
    let json = Json::read(path)?;
    (family(&json)?.config)(&json)
}

/// The fingerprint of a model as it is stored: the contents of its configuration and weights, wherever they lie.
pub fn fingerprint(path: &Path) -> Result<String, ModelError> {
    let files = if path.extension().is_some_and(|extension| extension == "pt") {
        vec![path.with_file_name("final_config.yaml"), path.to_owned()]
    } else {
        let mut files = weights::files(path)?;
        files.insert(0, path.join("config.json"));
        files
    };
    files
        .iter()
        .try_fold(Fingerprint::new(), |fingerprint, file| {
            fingerprint.file(file).map_err(|source| ModelError::Io {
                action: "read",
                path: file.clone(),
                source,
            })
        })
        .map(Fingerprint::finish)
}

fn family(json: &Json) -> Result<&'static Family, ModelError> {
    let found = json.model_type();
    FAMILIES.iter().find(|family| Some(family.model_type) == found).ok_or_else(|| {
        let supported: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        json.failed(format!(
            "model_type is {}, supported are {}",
            found.map_or("missing".to_owned(), |name| format!("`{name}`")),
            supported.join(", ")
        ))
    })
}

/// Writes a model as `config.json` and `model.safetensors` in GPT-2's layout, the weights in precision `kind`. Only a
/// model of GPT-2's architecture can be written.
pub fn save(model: &Transformer, folder: &Path, kind: Kind) -> Result<(), ModelError> {
    gpt2::save(model, folder, kind)
}
