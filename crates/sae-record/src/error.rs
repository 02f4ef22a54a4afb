//! What can be wrong with a file that a run or sweep has left.

use std::path::{Path, PathBuf};

use sae_config::ConfigError;
use sae_config::file::{read_text, write_atomically};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record that could not be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, of another format, or holds what cannot be.
    #[error("cannot use {}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A configuration in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl RecordError {
    /// For `map_err` on operations on a file.
    pub(crate) fn file<E: Into<std::io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |error| Self::File { action, path, source: error.into() }
    }

    pub(crate) fn format(path: &Path, message: impl std::fmt::Display) -> Self {
        Self::Format { path: path.to_owned(), message: message.to_string() }
    }
}

/// Reads a file of JSON of at most `longest` bytes.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, longest: u64) -> Result<T, RecordError> {
    let text = read_text(path, longest).map_err(RecordError::file("read", path))?;
    serde_json::from_str(&text).map_err(|error| RecordError::format(path, error))
}

/// Writes a file of JSON, whole or not at all; its folder is made where it is missing.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let text = serde_json::to_string_pretty(value).map_err(RecordError::file("write", path))?;
    write_text(path, &text)
}

/// The same for text.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), RecordError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(RecordError::file("create", folder))?;
    }
    write_atomically(path, text.as_bytes()).map_err(RecordError::file("write", path))
}
