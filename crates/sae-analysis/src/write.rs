//! The files that an analysis leaves in the sweep's folder.

use std::path::{Path, PathBuf};

use sae_config::layout;

use crate::evidence::Evidence;
use crate::plot::{self, Figure};
use crate::tables;
use crate::{AnalysisError, SweepRuns, report};

/// Writes everything, the report last. Returns the files in the order in which they were written.
pub(crate) fn everything(
    runs: &SweepRuns,
    evidence: &Evidence,
) -> Result<Vec<PathBuf>, AnalysisError> {
    let mut folder = Folder { sweep: &runs.folder, written: Vec::new() };
    folder.text("analysis", "json", &serde_json::to_string(evidence)?)?;
    folder.text("frontier", "json", &evidence.frontier.to_json()?)?;
    folder.text("frontier", "csv", &tables::csv(&evidence.frontier.points))?;
    folder.picture(&plot::frontier::figure(&evidence.frontier))?;
    let matches = &evidence.matches;
    folder.text("matches", "json", &serde_json::to_string_pretty(matches)?)?;
    folder.text("matches", "csv", &tables::matches::csv(matches))?;
    folder.text("matches", "md", &tables::matches::markdown(matches))?;
    folder.text("matches", "tex", &tables::matches::latex(matches))?;
    folder.both(&plot::downstream::figure(evidence), &tables::evidence::downstream(evidence))?;
    if folder.both(&plot::geometry::figure(evidence), &tables::evidence::geometry(evidence))? {
        let histograms = tables::evidence::geometry_histograms(evidence);
        folder.text("geometry_histograms", "csv", &histograms)?;
    }
    folder.both(&plot::umap::figure(evidence), &tables::evidence::umap(evidence))?;
    folder.both(&plot::activations::figure(evidence), &tables::evidence::activations(evidence))?;
    folder.both(&plot::stability::figure(evidence), &tables::evidence::stability(evidence))?;
    if folder.both(&plot::features::figure(evidence), &tables::evidence::features(evidence))? {
        let unusual = tables::evidence::unusual_features(evidence);
        folder.text("unusual_features", "csv", &unusual)?;
    }
    folder.text("report", "html", &report::html(evidence))?;
    Ok(folder.written)
}

struct Folder<'a> {
    sweep: &'a Path,
    written: Vec<PathBuf>,
}

impl Folder<'_> {
    fn text(&mut self, name: &str, extension: &str, text: &str) -> Result<(), AnalysisError> {
        let path = layout::analysis(self.sweep, name, extension);
        std::fs::write(&path, text)
            .map_err(|source| AnalysisError::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }

    /// A picture as SVG and PNG. Returns the SVG.
    fn picture(&mut self, figure: &Figure) -> Result<String, AnalysisError> {
        let svg = figure.svg()?;
        self.text(&figure.name, "svg", &svg)?;
        let path = layout::analysis(self.sweep, &figure.name, "png");
        figure.png(&path)?;
        self.written.push(path);
        Ok(svg)
    }

    /// A picture and the numbers behind it, if there is something to show; otherwise what an earlier analysis left of
    /// them goes. Returns whether there is.
    fn both(&mut self, figure: &Figure, csv: &str) -> Result<bool, AnalysisError> {
        if figure.rows.is_empty() {
            for extension in ["csv", "svg", "png"] {
                remove(&layout::analysis(self.sweep, &figure.name, extension))?;
            }
            return Ok(false);
        }
        self.text(&figure.name, "csv", csv)?;
        self.picture(figure)?;
        Ok(true)
    }
}

fn remove(path: &Path) -> Result<(), AnalysisError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(AnalysisError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
