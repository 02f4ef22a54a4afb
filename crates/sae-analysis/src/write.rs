//! The files that an analysis leaves in the sweep's folder.

use std::path::{Path, PathBuf};

use sae_config::file::write_atomically;
use sae_record::{Manifest, layout};

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
    let shown =
        folder.both(&plot::geometry::figure(evidence), &tables::evidence::geometry(evidence))?;
    let histograms = tables::evidence::geometry_histograms(evidence);
    folder.table("geometry_histograms", &histograms, shown)?;
    folder.both(&plot::umap::figure(evidence), &tables::evidence::umap(evidence))?;
    folder.both(&plot::activations::figure(evidence), &tables::evidence::activations(evidence))?;
    folder.both(&plot::stability::figure(evidence), &tables::evidence::stability(evidence))?;
    let shown =
        folder.both(&plot::features::figure(evidence), &tables::evidence::features(evidence))?;
    folder.table("unusual_features", &tables::evidence::unusual_features(evidence), shown)?;
    folder.text("report", "html", &report::html(evidence))?;
    Ok(folder.written)
}

/// Writes a report that says why there is nothing else, over an earlier one that would look current.
pub(crate) fn refusal(sweep: &Path, why: &AnalysisError) -> Result<(), AnalysisError> {
    let name = Manifest::load(&layout::manifest(sweep))?.sweep;
    let evidence = Evidence::none(name, vec![format!("Nothing is analysed: {why}.")]);
    Folder { sweep, written: Vec::new() }.text("report", "html", &report::html(&evidence))
}

struct Folder<'a> {
    sweep: &'a Path,
    written: Vec<PathBuf>,
}

impl Folder<'_> {
    fn text(&mut self, name: &str, extension: &str, text: &str) -> Result<(), AnalysisError> {
        let path = layout::analysis(self.sweep, name, extension);
        write_atomically(&path, text.as_ref())
            .map_err(|source| AnalysisError::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
    }

    /// A CSV, if there is something to show; otherwise an earlier one goes.
    fn table(&mut self, name: &str, csv: &str, shown: bool) -> Result<(), AnalysisError> {
        if shown {
            self.text(name, "csv", csv)
        } else {
            remove(&layout::analysis(self.sweep, name, "csv"))
        }
    }

    /// A picture as SVG and PNG.
    fn picture(&mut self, figure: &Figure) -> Result<(), AnalysisError> {
        self.text(&figure.name, "svg", &figure.svg()?)?;
        let path = layout::analysis(self.sweep, &figure.name, "png");
        figure.png(&path)?;
        self.written.push(path);
        Ok(())
    }

    /// A picture and the numbers behind it, if there is something to show; otherwise what an earlier analysis left of
    /// them goes. Returns whether there is.
    fn both(&mut self, figure: &Figure, csv: &str) -> Result<bool, AnalysisError> {
        let shown = !figure.rows.is_empty();
        self.table(&figure.name, csv, shown)?;
        if shown {
            self.picture(figure)?;
        } else {
            for extension in ["svg", "png"] {
                remove(&layout::analysis(self.sweep, &figure.name, extension))?;
            }
        }
        Ok(shown)
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
