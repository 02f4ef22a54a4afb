//! A sweep's runs, read from their folders.

use std::path::{Path, PathBuf};

use sae_config::{RunConfig, Site};
use sae_record::metric::{Metric, Values, name};
use sae_record::summary::Status;
use sae_record::{Manifest, RunFolder, Summary, layout};
use serde::{Deserialize, Serialize};

use crate::facets::{Facets, differing, flatten, select};
use crate::{AnalysisError, AnalysisOptions, SaeType, comparable, dictionary};

/// A sweep's finished runs, and the names of the others.
#[derive(Debug)]
pub struct SweepRuns {
    /// The sweep's folder.
    pub folder: PathBuf,
    /// The sweep's name.
    pub name: String,
    /// Finished runs, in the order of the manifest.
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
    /// All values of its configuration.
    pub all_facets: Facets,
    /// The values of the keys in which the finished runs differ.
    pub facets: Facets,
}

/// A run at one of its sites. CE increase and KL are the run's; the rest is the site's. Numbers that the summary has
/// not are NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The run's id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// The site.
    pub site: Site,
    /// The seed of the initialisation.
    pub seed: u64,
    /// The sparsity coefficient.
    pub coeff: f64,
    /// Active features per token.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub l0: f64,
    /// Alive features.
    pub alive: u64,
    /// Dictionary elements.
    pub n_features: u64,
    /// Cross-entropy increase, nats a token.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub ce_increase: f64,
    /// KL divergence, nats a token.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub kl: f64,
    /// Explained variance of the SAE's input.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub explained_variance: f64,
    /// MSE of the SAE's output to its input.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub mse: f64,
    /// Share of the cross-entropy lost to zero ablation that is recovered.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub ce_recovered: f64,
    /// Share of tokens at which both models rank the same token first.
    #[serde(deserialize_with = "crate::number::or_nan")]
    pub top1_agreement: f64,
    /// Tokens trained on.
    pub training_tokens: u64,
    /// The metrics that have no field here, by name: the run's, and the site's.
    #[serde(default)]
    pub metrics: Values,
    /// The values of the keys in which the sweep's finished runs differ, seed and sparsity coefficient left out, which
    /// stand above; and of the keys that were asked for.
    #[serde(default)]
    pub facets: Facets,
}

/// The keys that a point has fields of.
const FIELDS: [&str; 2] = ["sae.seed", "loss.sparsity.coeff"];

impl Point {
    /// What the number of active features is set by: the k of an architecture that keeps k features, where the sweep varies
    /// it, and the sparsity coefficient otherwise.
    pub fn strength(&self) -> f64 {
        self.k().unwrap_or(self.coeff)
    }

    /// The same for a reader: `k = 32`, or the coefficient alone.
    pub fn strength_text(&self) -> String {
        self.k().map_or_else(|| self.coeff.to_string(), |k| format!("k = {k}"))
    }

    fn k(&self) -> Option<f64> {
        let key = |key: &&String| {
            let option = key.strip_prefix("sae.architecture.").and_then(|key| key.split_once('.'));
            option.is_some_and(|(_, option)| option == "k")
        };
        self.facets.keys().filter(key).find_map(|key| self.facets[key].parse().ok())
    }
}

impl SweepRuns {
    /// Reads a sweep's folder. Runs that are not finished, that diverged, or whose summary cannot be read are listed.
    /// Refused are runs that are not of one model, one evaluation set and one text of the same name; no finished run at
    /// all; facets that no run has; and a share of tokens that is none.
    pub fn load(sweep: &Path, options: &AnalysisOptions) -> Result<Self, AnalysisError> {
        let AnalysisOptions { facets, alive_above, .. } = options;
        if !(0.0..1.0).contains(alive_above) {
            return Err(AnalysisError::Input {
                action: "count alive features",
                message: format!(
                    "expected a share of tokens from 0 to below 1, found {alive_above}"
                ),
            });
        }
        let manifest = Manifest::load(&layout::manifest(sweep))?;
        let mut runs = Self {
            folder: sweep.to_owned(),
            name: manifest.sweep.clone(),
            finished: Vec::new(),
            points: Vec::new(),
            unfinished: Vec::new(),
            diverged: Vec::new(),
            unreadable: Vec::new(),
            incomplete: Vec::new(),
            alive_above: *alive_above,
        };
        for run in manifest.runs() {
            let folder = RunFolder::new(sweep.join(&run.folder));
            if !folder.summary().is_file() {
                runs.unfinished.push(run.id.clone());
                continue;
            }
            let summary = match Summary::load(&folder.summary()) {
                Ok(summary) => summary,
                Err(error) => {
                    runs.unreadable.push((run.id.clone(), error.to_string()));
                    continue;
                }
            };
            if summary.status == Status::Diverged {
                runs.diverged.push(run.id.clone());
                continue;
            }
            let mut config = run.config.clone();
            // The run's own configuration says which commits it read.
            if folder.config().is_file() {
                match RunConfig::load(&folder.config()) {
                    Ok(own) => config.adopt_commits(&own),
                    Err(error) => {
                        runs.unreadable.push((run.id.clone(), error.to_string()));
                        continue;
                    }
                }
            }
            runs.finished.push(FinishedRun {
                id: run.id.clone(),
                folder: run.folder.clone(),
                all_facets: flatten(&config)?,
                config,
                summary,
                facets: Facets::new(),
            });
        }
        if runs.finished.is_empty() {
            return Err(AnalysisError::NothingFinished {
                path: sweep.to_owned(),
                runs: manifest.runs().count(),
                unreadable: runs.unreadable.first().map(|(_, error)| error.clone()),
            });
        }
        comparable::check(sweep, &runs.finished)?;
        runs.tell_facets(facets)?;
        let made: Vec<Made> = runs.finished.iter().map(|run| points(&runs, run, facets)).collect();
        for Made { points, notes } in made {
            runs.points.extend(points);
            runs.incomplete.extend(notes);
        }
        Ok(runs)
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
        let all: Vec<Facets> = self.finished.iter().map(|run| run.all_facets.clone()).collect();
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

struct Made {
    points: Vec<Point>,
    notes: Vec<String>,
}

fn points(runs: &SweepRuns, run: &FinishedRun, wanted: &[String]) -> Made {
    let found = &run.summary.evaluation;
    let mut made = Made { points: Vec::new(), notes: Vec::new() };
    let missing = |site: Site, what: &str| {
        format!("{} is left out at {site}: its summary has no {what} there.", run.id)
    };
    for site in run.config.sae.sites.iter().filter(|site| !found.sites.contains_key(site)) {
        made.notes.push(missing(*site, "evaluation"));
    }
    let keys = run.facets.keys().filter(|key| !FIELDS.contains(&key.as_str())).chain(wanted);
    let facets = select(&run.all_facets, keys);
    for (site, at) in &found.sites {
        let alive = match runs.alive(run, *site) {
            Ok(Some(alive)) => alive,
            Ok(None) => {
                made.notes.push(missing(*site, "number of alive features"));
                continue;
            }
            Err(error) => {
                made.notes.push(format!("{} is left out at {site}: {error}.", run.id));
                continue;
            }
        };
        let point = Point {
            run: run.id.clone(),
            variant: SaeType::of(&run.config),
            site: *site,
            seed: run.config.sae.seed,
            coeff: run.config.loss.sparsity.coeff.get(),
            l0: at.get(name::L0),
            alive,
            n_features: run.summary.n_features.get(site).copied().unwrap_or_default(),
            ce_increase: found.values.get(name::CE_INCREASE),
            kl: found.values.get(name::KL),
            explained_variance: at.get(name::EXPLAINED_VARIANCE),
            mse: at.get(name::MSE),
            ce_recovered: found.values.get(name::CE_RECOVERED_ZERO),
            top1_agreement: found.values.get(name::TOP1_AGREEMENT),
            training_tokens: run.summary.training_tokens,
            metrics: further(&found.values, at),
            facets: facets.clone(),
        };
        let none = not_finite(&point);
        if !none.is_empty() {
            made.notes.push(format!(
                "{} has no finite {} at {site}; it is left out of what needs it.",
                run.id,
                none.join(", ")
            ));
        }
        made.points.push(point);
    }
    made
}

/// The metrics of which a point has no field; of two of one name the site's.
fn further(run: &Values, site: &Values) -> Values {
    const FIELDS: [&str; 7] = [
        name::L0,
        name::CE_INCREASE,
        name::KL,
        name::EXPLAINED_VARIANCE,
        name::MSE,
        name::CE_RECOVERED_ZERO,
        name::TOP1_AGREEMENT,
    ];
    let mut values = Values::default();
    for (name, value) in run.iter().chain(site.iter()).filter(|(name, _)| !FIELDS.contains(name)) {
        values.set(name, value);
    }
    values
}

/// The names of a point's numbers that are none.
fn not_finite(point: &Point) -> Vec<&'static str> {
    let numbers = [
        ("L0", point.l0),
        ("CE increase", point.ce_increase),
        ("KL divergence", point.kl),
        ("explained variance", point.explained_variance),
        ("MSE", point.mse),
        ("share of recovered cross-entropy", point.ce_recovered),
        ("top-1 agreement", point.top1_agreement),
    ];
    numbers.into_iter().filter(|(_, number)| !number.is_finite()).map(|(name, _)| name).collect()
}
