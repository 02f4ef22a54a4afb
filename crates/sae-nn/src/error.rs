//! What can go wrong with an SAE.

use std::path::PathBuf;

use sae_config::message::without_frames;
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
    /// A stored parameter is NaN or infinite.
    #[error(
        "cannot use the SAE {}: {parameter} holds {count} numbers that are NaN or infinite; the file is damaged, or the \
         SAE diverged in training", path.display()
    )]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The parameter.
        parameter: &'static str,
        /// Numbers that are not finite.
        count: i64,
    },
    /// An SAE of a size that no tensor has.
    #[error("cannot make an SAE of {features} dictionary elements of width {d_model}: {expected}")]
    Size {
        /// Width of the activation, D.
        d_model: usize,
        /// Dictionary elements, F.
        features: usize,
        /// What would do.
        expected: &'static str,
    },
    /// Sizes that a kernel cannot work on.
    #[error("a kernel was given sizes that do not belong together: {0}")]
    Kernel(#[from] sae_kernels::ShapeError),
    /// A kernel on a GPU that could not be started.
    #[error(transparent)]
    Cuda(#[from] sae_cuda::CudaError),
    /// libtorch failed.
    #[error("libtorch failed: {}", without_frames(.0))]
    Torch(#[from] TchError),
}
