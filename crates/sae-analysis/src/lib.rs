//! From finished runs to evidence: Pareto frontiers, their comparison, tables, pictures and a report.
//!
//! Works from what the run folders say, and from nothing else; a run that is not finished is listed and left out.
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

pub mod bootstrap;
pub mod dictionary;
pub mod embedding;
mod error;
pub mod features;
pub mod frontier;
pub mod histogram;
pub mod matching;
pub mod matrix;
mod neighbors;
mod plot;
mod report;
mod runs;
pub mod similarity;
mod style;
mod tables;

use std::path::{Path, PathBuf};

pub use error::AnalysisError;
pub use frontier::Frontier;
pub use runs::{Point, SweepRuns};
use sae_config::layout;

/// What [`analyse`] has made.
#[derive(Debug)]
pub struct Analysis {
    /// The table and the summary, for a terminal.
    pub text: String,
    /// The report.
    pub report: PathBuf,
}

/// Reads a sweep's finished runs and writes `frontier.{json,csv,svg,png}` and `report.html` into its folder.
pub fn analyse(sweep: &Path) -> Result<Analysis, AnalysisError> {
    let runs = SweepRuns::load(sweep)?;
    let frontier = Frontier::of(&runs.points);
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|source| AnalysisError::Write { path, source })
    };
    write(layout::frontier(sweep, "json"), &frontier.to_json()?)?;
    write(layout::frontier(sweep, "csv"), &tables::csv(&frontier.points))?;
    let svg = plot::svg(&frontier)?;
    write(layout::frontier(sweep, "svg"), &svg)?;
    plot::png(&frontier, &layout::frontier(sweep, "png"))?;
    write(layout::report(sweep), &report::html(&runs, &frontier, &svg))?;
    Ok(Analysis { text: tables::terminal(&runs, &frontier), report: layout::report(sweep) })
}
