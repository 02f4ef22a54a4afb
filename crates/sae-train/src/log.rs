//! `metrics.jsonl`: a line of JSON a logging step.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::TrainError;

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a run that goes on from `step`: lines of later steps, written before an interruption, go.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TrainError::file("read", path)(error)),
        };
        let kept: String = text
            .lines()
            .filter(|line| {
                let value: Option<Value> = serde_json::from_str(line).ok();
                value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        crate::write_atomically(path, kept.as_bytes())?;
        let file =
            File::options().append(true).open(path).map_err(TrainError::file("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes a line.
    pub fn write(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        let mut text = serde_json::to_vec(line).map_err(TrainError::file("write", &self.path))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(TrainError::file("write", &self.path))
    }
}
