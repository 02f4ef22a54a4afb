//! What can go wrong while runs are shown.

use std::path::PathBuf;

/// Runs that cannot be shown, or a request that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A folder without dashboards.
    #[error("no run in {0} has dashboards: `sae features {0}` makes them", folder.display())]
    NoDashboards {
        /// The folder.
        folder: PathBuf,
    },
    /// What runs have left behind.
    #[error(transparent)]
    Record(#[from] sae_record::RecordError),
    /// The port cannot be listened on.
    #[error("cannot listen on port {port} of this machine: {source}; name another with --port")]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers for the address: {0}")]
    Random(String),
    /// A request for something that is not there.
    #[error("{0}")]
    Request(String),
    /// Too many prompts wait already.
    #[error("the model is at other prompts: try again when they are answered")]
    Busy,
    /// The model.
    #[error("{0}")]
    Model(String),
}
