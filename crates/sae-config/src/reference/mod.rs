//! The reference's configurations: the YAML of `e2e_sae` and its Weights & Biases sweeps, read into this project's terms.
//!
//! `run_train_tlens_saes.py` describes a run, `run_train_tlens.py` the language model that one may be trained on. Field
//! names, defaults and meanings are those of the reference library (github.com/ApolloResearch/e2e_sae). What has no
//! meaning here comes back as a warning.

mod import;
mod schema;
mod sweep;

use std::path::Path;

use serde::Deserialize;

use crate::error::read;
use crate::{ConfigError, RunConfig, Site};

pub use import::hub_name;
pub use sweep::expand;

/// A run of the reference, imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The run in this project's terms.
    pub run: RunConfig,
    /// What was dropped or changed, a sentence each.
    pub warnings: Vec<String>,
}

/// Gives the sites of the run's model, for positions that name several (`hook_resid_pre`).
pub type ModelSites<'a> = dyn FnMut(&crate::Source) -> Result<Vec<Site>, ConfigError> + 'a;

/// Whether a path names a configuration of the reference rather than one of this project.
pub fn is_reference(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Whether a file of the reference is a sweep rather than a run.
pub fn is_sweep(path: &Path) -> Result<bool, ConfigError> {
    let value = yaml(&read(path)?, &path.display().to_string())?;
    Ok(value.get("parameters").is_some() && value.get("method").is_some())
}

/// Reads a run's YAML.
pub fn load(path: &Path, sites: &mut ModelSites<'_>) -> Result<Imported, ConfigError> {
    parse(&read(path)?, &path.display().to_string(), sites)
}

/// Reads a run's YAML; `origin` names its source in errors.
pub fn parse(
    text: &str,
    origin: &str,
    sites: &mut ModelSites<'_>,
) -> Result<Imported, ConfigError> {
    import::import(yaml(text, origin)?, origin, sites)
}

/// The sizes of a language model that the reference trains: `tlens_config` in its `final_config.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TlensConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers.
    pub n_layers: usize,
    /// Longest context.
    pub n_ctx: usize,
    /// Width of a head; as many heads as fit into `d_model`.
    pub d_head: usize,
    /// Vocabulary.
    pub d_vocab: usize,
    /// The MLP's activation function.
    pub act_fn: String,
}

impl TlensConfig {
    /// Reads it from a `final_config.yaml`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let value = yaml(&read(path)?, &origin)?;
        Self::deserialize(&value["tlens_config"])
            .map_err(|error| ConfigError::parse(&origin, &format!("tlens_config: {error}")))
    }
}

/// YAML as a tree; numbers may stay text (`400_000`), which the schema's numbers understand.
fn yaml(text: &str, origin: &str) -> Result<serde_json::Value, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| ConfigError::parse(origin, &error))
}
