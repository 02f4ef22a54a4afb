//! What was measured for the analysis: files beside the runs, which a sweep may have or not.

use std::path::Path;

use sae_record::activations::{EVALUATION, MODEL, Measured};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::runs::SweepRuns;
use crate::study::Notes;

/// A kind of measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What it is of, at the beginning of a sentence.
    pub what: &'static str,
    /// The command that makes it.
    pub command: &'static str,
}

/// The file's content; none where there is no file, and with a note where it cannot be used or is not of the model and
/// data of the runs (all of which have the same).
pub(crate) fn read<T: Serialize + DeserializeOwned>(
    path: &Path,
    kind: Kind,
    runs: &SweepRuns,
    notes: &mut Notes,
) -> Option<Measured<T>> {
    let measured: Measured<T> = match Measured::load(path) {
        Ok(measured) => measured?,
        Err(error) => {
            notes.add(format!("{} are left out: {error}.", kind.what));
            return None;
        }
    };
    let of = &measured.of;
    let inputs = runs.finished.iter().find_map(|run| run.summary.inputs.as_ref());
    let is_other = inputs.is_some_and(|inputs| {
        of.get(MODEL) != Some(&inputs.model) || of.get(EVALUATION) != Some(&inputs.evaluation)
    });
    if is_other {
        notes.add(format!(
            "{} is of another model or evaluation set than the runs, left out: `{}` measures it again.",
            path.display(),
            kind.command
        ));
        return None;
    }
    Some(measured)
}
