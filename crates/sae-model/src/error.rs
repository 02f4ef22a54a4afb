//! What can go wrong with a language model.

use std::path::PathBuf;

use sae_config::Site;
use sae_config::message::without_frames;
use tch::TchError;

/// A model that could not be loaded, saved or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` is not one, or describes what is not supported.
    #[error("cannot use the model configuration {}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would do.
        message: String,
    },
    /// A file of weights is missing or damaged.
    #[error(transparent)]
    Tensors(#[from] sae_tensors::TensorError),
    /// The tensors are not those that the configuration promises.
    #[error("cannot use the weights {}: {message}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A site that the model does not have.
    #[error("the model has no site {site}; it has {known}")]
    UnknownSite {
        /// The site asked for.
        site: Site,
        /// Those it has.
        known: String,
    },
    /// A context longer than the model's.
    #[error(
        "a context of {found} tokens is longer than the model's {longest}: lower data.context_length"
    )]
    ContextLength {
        /// Asked for.
        found: usize,
        /// The model's.
        longest: usize,
    },
    /// The device asked for is not there.
    #[error("cannot use the device `{name}`: {message}")]
    Device {
        /// The device.
        name: String,
        /// Why.
        message: String,
    },
    /// libtorch failed.
    #[error("libtorch failed: {}", without_frames(.0))]
    Torch(#[from] TchError),
}
