//! What can go wrong in an analysis.

use std::path::PathBuf;

/// A sweep that could not be analysed.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// A manifest, a summary or a configuration.
    #[error(transparent)]
    Record(#[from] sae_record::RecordError),
    /// A folder of neither a sweep nor runs.
    #[error(
        "{} holds no runs: expected the folder of a sweep (with a manifest.json), of a run (with a config.toml), or of \
         several runs", path.display()
    )]
    NoRuns {
        /// The folder.
        path: PathBuf,
    },
    /// No run is finished.
    #[error(
        "{} has no finished run among its {runs}: {}",
        path.display(),
        unreadable.as_deref().unwrap_or("run the sweep first")
    )]
    NothingFinished {
        /// The folder.
        path: PathBuf,
        /// Its runs.
        runs: usize,
        /// Why the first summary that is there cannot be read, if one is.
        unreadable: Option<String>,
    },
    /// Runs that were not computed from the same things, and so do not belong on one picture.
    #[error(
        "{} has runs that cannot be compared: they differ in the {what} ({first}; {other}). Put runs of one {what} into a \
         folder of their own, or train those that differ again", path.display()
    )]
    NotComparable {
        /// The sweep's folder.
        path: PathBuf,
        /// In what the runs differ.
        what: &'static str,
        /// What the first run has.
        first: String,
        /// What another one has.
        other: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, of another format, or does not go with the others of its run.
    #[error("cannot use {}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// Input out of range.
    #[error("cannot {action}: {message}")]
    Input {
        /// What was being done.
        action: &'static str,
        /// What was expected, and what was found.
        message: String,
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
    #[error("cannot write what was found as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
