//! The reference's configurations: the YAML of `e2e_sae` and its Weights & Biases sweeps, read into this project's terms.
//!
//! `run_train_tlens_saes.py` describes a run, `run_train_tlens.py` the language model that one may be trained on. Field
//! names, defaults and meanings are those of the reference library (github.com/ApolloResearch/e2e_sae). What has no
//! meaning here, or another one, comes back as a warning.

mod differences;
mod import;
mod language_model;
mod schema;
mod sources;
mod sweep;

use std::path::Path;

use crate::error::read;
use crate::{ConfigError, RunConfig, Site};

pub use language_model::{ImportedModel, TlensConfig, load_language_model, parse_language_model};
pub use sources::hub_name;
pub use sweep::expand;

/// What a file of the reference describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The training of SAEs on a language model: a run. Also what cannot be told to be anything else.
    Run,
    /// A Weights & Biases sweep over such runs.
    Sweep,
    /// The training of a language model.
    LanguageModel,
    /// MLPs on MNIST, with or without SAEs, which are not taken over.
    Mnist,
}

impl Kind {
    fn of(value: &serde_json::Value) -> Self {
        if value.get("parameters").is_some() {
            Self::Sweep
        } else if value.get("tlens_config").is_some() {
            Self::LanguageModel
        } else if value.get("model").is_some_and(|model| model.get("hidden_sizes").is_some()) {
            Self::Mnist
        } else {
            Self::Run
        }
    }

    /// Refuses a file of another kind in a sentence that says what it is and what to do with it.
    fn require(self, wanted: Self, origin: &str) -> Result<(), ConfigError> {
        if self == wanted {
            return Ok(());
        }
        let message = match self {
            Self::Run => {
                format!("it describes the training of SAEs: `sae train {origin} --out FOLDER`")
            }
            Self::Sweep => format!("it describes a sweep of runs: `sae sweep {origin}`"),
            Self::LanguageModel => format!(
                "it describes the training of a language model: `sae pretrain {origin} --out FOLDER`"
            ),
            Self::Mnist => "it is for MLPs on MNIST, which this software does not train".to_owned(),
        };
        Err(ConfigError::Parse { origin: origin.to_owned(), message })
    }
}

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

/// What a file of the reference describes, told from its keys.
pub fn kind(path: &Path) -> Result<Kind, ConfigError> {
    Ok(Kind::of(&yaml(&read(path)?, &path.display().to_string())?))
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

/// YAML as a tree; numbers may stay text (`400_000`), which the schema's numbers understand.
fn yaml(text: &str, origin: &str) -> Result<serde_json::Value, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| ConfigError::parse(origin, &error))
}
