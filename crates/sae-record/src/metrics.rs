//! `metrics.jsonl`: a line of JSON a logging step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::RecordError;
use crate::tensorboard::{EventFile, Logged};

/// What was logged after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Optimiser steps taken.
    pub step: u64,
    /// The numbers of a logging step by name: `loss`, its terms, `l0`, `lr`, `grad_norm`. What is not finite is not there.
    pub values: BTreeMap<String, f64>,
}

/// The key of the evaluation in a line.
pub const EVALUATION: &str = "evaluation";
/// The key of what was counted of features in a line, by site.
pub const FEATURES: &str = "features";

/// How often features are active, counted in the middle of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureActivity {
    /// Tokens counted.
    pub tokens: u64,
    /// Features that were active on one of them.
    pub alive: u64,
    /// Alive features by the logarithm (base 10) of the share of tokens that they were active on: bins of a quarter from −6 to 0. A
    /// share of less than a millionth is in the first bin.
    pub log10_frequency: Vec<u64>,
}

impl FeatureActivity {
    /// The least logarithm of the histogram.
    pub const LEAST: f64 = -6.0;
    /// The width of its bins.
    pub const WIDTH: f64 = 0.25;

    /// Of the share of tokens that every feature is active on.
    pub fn of(frequencies: &[f64], tokens: u64) -> Self {
        let bins = (-Self::LEAST / Self::WIDTH) as usize;
        let mut log10_frequency = vec![0; bins];
        for frequency in frequencies.iter().filter(|frequency| **frequency > 0.0) {
            let place = ((frequency.log10() - Self::LEAST) / Self::WIDTH).max(0.0) as usize;
            log10_frequency[place.min(bins - 1)] += 1;
        }
        Self { tokens, alive: log10_frequency.iter().sum(), log10_frequency }
    }

    /// The ends of the bins.
    pub fn edges(&self) -> Vec<f64> {
        let place = |place: usize| Self::LEAST + Self::WIDTH * place as f64;
        (0..=self.log10_frequency.len()).map(place).collect()
    }
}

/// What a run has logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The logging steps, in their order.
    pub steps: Vec<Line>,
    /// The evaluations in the middle of the run: the metrics of the spliced model, and `alive`, of all sites together.
    pub evaluations: Vec<Line>,
}

/// Reads what a run has logged.
pub fn read(path: &Path) -> Result<History, RecordError> {
    let text = std::fs::read_to_string(path).map_err(RecordError::file("read", path))?;
    let mut history = History::default();
    for (place, text) in text.lines().enumerate() {
        let failed = |message| RecordError::format(path, format!("line {}: {message}", place + 1));
        let line: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
        let step = line.get("step").and_then(Value::as_u64);
        let step = step.ok_or_else(|| failed("it has no step".to_owned()))?;
        let values = numbers(&line);
        let of = if line.contains_key(EVALUATION) {
            &mut history.evaluations
        } else {
            &mut history.steps
        };
        if !values.is_empty() {
            of.push(Line { step, values });
        }
    }
    Ok(history)
}

/// The numbers of a line by name; of an evaluation its values, and the alive features of all sites.
fn numbers(line: &Map<String, Value>) -> BTreeMap<String, f64> {
    let named = |of: &Map<String, Value>| -> BTreeMap<String, f64> {
        let is_counter = |name: &str| ["step", "samples", "tokens"].contains(&name);
        of.iter()
            .filter(|(name, _)| !is_counter(name))
            .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect()
    };
    let Some(evaluation) = line.get(EVALUATION) else { return named(line) };
    let mut values = evaluation.as_object().map(named).unwrap_or_default();
    let sites = line.get(FEATURES).and_then(Value::as_object);
    if let Some(sites) = sites {
        let alive = sites.values().filter_map(|site| site["alive"].as_f64()).sum();
        values.insert("alive".to_owned(), alive);
    }
    values
}

/// A line as TensorBoard has it: the numbers of a step, or of an evaluation below `evaluation/`; histograms of features' activity.
fn logged(line: &Map<String, Value>) -> Vec<(String, Logged)> {
    let is_evaluation = line.contains_key(EVALUATION);
    let mut logged: Vec<(String, Logged)> = numbers(line)
        .into_iter()
        .map(|(name, value)| {
            let tag = if is_evaluation { format!("{EVALUATION}/{name}") } else { name };
            (tag, Logged::Scalar(value))
        })
        .collect();
    for (site, found) in line.get(FEATURES).and_then(Value::as_object).into_iter().flatten() {
        if let Ok(found) = serde_json::from_value::<FeatureActivity>(found.clone()) {
            let edges = found.edges();
            let counts = found.log10_frequency.iter().map(|count| *count as f64).collect();
            let histogram = Logged::Histogram { edges, counts };
            logged.push((format!("log10_frequency/{site}"), histogram));
        }
    }
    logged
}

/// An open `metrics.jsonl`. Every line is an object with `step`, optimiser steps taken; a logging step's has the terms of the
/// loss beside it, an evaluation's has `evaluation` and `features`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    tensorboard: Option<EventFile>,
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
        Ok(Self { path: path.to_owned(), file, tensorboard: None })
    }

    /// The same, with an event file of TensorBoard, which is written anew from the lines that stay.
    pub fn with_tensorboard(self, path: &Path) -> Result<Self, RecordError> {
        let mut events = EventFile::create(path)?;
        let text =
            std::fs::read_to_string(&self.path).map_err(RecordError::file("read", &self.path))?;
        for line in text.lines() {
            if let Ok(line) = serde_json::from_str::<Map<String, Value>>(line) {
                write_event(&mut events, &line)?;
            }
        }
        Ok(Self { tensorboard: Some(events), ..self })
    }

    /// Writes a line.
    pub fn write(&mut self, line: &Map<String, Value>) -> Result<(), RecordError> {
        let mut text = serde_json::to_vec(line).map_err(RecordError::file("write", &self.path))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(RecordError::file("write", &self.path))?;
        match &mut self.tensorboard {
            Some(events) => write_event(events, line),
            None => Ok(()),
        }
    }
}

fn write_event(events: &mut EventFile, line: &Map<String, Value>) -> Result<(), RecordError> {
    let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
    events.write(step, &logged(line))
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
        let history = read(&path).unwrap();
        let lines = &history.steps;
        assert_eq!((lines.len(), history.evaluations.len()), (1, 1));
        assert_eq!((lines[0].step, lines[0].values.len(), lines[0].values["loss"]), (10, 1, 2.5));
        std::fs::write(&path, format!("{text}{{\"loss\":1}}\n")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("no step"), "{error}");
    }
}
