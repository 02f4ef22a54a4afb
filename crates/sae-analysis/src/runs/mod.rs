//! Finished runs, read from their folders.

mod comparable;
pub mod facets;
mod group;
mod point;

use std::path::{Path, PathBuf};

use sae_config::{RunConfig, Site};
use sae_record::metric::Metric;
use sae_record::summary::Status;
use sae_record::{Manifest, ManifestRun, RunFolder, Summary, layout};

use self::facets::{Facets, differing, flatten, select};
pub use self::group::{Group, Objective};
pub use self::point::Point;
use self::point::{Made, points};
use crate::{AnalysisError, AnalysisOptions, dictionary};

/// The finished runs of a folder, and the names of the others.
#[derive(Debug)]
pub struct SweepRuns {
    /// The folder.
    pub folder: PathBuf,
    /// The sweep's name; the folder's where there is no manifest.
    pub name: String,
    /// Finished runs, in the order of the manifest; by name where there is none.
    pub finished: Vec<FinishedRun>,
    /// A point a finished run and site.
    pub points: Vec<Point>,
    /// Runs without a summary.
    pub unfinished: Vec<String>,
    /// Runs whose loss became non-finite; they are no points.
    pub diverged: Vec<String>,
    /// Runs whose summary cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
    /// Finished runs of which something is missing, in sentences.
    pub incomplete: Vec<String>,
    /// Alive features are active on more than this share of tokens.
    pub alive_above: f64,
}

/// A finished run.
#[derive(Debug)]
pub struct FinishedRun {
    /// Its id.
    pub id: String,
    /// Its folder, relative to the sweep's.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: RunConfig,
    /// Its summary.
    pub summary: Summary,
    /// What has a curve of its own.
    pub group: Group,
    /// All values of its configuration.
    pub all_facets: Facets,
    /// The values of the keys in which the finished runs differ.
    pub facets: Facets,
}

impl SweepRuns {
    /// Reads the folder of a sweep, of one run, or of runs side by side. Runs that are not finished, that diverged, or whose
    /// summary cannot be read are listed.
    /// Refused are runs that are not of one model, one evaluation set and one text of the same name; no finished run at
    /// all; facets that no run has; and a share of tokens outside 0 to 1.
    pub fn load(folder: &Path, options: &AnalysisOptions) -> Result<Self, AnalysisError> {
        let AnalysisOptions { facets, alive_above, .. } = options;
        if !(0.0..1.0).contains(alive_above) {
            return Err(AnalysisError::Input {
                action: "count alive features",
                message: format!(
                    "expected a share of tokens from 0 to below 1, found {alive_above}"
                ),
            });
        }
        let found = listed(folder)?;
        let mut runs = Self {
            folder: folder.to_owned(),
            name: found.name,
            finished: Vec::new(),
            points: Vec::new(),
            unfinished: Vec::new(),
            diverged: Vec::new(),
            unreadable: Vec::new(),
            incomplete: Vec::new(),
            alive_above: *alive_above,
        };
        let all = found.runs.len();
        for run in found.runs {
            runs.read(run)?;
        }
        if runs.finished.is_empty() {
            return Err(AnalysisError::NothingFinished {
                path: folder.to_owned(),
                runs: all,
                unreadable: runs.unreadable.first().map(|(_, error)| error.clone()),
            });
        }
        comparable::check(folder, &runs.finished)?;
        runs.tell_facets(facets)?;
        for (run, group) in group::groups(&runs.finished).into_iter().enumerate() {
            runs.finished[run].group = group;
        }
        let made: Vec<Made> = runs.finished.iter().map(|run| points(&runs, run, facets)).collect();
        for Made { points, notes } in made {
            runs.points.extend(points);
            runs.incomplete.extend(notes);
        }
        Ok(runs)
    }

    /// Adds a run to the finished ones, or to the list of why it is not one of them.
    fn read(&mut self, run: Listed) -> Result<(), AnalysisError> {
        let folder = RunFolder::new(self.folder.join(&run.folder));
        if !folder.summary().is_file() {
            self.unfinished.push(run.id);
            return Ok(());
        }
        let summary = match Summary::load(&folder.summary()) {
            Ok(summary) => summary,
            Err(error) => {
                self.unreadable.push((run.id, error.to_string()));
                return Ok(());
            }
        };
        if summary.status == Status::Diverged {
            self.diverged.push(run.id);
            return Ok(());
        }
        let config = match (run.config, RunConfig::load_recorded(&folder.config())) {
            // The run's own configuration says which commits it read.
            (Some(mut config), Ok(own)) => {
                config.adopt_commits(&own);
                config
            }
            (Some(config), Err(_)) if !folder.config().exists() => config,
            (None, Ok(own)) => own,
            (_, Err(error)) => {
                self.unreadable.push((run.id, error.to_string()));
                return Ok(());
            }
        };
        self.finished.push(FinishedRun {
            id: run.id,
            folder: run.folder,
            group: Group::of(&config),
            all_facets: flatten(&config)?,
            config,
            summary,
            facets: Facets::new(),
        });
        Ok(())
    }

    /// The finished run of this id.
    pub fn run(&self, id: &str) -> Option<&FinishedRun> {
        self.finished.iter().find(|run| run.id == id)
    }

    /// The folder of a finished run.
    pub fn folder_of(&self, run: &FinishedRun) -> RunFolder {
        RunFolder::new(self.folder.join(&run.folder))
    }

    /// What the metrics are, as the runs' summaries declare it.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut all: Vec<Metric> = Vec::new();
        for metric in self.finished.iter().flat_map(|run| &run.summary.metrics) {
            if !all.contains(metric) {
                all.push(metric.clone());
            }
        }
        all
    }

    /// What was left out, and why, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.alive_above > 0.0 {
            notes.push(format!(
                "Alive are here the features that are active on more than {} of the tokens.",
                self.alive_above
            ));
        }
        if !self.unfinished.is_empty() {
            notes.push(format!("Not finished, left out: {}.", self.unfinished.join(", ")));
        }
        if !self.diverged.is_empty() {
            notes.push(format!("Diverged, left out: {}.", self.diverged.join(", ")));
        }
        let several: Vec<&str> = self
            .finished
            .iter()
            .filter(|run| run.config.sae.sites.len() > 1)
            .map(|run| run.id.as_str())
            .collect();
        if !several.is_empty() {
            notes.push(format!(
                "CE increase and KL are of all SAEs of a run together; runs with several: {}.",
                several.join(", ")
            ));
        }
        for (run, error) in &self.unreadable {
            notes.push(format!("Unreadable, left out: {run} ({error})."));
        }
        notes.extend(self.incomplete.iter().cloned());
        notes
    }

    /// A run's alive features at a site; none where its summary does not tell.
    fn alive(&self, run: &FinishedRun, site: Site) -> Result<Option<u64>, AnalysisError> {
        if self.alive_above == 0.0 {
            return Ok(run.summary.alive.get(&site).copied());
        }
        let features = dictionary::features(&self.folder_of(run), site, self.alive_above)?;
        Ok(Some(features.iter().filter(|feature| feature.alive).count() as u64))
    }

    fn tell_facets(&mut self, wanted: &[String]) -> Result<(), AnalysisError> {
        let all: Vec<&Facets> = self.finished.iter().map(|run| &run.all_facets).collect();
        let keys = differing(&all);
        for key in wanted {
            if !all.iter().any(|facets| facets.contains_key(key)) {
                let known: Vec<&str> = keys.iter().map(String::as_str).collect();
                return Err(AnalysisError::Input {
                    action: "split the frontier",
                    message: format!(
                        "expected a dotted key of the configuration, found `{key}`, which no finished run has; the \
                         runs differ in {}",
                        if known.is_empty() { "nothing".to_owned() } else { known.join(", ") }
                    ),
                });
            }
        }
        for run in &mut self.finished {
            run.facets = select(&run.all_facets, &keys);
        }
        Ok(())
    }
}

/// A folder's runs, before they are read.
struct Runs {
    name: String,
    runs: Vec<Listed>,
}

struct Listed {
    id: String,
    /// Relative to the folder that was asked for.
    folder: PathBuf,
    /// What the manifest says of it, where there is one.
    config: Option<RunConfig>,
}

/// The runs of a sweep as its manifest lists them; without a manifest the folder itself where it is a run's, or else the
/// run folders in it, by name.
fn listed(folder: &Path) -> Result<Runs, AnalysisError> {
    let path = layout::manifest(folder);
    if path.exists() {
        let manifest = Manifest::load(&path)?;
        let run = |run: &ManifestRun| Listed {
            id: run.id.clone(),
            folder: run.folder.clone(),
            config: Some(run.config.clone()),
        };
        return Ok(Runs { name: manifest.sweep.clone(), runs: manifest.runs().map(run).collect() });
    }
    let failed = |source| AnalysisError::Read { path: folder.to_owned(), source };
    let name = folder.canonicalize().map_err(failed)?;
    let name = name
        .file_name()
        .map_or_else(|| "runs".to_owned(), |name| name.to_string_lossy().into_owned());
    if RunFolder::new(folder).config().is_file() {
        let run = Listed { id: name.clone(), folder: PathBuf::from("."), config: None };
        return Ok(Runs { name, runs: vec![run] });
    }
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(id) = path.file_name().filter(|_| RunFolder::new(&path).config().is_file()) else {
            continue;
        };
        let id = id.to_string_lossy().into_owned();
        runs.push(Listed { folder: PathBuf::from(&id), id, config: None });
    }
    if runs.is_empty() {
        return Err(AnalysisError::NoRuns { path: folder.to_owned() });
    }
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Runs { name, runs })
}
