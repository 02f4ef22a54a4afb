//! Answers on disk, a file each, named by a hash of what was asked.

use std::path::{Path, PathBuf};

use sae_config::file;

use super::{Answer, AskError};

/// The longest kept answer, in bytes.
const LONGEST: u64 = 64 << 20;

/// A folder of answers.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

impl Cache {
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// A kept answer; one that cannot be read is asked for again.
    pub fn read(&self, key: &str) -> Option<Answer> {
        let text = file::read_text(&self.path(key), LONGEST).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn write(&self, key: &str, answer: &Answer) -> Result<(), AskError> {
        let path = self.path(key);
        let failed =
            |path: &Path, message: String| AskError::Cache { path: path.to_owned(), message };
        std::fs::create_dir_all(&self.0).map_err(|error| failed(&self.0, error.to_string()))?;
        let text = serde_json::to_vec(answer).map_err(|error| failed(&path, error.to_string()))?;
        file::write_atomically(&path, &text).map_err(|error| failed(&path, error.to_string()))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.json"))
    }
}
