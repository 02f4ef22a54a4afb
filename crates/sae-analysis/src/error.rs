//! What can go wrong in an analysis.

use std::path::PathBuf;

use sae_config::ConfigError;

/// A sweep that could not be analysed.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// A manifest or summary.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No run is finished.
    #[error("{} has no finished run among its {runs}: run the sweep first", path.display())]
    NothingFinished {
        /// The sweep's folder.
        path: PathBuf,
        /// Runs of its manifest.
        runs: usize,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A picture could not be drawn.
    #[error("cannot draw {picture}: {message}")]
    Plot {
        /// What.
        picture: String,
        /// Why not.
        message: String,
    },
    /// Numbers could not be written as JSON.
    #[error("cannot write frontier.json: {0}")]
    Json(#[from] serde_json::Error),
}
