//! `metrics.jsonl`: a line of JSON a logging step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::RecordError;

/// What was logged after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Optimiser steps taken.
    pub step: u64,
    /// The numbers of a logging step by name: `loss`, its terms, `l0`, `lr`, `grad_norm`. What is not finite is not there.
    pub values: BTreeMap<String, f64>,
}

/// Reads the logging steps of a run, in their order; evaluations are left out.
pub fn read(path: &Path) -> Result<Vec<Line>, RecordError> {
    let text = std::fs::read_to_string(path).map_err(RecordError::file("read", path))?;
    let mut lines = Vec::new();
    for (place, text) in text.lines().enumerate() {
        let failed = |message| RecordError::format(path, format!("line {}: {message}", place + 1));
        let line: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
        let step = line.get("step").and_then(Value::as_u64);
        let step = step.ok_or_else(|| failed("it has no step".to_owned()))?;
        let is_counter = |name: &str| ["step", "samples"].contains(&name);
        let values: BTreeMap<String, f64> = line
            .iter()
            .filter(|(name, _)| !is_counter(name))
            .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect();
        if !values.is_empty() {
            lines.push(Line { step, values });
        }
    }
    Ok(lines)
}

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

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn steps_are_read_without_what_is_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"step\":10,\"samples\":80,\"loss\":2.5,\"kl\":null}\n{\"step\":10,\"evaluation\":{\"l0\":3.0}}\n";
        std::fs::write(&path, text).unwrap();
        let lines = read(&path).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].step, lines[0].values.len(), lines[0].values["loss"]), (10, 1, 2.5));
        std::fs::write(&path, format!("{text}{{\"loss\":1}}\n")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("no step"), "{error}");
    }
}
