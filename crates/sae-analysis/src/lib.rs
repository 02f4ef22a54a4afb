//! From finished runs to evidence: Pareto frontiers, their comparison, tables, pictures and a report.
//!
//! Works from what the run folders say, and from nothing else. A run that is not finished, diverged or cannot be read is
//! listed and left out; so is what is missing of one that is. [`analyse`] does all of it for a sweep's folder; the
//! modules serve those who want a single number.
//!
//! ```
//! use sae_analysis::frontier::{Curve, pareto};
//!
//! // (L0, CE increase) of five runs: the dominated ones go.
//! let curve = pareto(&[(10.0, 0.9), (30.0, 0.4), (40.0, 0.5), (60.0, 0.2), (20.0, 0.9)]);
//! assert_eq!(curve.points, [(10.0, 0.9), (30.0, 0.4), (60.0, 0.2)]);
//! assert!((curve.at(45.0).unwrap() - 0.3).abs() < 1e-12);
//! # let _: Curve = curve;
//! ```

pub mod activations;
pub mod bootstrap;
pub mod concepts;
pub mod dashboards;
pub mod dictionary;
pub mod downstream;
mod draw;
pub mod embedding;
mod error;
pub mod evidence;
pub mod explanations;
pub mod features;
pub mod frontier;
pub mod geometry;
pub mod gradients;
pub mod histogram;
pub mod matching;
pub mod matrix;
mod measured;
mod number;
mod options;
pub mod page;
mod permutation;
pub mod runs;
pub mod stability;
mod study;
mod subject;
mod table;
pub mod tasks;
mod thin;
pub mod training;
mod write;

use std::path::{Path, PathBuf};

pub use error::AnalysisError;
pub use frontier::Frontier;
pub use options::AnalysisOptions;
pub use runs::{FinishedRun, Group, Point, SweepRuns};
use sae_record::Event;
use sae_record::layout;

use crate::evidence::Evidence;
use crate::study::Study;

/// What [`analyse`] has made.
#[derive(Debug)]
pub struct Analysis {
    /// The table, the summary and the notes, for a terminal.
    pub text: String,
    /// The report.
    pub report: PathBuf,
    /// All files that were written.
    pub files: Vec<PathBuf>,
    /// All that was found, as it stands in `analysis.json`.
    pub evidence: Evidence,
}

/// Reads finished runs and writes what is found into their folder, with the default options: see [`analyse_with`].
pub fn analyse(folder: &Path) -> Result<Analysis, AnalysisError> {
    analyse_with(folder, &AnalysisOptions::default(), &mut |_| {})
}

/// Reads the finished runs of a sweep's folder, of a run's, or of one that holds runs, and writes what is found into it:
///
/// - `analysis.json`: all of it, an [`Evidence`]
/// - `frontier.{json,csv,svg,png}`: every run's point, the frontiers, and each group against `local` (or what stands
///   in for it)
/// - `matches.{json,csv,md,tex}`: matched runs
/// - `downstream`, `geometry`, `umap`, `activations`, `stability`, `features`, `concepts`, `explanations`, `tasks`, `gradients` and `training`, each as `csv`, `svg` and `png`, where
///   the sweep has something to show; and `geometry_histograms.csv`, `unusual_features.csv` (dead and ultra-dense)
/// - `report.html`
///
/// `notice` is told of the progress through the dictionaries, most of the work.
///
/// What is broken or missing does not stop it: it is left out, and said in the notes. Refused are a folder
/// without a finished run, runs that cannot be compared, facets that no run has, and options out of range; where there are
/// runs, but none to compare, the report says so too.
pub fn analyse_with(
    folder: &Path,
    options: &AnalysisOptions,
    notice: &mut dyn FnMut(Event),
) -> Result<Analysis, AnalysisError> {
    let runs = match SweepRuns::load(folder, options) {
        Err(
            error @ (AnalysisError::NotComparable { .. } | AnalysisError::NothingFinished { .. }),
        ) => {
            write::refusal(folder, &error)?;
            return Err(error);
        }
        runs => runs?,
    };
    let evidence = Evidence::gather(Study::begin(&runs, options, notice)?)?;
    let files = write::everything(folder, &evidence)?;
    Ok(Analysis { text: terminal(&evidence), report: layout::report(folder), files, evidence })
}

/// The runs, the findings and the notes, for a terminal.
fn terminal(evidence: &Evidence) -> String {
    let mut text = frontier::terminal(&evidence.frontier).terminal();
    let findings = subject::findings(evidence).for_people();
    if !findings.rows.is_empty() {
        text.extend(["\n\n", &findings.caption, ":\n", &findings.terminal()]);
    }
    for note in &evidence.notes {
        text.extend(["\n\n", note]);
    }
    text
}
