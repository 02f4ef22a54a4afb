//! The files that an analysis leaves in its folder.

use std::path::{Path, PathBuf};

use sae_config::file::write_atomically;
use sae_record::layout;

use crate::evidence::Evidence;
use crate::subject::Subject;
use crate::{AnalysisError, draw, page};

/// Writes everything, the report last. Returns the files in the order in which they were written.
pub(crate) fn everything(
    folder: &Path,
    evidence: &Evidence,
) -> Result<Vec<PathBuf>, AnalysisError> {
    let mut folder = Folder { folder, written: Vec::new() };
    folder.write("analysis", "json", serde_json::to_string(evidence)?.as_bytes())?;
    for subject in evidence.subjects() {
        folder.subject(subject, evidence)?;
    }
    folder.write("report", "html", page::html(evidence).as_bytes())?;
    Ok(folder.written)
}

/// Writes a report that says why there is nothing else, over an earlier one that would look current.
pub(crate) fn refusal(folder: &Path, why: &AnalysisError) -> Result<(), AnalysisError> {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = whole.file_name().map_or_else(|| "runs".into(), |name| name.to_string_lossy());
    let evidence = Evidence::none(name.into_owned(), vec![format!("Nothing is analysed: {why}.")]);
    let page = page::html(&evidence);
    Folder { folder, written: Vec::new() }.write("report", "html", page.as_bytes())
}

struct Folder<'a> {
    folder: &'a Path,
    written: Vec<PathBuf>,
}

impl Folder<'_> {
    /// The numbers and the figure of a subject; where there is nothing to show, what an earlier analysis left of them goes.
    fn subject(&mut self, subject: &dyn Subject, evidence: &Evidence) -> Result<(), AnalysisError> {
        for file in subject.files(evidence)? {
            if subject.is_empty() {
                remove(&layout::analysis(self.folder, file.stem, file.extension))?;
            } else {
                self.write(file.stem, file.extension, file.text.as_bytes())?;
            }
        }
        let (name, figure) = (subject.name(), subject.figure(evidence));
        if figure.is_empty() {
            for extension in ["svg", "png"] {
                remove(&layout::analysis(self.folder, name, extension))?;
            }
            return Ok(());
        }
        let svg = figure.svg();
        self.write(name, "svg", svg.as_bytes())?;
        self.write(name, "png", &draw::png(name, &svg)?)
    }

    fn write(&mut self, stem: &str, extension: &str, bytes: &[u8]) -> Result<(), AnalysisError> {
        let path = layout::analysis(self.folder, stem, extension);
        write_atomically(&path, bytes)
            .map_err(|source| AnalysisError::Write { path: path.clone(), source })?;
        self.written.push(path);
        Ok(())
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
