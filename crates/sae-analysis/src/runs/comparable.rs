//! Whether runs may stand on one picture: they are of one model and evaluated on one set of data, and training data of one
//! name has the same contents in all of them.

use std::path::Path;

use sae_config::run::Processing;
use sae_record::metric::name;

use super::FinishedRun;
use crate::AnalysisError;

/// The most that the original model's cross-entropy, nats a token, may differ between two runs of one model and one
/// evaluation set: what threads and the order of sums do in one precision, and what two precisions do (bfloat16 against
/// single precision: some thousandths).
const CE_TOLERANCE: f64 = 1e-3;
const CE_TOLERANCE_OF_PRECISIONS: f64 = 0.02;

/// Refuses runs that were not computed from the same things, naming what differs and between which.
pub(super) fn check(folder: &Path, runs: &[FinishedRun]) -> Result<(), AnalysisError> {
    let Some(first) = runs.first() else { return Ok(()) };
    // Summaries of earlier versions have no fingerprints to compare with.
    let known = runs.iter().find(|run| run.summary.inputs.is_some());
    for run in runs {
        for other in std::iter::once(first).chain(known) {
            if let Some((what, differs)) = difference(other, run) {
                return Err(AnalysisError::NotComparable {
                    path: folder.to_owned(),
                    what,
                    first: format!("{} in {}", differs.0, other.id),
                    other: format!("{} in {}", differs.1, run.id),
                });
            }
        }
    }
    Ok(())
}

/// The first thing that two runs were computed from and that is not the same.
fn difference(a: &FinishedRun, b: &FinishedRun) -> Option<(&'static str, (String, String))> {
    let told = |what, of: &dyn Fn(&FinishedRun) -> String| {
        let (a, b) = (of(a), of(b));
        (a != b).then_some((what, (a, b)))
    };
    let fingerprints = |what, of: &dyn Fn(&FinishedRun) -> Option<String>| {
        let (a, b) = (of(a)?, of(b)?);
        (a != b).then(|| (what, (format!("fingerprint {a}"), format!("fingerprint {b}"))))
    };
    let inputs = |run: &FinishedRun| run.summary.inputs.clone();
    // A name is what there is to compare where a summary has no fingerprints; a model or data set may move otherwise.
    let by_name = inputs(a).is_none() || inputs(b).is_none();
    let named =
        |what, of: &dyn Fn(&FinishedRun) -> String| by_name.then(|| told(what, of)).flatten();
    told("processing of the model", &processing)
        .or_else(|| named("model", &|run| run.config.model.path.to_string()))
        .or_else(|| fingerprints("model", &|run| Some(inputs(run)?.model)))
        .or_else(|| named("evaluation set", &|run| run.config.eval.data.to_string()))
        .or_else(|| fingerprints("evaluation set", &|run| Some(inputs(run)?.evaluation)))
        .or_else(|| {
            told("evaluation set", &|run| format!("{} tokens", run.summary.evaluation.tokens))
        })
        .or_else(|| {
            let ce = |run: &FinishedRun| run.summary.evaluation.values.get(name::CE_ORIGINAL);
            let same_precision = a.config.train.precision == b.config.train.precision;
            let most = if same_precision { CE_TOLERANCE } else { CE_TOLERANCE_OF_PRECISIONS };
            let apart = (ce(a) - ce(b)).abs();
            let is_other = apart.is_nan() || apart > most;
            let tell = |run| format!("a cross-entropy of the original model of {:.4}", ce(run));
            is_other.then(|| ("model or evaluation set", (tell(a), tell(b))))
        })
        .or_else(|| {
            // Other data under another name is a comparison that somebody wants; under the same name it is an accident.
            let data =
                |run: &FinishedRun| (run.config.data.train.clone(), run.config.data.split.clone());
            let same_name =
                data(a) == data(b) && a.config.data.tokenizer == b.config.data.tokenizer;
            if !same_name || a.config.data.column != b.config.data.column {
                return None;
            }
            fingerprints("training data", &|run| Some(inputs(run)?.training))
        })
}

fn processing(run: &FinishedRun) -> String {
    let processing = match run.config.model.processing {
        Processing::None => "weights as they are",
        Processing::TransformerLens => "weights processed as by TransformerLens",
    };
    processing.to_owned()
}
