//! What can go wrong when SAEs are spliced into a model.

use sae_model::ModelError;
use sae_nn::SaeError;
use tch::TchError;

/// A spliced model that could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The language model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An SAE.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// libtorch failed.
    #[error("libtorch failed: {0}")]
    Torch(#[from] TchError),
    /// An SAE does not fit the activation at its site.
    #[error("the SAE at {site} takes activations of {found}, the model's are {expected} wide")]
    Width {
        /// The site.
        site: sae_model::Site,
        /// The SAE's width.
        found: usize,
        /// The model's.
        expected: usize,
    },
}
