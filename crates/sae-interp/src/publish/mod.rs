//! Runs and features where the field looks for them: weights with a model card on the Hugging Face hub, features on Neuronpedia.

pub mod card;
pub mod hub;
pub mod neuronpedia;
pub mod saedashboard;

use std::path::PathBuf;

use sae_record::RecordError;

use crate::http::HttpError;

/// Something that could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The service could not be reached, or refuses.
    #[error("cannot {action}: {source}")]
    Http {
        /// What was being done.
        action: String,
        /// What came back.
        source: HttpError,
    },
    /// The service says something that its protocol does not have.
    #[error("cannot {action}: {message}")]
    Protocol {
        /// What was being done.
        action: String,
        /// What was expected and what came.
        message: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A record of a run cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What was asked for cannot be.
    #[error("{0}")]
    Input(String),
    /// A signal asked for the end.
    #[error("interrupted: what has arrived stays there, and the same command goes on from it")]
    Interrupted,
}

impl PublishError {
    fn http(action: impl Into<String>) -> impl FnOnce(HttpError) -> Self {
        let action = action.into();
        move |source| match source {
            HttpError::Interrupted => Self::Interrupted,
            source => Self::Http { action, source },
        }
    }

    fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
