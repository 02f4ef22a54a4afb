//! What can go wrong with an SAE.

use std::path::PathBuf;

use tch::TchError;

/// An SAE that could not be made, loaded, saved or run.
#[derive(Debug, thiserror::Error)]
pub enum SaeError {
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
    /// A file of tensors.
    #[error(transparent)]
    Tensors(#[from] sae_tensors::TensorError),
    /// A file of the SAE is damaged, or not what it should be.
    #[error("cannot use the SAE {}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// libtorch failed.
    #[error("libtorch failed: {0}")]
    Torch(#[from] TchError),
}
