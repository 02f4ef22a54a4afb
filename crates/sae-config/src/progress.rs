//! What long work tells of itself: to a progress bar in the same process, or as lines of JSON to a launcher.

use serde::{Deserialize, Serialize};

/// What happens in a training, an evaluation, a pretraining or an analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A phase begins.
    Began {
        /// What it is.
        phase: String,
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

impl Event {
    /// The beginning of a phase.
    pub fn began(phase: impl Into<String>, total: u64, tokens_per_unit: u64) -> Self {
        Self::Began { phase: phase.into(), total, tokens_per_unit }
    }

    /// Progress without anything new to say.
    pub fn advanced(done: u64) -> Self {
        Self::Advanced { done, message: String::new() }
    }
}
