//! The loop over optimiser steps, the same for SAEs and for language models: progress, checkpoints, interruption.

use crate::TrainError;
use crate::progress::{Event, Observer, RunProgress};

/// What is trained. Steps count from 1.
pub(crate) trait Trained {
    /// Takes a step; returns what a progress bar says of it, which may be nothing.
    fn step(&mut self, step: u64) -> Result<StepReport, TrainError>;

    /// Measures what is to be measured after a step that is not the last.
    fn measure(&mut self, _step: u64) -> Result<(), TrainError> {
        Ok(())
    }

    /// Whether a checkpoint is due after this step, beside those at the end and at an interruption.
    fn is_due(&self, step: u64) -> bool;

    /// Writes a checkpoint of the state after this step.
    fn save(&mut self, step: u64) -> Result<(), TrainError>;

    /// Whether nothing is left to train.
    fn is_over(&self) -> bool {
        false
    }
}

/// What is said of a step.
#[derive(Debug, Default)]
pub(crate) struct StepReport {
    /// In words, beside the numbers.
    pub message: String,
    /// Each run's numbers.
    pub runs: Vec<RunProgress>,
}

/// Takes the steps after `from` up to `to`. An interruption saves the state and is an error that says so.
pub(crate) fn take(
    trained: &mut dyn Trained,
    (from, to): (u64, u64),
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    observer.notice(Event::advanced(from));
    for step in from + 1..=to {
        let StepReport { message, runs } = trained.step(step)?;
        observer.notice(Event::Advanced { done: step, message, runs });
        if step < to {
            trained.measure(step)?;
        }
        let interrupted = observer.interrupted() && step < to;
        if trained.is_due(step) || interrupted || step == to {
            trained.save(step)?;
        }
        if interrupted {
            return Err(TrainError::Interrupted { step });
        }
        if step < to && trained.is_over() {
            // A later call goes straight to what comes after the training.
            trained.save(to)?;
            break;
        }
    }
    observer.notice(Event::Ended);
    Ok(())
}
