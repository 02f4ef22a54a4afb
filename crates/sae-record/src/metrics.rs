//! `metrics.jsonl`: a line of JSON a logging step.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::RecordError;

/// An open `metrics.jsonl`. Every line is an object with `step`, optimiser steps taken; a logging step's has the terms of the
/// loss beside it, an evaluation's has `evaluation`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a run that goes on from `step`: lines of later steps, written before an interruption, go.
    pub fn open(path: &Path, step: u64) -> Result<Self, RecordError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(RecordError::file("read", path)(error)),
        };
        let kept: String = text
            .lines()
            .filter(|line| {
                let value: Option<Value> = serde_json::from_str(line).ok();
                value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        crate::error::write_text(path, &kept)?;
        let file =
            File::options().append(true).open(path).map_err(RecordError::file("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes a line.
    pub fn write(&mut self, line: &Map<String, Value>) -> Result<(), RecordError> {
        let mut text = serde_json::to_vec(line).map_err(RecordError::file("write", &self.path))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(RecordError::file("write", &self.path))
    }
}
