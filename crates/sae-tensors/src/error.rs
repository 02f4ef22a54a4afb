//! What can be wrong with a file of tensors.

use std::path::PathBuf;

use tch::TchError;

/// A file of tensors that could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
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
    /// The file is truncated, damaged, or something else than its name says.
    #[error("cannot use the tensors in {}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would do.
        message: String,
    },
    /// A tensor is not there.
    #[error("{} has no tensor `{name}`{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The first names that it has.
        hint: String,
    },
    /// libtorch failed.
    #[error("libtorch failed: {0}")]
    Torch(#[from] TchError),
}
