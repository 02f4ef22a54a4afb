//! What long work tells of itself: to a progress bar in the same process, or as lines of JSON to a launcher.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens in a training, an evaluation, a pretraining or an analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A phase begins.
    Began {
        /// What it is.
        phase: Phase,
        /// Units of [`Event::Advanced`] in all; 0 where that is not known.
        total: u64,
        /// Tokens in a unit, for rates; 0 where units are not of tokens.
        tokens_per_unit: u64,
    },
    /// So many units of the phase are done.
    Advanced {
        /// Units done.
        done: u64,
        /// What is worked on, in words; empty where there is nothing new.
        message: String,
        /// Where each run stands; empty where there is nothing new.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        runs: Vec<RunProgress>,
    },
    /// The phase is over.
    Ended,
}

/// A phase of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Optimiser steps of a bank.
    Train,
    /// The evaluation of SAEs.
    Evaluate,
    /// The count of the tokens that every feature is active on.
    Alive,
    /// Measurements of activations for the analysis.
    MeasureActivations,
    /// What features are active on.
    Features,
    /// The concepts of a text, and the features that are active on it.
    Concepts,
    /// How well features tell concepts.
    ScoreConcepts,
    /// What a language model says that features are.
    Explain,
    /// How well a language model tells by explanations what features do.
    Score,
    /// The prompts of a task.
    Task,
    /// Files or features on their way to a service.
    Publish,
    /// Optimiser steps of a language model.
    Pretrain,
    /// The count of the windows of a data set.
    Count,
    /// The validation loss of a language model.
    Validate,
    /// The validation loss of a bigram model.
    Bigram,
    /// The making of windows of text.
    Windows,
    /// The generation of text.
    Generate,
    /// The analysis of a sweep.
    Analyse,
}

impl Phase {
    /// Whether the work saves itself when it is asked to end. In all other phases nothing is lost that the same command
    /// does not make again.
    pub fn saves_itself(self) -> bool {
        matches!(self, Self::Train | Self::Pretrain)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Alive => "alive",
            Self::MeasureActivations => "measure activations",
            Self::Features => "features",
            Self::Concepts => "concepts",
            Self::ScoreConcepts => "score concepts",
            Self::Explain => "explain",
            Self::Score => "score",
            Self::Task => "task",
            Self::Publish => "publish",
            Self::Pretrain => "pretrain",
            Self::Count => "count",
            Self::Validate => "validate",
            Self::Bigram => "bigram",
            Self::Windows => "windows",
            Self::Generate => "generate",
            Self::Analyse => "analyse",
        })
    }
}

impl Event {
    /// The beginning of a phase.
    pub fn began(phase: Phase, total: u64, tokens_per_unit: u64) -> Self {
        Self::Began { phase, total, tokens_per_unit }
    }

    /// Progress without anything new to say.
    pub fn advanced(done: u64) -> Self {
        Self::Advanced { done, message: String::new(), runs: Vec::new() }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Its id.
    pub run: String,
    /// Its numbers by name, in the order in which they are shown: `loss`, the terms that it reconstructs by, `l0`, and
    /// `ce_increase` where that was measured in the middle of the run.
    pub values: Vec<(String, f64)>,
}

/// Where the runs of a bank stand, for a reader: `loss 0.62, KL 0.21, L0 35.1`; of several runs the least and the greatest.
pub fn progress_text(runs: &[RunProgress]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let names: Vec<&str> = first.values.iter().map(|(name, _)| name.as_str()).collect();
    let parts = names.into_iter().filter_map(|name| {
        let of = |run: &RunProgress| {
            run.values.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
        };
        let values: Vec<f64> =
            runs.iter().filter_map(of).filter(|value| value.is_finite()).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        let (low, high) = (short(low), short(high));
        let range = if low == high { low } else { format!("{low}–{high}") };
        Some(format!("{} {range}", shown(name)))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// A number's name for a reader.
fn shown(name: &str) -> &str {
    match name {
        "l0" => "L0",
        "kl" => "KL",
        "local" => "MSE",
        "ce_increase" => "CE increase",
        other => other,
    }
}

/// Three significant digits.
fn short(value: f64) -> String {
    let exponent = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    if (-4.0..6.0).contains(&exponent) {
        let decimals = (2.0 - exponent).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, RunProgress, progress_text};

    fn run(name: &str, values: &[(&str, f64)]) -> RunProgress {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        RunProgress { run: name.to_owned(), values }
    }

    #[test]
    fn one_run_has_numbers_and_several_have_ranges() {
        let a = run("a", &[("loss", 0.6213), ("kl", 0.2), ("l0", 35.14)]);
        let b = run("b", &[("loss", 0.71), ("kl", f64::NAN), ("l0", 12.0)]);
        assert_eq!(progress_text(&[]), "");
        assert_eq!(progress_text(std::slice::from_ref(&a)), "loss 0.621, KL 0.200, L0 35.1");
        assert_eq!(progress_text(&[a, b]), "loss 0.621–0.710, KL 0.200, L0 12.0–35.1");
    }

    #[test]
    fn events_come_back() {
        let runs = vec![run("a", &[("loss", 0.5), ("l0", 3.0)])];
        let event = Event::Advanced { done: 3, message: "bank of 1".to_owned(), runs };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.contains(r#""values":[["loss",0.5],["l0",3.0]]"#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        // Of an earlier version.
        let line = r#"{"event":"advanced","done":3,"message":""}"#;
        assert_eq!(serde_json::from_str::<Event>(line).unwrap(), Event::advanced(3));
    }
}
