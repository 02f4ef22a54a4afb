//! What long work tells of itself: to a progress bar in the same process, or as lines of JSON to a launcher.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens in a training, an evaluation, a pretraining or an analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        /// A few numbers in words; empty where there is nothing new.
        message: String,
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
        Self::Advanced { done, message: String::new() }
    }
}
