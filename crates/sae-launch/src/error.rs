//! What can go wrong when a sweep is launched.

use std::path::PathBuf;

/// A sweep that could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A manifest could not be read or written.
    #[error(transparent)]
    Record(#[from] sae_record::RecordError),
    /// The folder holds another sweep.
    #[error(
        "{} holds another sweep of the same name: give this one another name, or remove that folder", folder.display()
    )]
    OtherSweep {
        /// The sweep's folder.
        folder: PathBuf,
    },
    /// The sweep's folder could not be made.
    #[error("cannot create {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The hub's branches and tags could not be pinned to their commits.
    #[error("cannot pin the sweep's repositories to their commits: {0}")]
    Pin(Box<dyn std::error::Error + Send + Sync>),
    /// A process could not be started or waited for.
    #[error("cannot {action} {command}: {source}")]
    Process {
        /// What was being done: start, or wait for.
        action: &'static str,
        /// The command, as one would type it.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals could not be caught, without which jobs would be left behind.
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    /// The analysis failed; what it said is above.
    #[error("{command} failed ({status})")]
    Analysis {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}
