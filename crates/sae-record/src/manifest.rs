//! `manifest.json`: the jobs of a sweep, everything that a launcher needs.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use sae_config::sweep::{Expansion, is_plain};
use sae_config::{ConfigError, RunConfig, Source};
use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_json};

/// The longest manifest, in bytes.
const LONGEST: u64 = 4 << 30;

/// An expanded sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The sweep's name.
    pub sweep: String,
    /// The jobs, each one bank.
    pub jobs: Vec<Job>,
}

/// A job: the runs that train together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Members of the bank.
    pub runs: Vec<ManifestRun>,
}

/// A run of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRun {
    /// The id, unique in the sweep.
    pub id: String,
    /// The run's folder, relative to the manifest's.
    pub folder: PathBuf,
    /// The values that the sweep's grid gives it, by dotted key; the id is made of them, shortened where they are long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// The resolved configuration.
    pub config: RunConfig,
}

impl From<Expansion> for Manifest {
    /// Every run's folder is named as the run.
    fn from(expansion: Expansion) -> Self {
        let run = |run: sae_config::sweep::PlannedRun| ManifestRun {
            folder: PathBuf::from(&run.id),
            id: run.id,
            values: run.values,
            config: run.config,
        };
        let job = |runs: Vec<_>| Job { runs: runs.into_iter().map(run).collect() };
        Self { sweep: expansion.sweep, jobs: expansion.jobs.into_iter().map(job).collect() }
    }
}

impl Manifest {
    /// Reads and checks `manifest.json`. Runs whose folders lie outside of the manifest's, or are one folder, are refused.
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        let origin = path.display().to_string();
        let manifest: Self = read_json(path, LONGEST)?;
        let (mut ids, mut folders) = (HashSet::new(), HashSet::new());
        let invalid = |key, found: String, expected: &str| {
            Err(ConfigError::invalid(&origin, key, found, expected).into())
        };
        if !is_plain(&manifest.sweep) {
            let expected = "letters, digits, `-`, `_`, `+` and `.` alone";
            return invalid("sweep", format!("{:?}", manifest.sweep), expected);
        }
        for run in manifest.runs() {
            if !is_plain(&run.id) {
                let expected = "an id has letters, digits, `-`, `_`, `+` and `.` alone";
                return invalid("id", format!("{:?}", run.id), expected);
            }
            if !ids.insert(&run.id) {
                return invalid(
                    "id",
                    format!("{} twice", run.id),
                    "every run has an id of its own",
                );
            }
            let own: PathBuf =
                run.folder.components().filter(|part| *part != Component::CurDir).collect();
            let inside = own.components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || own.as_os_str().is_empty() {
                let expected =
                    "a run's folder lies in the manifest's: a relative path without `..`";
                return invalid("folder", format!("{:?}", run.folder), expected);
            }
            if !folders.insert(own) {
                let found = format!("{:?} twice", run.folder);
                return invalid("folder", found, "every run has a folder of its own");
            }
            run.config.check(&format!("run {} of {origin}", run.id))?;
        }
        let above =
            |folder: &PathBuf| folder.ancestors().skip(1).any(|above| folders.contains(above));
        if let Some(folder) = folders.iter().find(|folder| above(folder)) {
            let expected = "no run's folder lies in another's, whose files it could replace";
            return invalid("folder", format!("{folder:?}"), expected);
        }
        Ok(manifest)
    }

    /// Writes `manifest.json`, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        write_json(path, self)
    }

    /// Whether two manifests are of one sweep: the same runs in the same jobs, once this one has taken over the commits
    /// that the other was pinned to. Model and data may lie elsewhere now.
    pub fn is_same_sweep(&self, pinned: &Self) -> bool {
        let same = |(own, other): (&ManifestRun, &ManifestRun)| {
            let (mut config, mut other_config) = (own.config.clone(), other.config.clone());
            config.adopt_commits(&other.config);
            config.clear_local_paths();
            other_config.clear_local_paths();
            (&own.id, &own.folder) == (&other.id, &other.folder) && config == other_config
        };
        let sizes = |manifest: &Self| -> Vec<usize> {
            manifest.jobs.iter().map(|job| job.runs.len()).collect()
        };
        self.sweep == pinned.sweep
            && sizes(self) == sizes(pinned)
            && self.runs().zip(pinned.runs()).all(same)
    }

    /// The other manifest of the same sweep, with model and data where this one has them; none where they lie there already.
    pub fn moved(&self, pinned: &Self) -> Option<Self> {
        let mut moved = pinned.clone();
        let places = self.runs().map(|run| &run.config);
        for (run, place) in moved.jobs.iter_mut().flat_map(|job| &mut job.runs).zip(places) {
            let mut place = place.clone();
            place.adopt_commits(&run.config);
            run.config.adopt_places(&place);
        }
        (moved != *pinned).then_some(moved)
    }

    /// Whether any run names a branch or tag of the hub without the commit that it stands for.
    pub fn is_floating(&self) -> bool {
        self.runs().flat_map(|run| run.config.sources()).any(Source::is_floating)
    }

    /// All runs, job by job.
    pub fn runs(&self) -> impl Iterator<Item = &ManifestRun> {
        self.jobs.iter().flat_map(|job| &job.runs)
    }
}
