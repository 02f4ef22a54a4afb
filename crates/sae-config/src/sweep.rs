//! A sweep: a base run, variants of it and grids over any key, expanded to a manifest of jobs.
//!
//! ```toml
//! name = "rust-lm"
//! base = "configs/runs/rust-lm.toml"
//! bank_size = 8
//!
//! [[variants]]
//! name = "e2e"
//! set = { "loss.kl.coeff" = 1.0 }
//! grid = { "loss.sparsity.coeff" = [1.0, 2.0, 4.0] }
//! ```
//!
//! Every launcher, on whatever machine, runs `sae train --manifest M --job I`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::read;
use crate::{ConfigError, RunConfig};

/// A sweep as its author writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The name: its folder below `runs/`.
    pub name: String,
    /// The base run's TOML file, relative to the working directory.
    pub base: PathBuf,
    /// The most runs that train as one bank.
    #[serde(default = "bank_size")]
    pub bank_size: NonZeroUsize,
    /// Values that replace the base's in every run, by dotted key.
    #[serde(default)]
    pub set: BTreeMap<String, toml::Value>,
    /// What differs from the base, one entry a type of SAE.
    pub variants: Vec<VariantConfig>,
    /// Values for any key, combined with every variant's own grid.
    #[serde(default)]
    pub grid: Grid,
}

/// A variant of the base run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantConfig {
    /// The name, with which the ids of its runs begin.
    pub name: String,
    /// Dotted keys of the base to leave out, a term of the loss for example.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Values that replace the base's, by dotted key.
    #[serde(default)]
    pub set: BTreeMap<String, toml::Value>,
    /// Values to try for each dotted key; all combinations are run.
    #[serde(default)]
    pub grid: Grid,
}

/// Dotted keys and the values to try for each.
pub type Grid = BTreeMap<String, Vec<toml::Value>>;

/// The most runs that train as one bank, where a sweep does not say.
pub fn bank_size() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

/// An expanded sweep: everything a launcher needs, `manifest.json`.
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
    /// The resolved configuration.
    pub config: RunConfig,
}

impl SweepConfig {
    /// Reads a TOML file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, &path.display().to_string())
    }

    /// Reads TOML; `origin` names its source in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::parse(origin, &error))?;
        let plain = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
                && !name.starts_with('.')
        };
        for name in std::iter::once(&config.name).chain(config.variants.iter().map(|v| &v.name)) {
            if !plain(name) {
                return Err(ConfigError::invalid(
                    origin,
                    "name",
                    format!("{name:?}"),
                    "names become folders: letters, digits, `-`, `_`, `+` and `.` alone",
                ));
            }
        }
        Ok(config)
    }

    /// Reads the base run and expands the sweep.
    pub fn expand(&self) -> Result<Manifest, ConfigError> {
        let text = read(&self.base)?;
        let origin = self.base.display().to_string();
        let base: toml::Table =
            toml::from_str(&text).map_err(|error| ConfigError::parse(&origin, &error))?;
        self.expand_from(&base)
    }

    /// Expands the sweep over a base run given as a table.
    pub fn expand_from(&self, base: &toml::Table) -> Result<Manifest, ConfigError> {
        let mut builder = ManifestBuilder::new(&self.name, self.bank_size);
        for variant in &self.variants {
            let mut grid = self.grid.clone();
            grid.extend(variant.grid.clone());
            builder.close_jobs();
            for point in combinations(&grid) {
                let shown: Vec<(String, String)> =
                    point.iter().map(|(key, value)| ((*key).to_owned(), show(value))).collect();
                let id = run_id(&variant.name, &shown);
                let origin = format!("run {id} of sweep {}", self.name);
                let mut table = base.clone();
                for key in &variant.unset {
                    unset(&mut table, key).map_err(|message| ConfigError::Parse {
                        origin: format!("variant {} of sweep {}", variant.name, self.name),
                        message,
                    })?;
                }
                let fixed =
                    self.set.iter().chain(&variant.set).map(|(key, value)| (key.as_str(), value));
                for (key, value) in fixed.chain(point.iter().copied()) {
                    set(&mut table, key, value.clone()).map_err(|message| ConfigError::Parse {
                        origin: origin.clone(),
                        message,
                    })?;
                }
                let config = RunConfig::from_table(table, &origin)?;
                builder.add(id, config)?;
            }
        }
        builder.finish()
    }
}

/// Puts runs into jobs.
pub(crate) struct ManifestBuilder {
    manifest: Manifest,
    bank_size: NonZeroUsize,
    /// The first job that runs may still join.
    open: usize,
}

impl ManifestBuilder {
    pub fn new(sweep: &str, bank_size: NonZeroUsize) -> Self {
        Self {
            manifest: Manifest { sweep: sweep.to_owned(), jobs: Vec::new() },
            bank_size,
            open: 0,
        }
    }

    /// Later runs join none of the jobs so far.
    pub fn close_jobs(&mut self) {
        self.open = self.manifest.jobs.len();
    }

    /// Puts a run into the first open job that may hold it, or into a new one.
    pub fn add(&mut self, id: String, config: RunConfig) -> Result<(), ConfigError> {
        if self.manifest.runs().any(|run| run.id == id) {
            return Err(ConfigError::invalid(
                &format!("sweep {}", self.manifest.sweep),
                "variants",
                format!("two runs named {id}"),
                "every variant has a name of its own, and every grid distinct values",
            ));
        }
        let key = config.bank_key();
        let run = ManifestRun { folder: PathBuf::from(&id), id, config };
        let room = self.manifest.jobs[self.open..].iter_mut().find(|job| {
            job.runs.len() < self.bank_size.get() && job.runs[0].config.bank_key() == key
        });
        match room {
            Some(job) => job.runs.push(run),
            None => self.manifest.jobs.push(Job { runs: vec![run] }),
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Manifest, ConfigError> {
        if self.manifest.jobs.is_empty() {
            return Err(ConfigError::invalid(
                &format!("sweep {}", self.manifest.sweep),
                "variants",
                "no run",
                "a sweep has at least one run",
            ));
        }
        Ok(self.manifest)
    }
}

impl Manifest {
    /// Reads `manifest.json`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let manifest: Self = serde_json::from_str(&read(path)?)
            .map_err(|error| ConfigError::parse(&path.display().to_string(), &error))?;
        for run in manifest.jobs.iter().flat_map(|job| &job.runs) {
            run.config.check(&format!("run {} of {}", run.id, path.display()))?;
        }
        Ok(manifest)
    }

    /// Writes `manifest.json`.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let write = |source| ConfigError::Write { path: path.to_owned(), source };
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| write(std::io::Error::other(error)))?;
        std::fs::write(path, text).map_err(write)
    }

    /// All runs, job by job.
    pub fn runs(&self) -> impl Iterator<Item = &ManifestRun> {
        self.jobs.iter().flat_map(|job| &job.runs)
    }
}

/// All points of a grid, the last key varying fastest.
fn combinations(grid: &Grid) -> Vec<Vec<(&str, &toml::Value)>> {
    grid.iter().fold(vec![Vec::new()], |points, (key, values)| {
        points
            .iter()
            .flat_map(|point| {
                values.iter().map(move |value| {
                    let mut point = point.clone();
                    point.push((key.as_str(), value));
                    point
                })
            })
            .collect()
    })
}

/// `e2e_sparsity-2_seed-0`: the variant, then the last telling word of each dotted key with its value.
pub(crate) fn run_id(variant: &str, point: &[(String, String)]) -> String {
    let mut id = variant.to_owned();
    for (key, value) in point {
        let word = key.rsplit('.').find(|word| !matches!(*word, "coeff" | "total_coeff"));
        let value: String = value
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-+.".contains(c) { c } else { '-' })
            .collect();
        id.push('_');
        id.push_str(word.unwrap_or(key));
        id.push('-');
        id.push_str(value.trim_matches('-'));
    }
    id
}

fn show(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

/// Sets a dotted key, making tables on the way.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = table
                .entry(head.to_owned())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner {
                toml::Value::Table(inner) => set(inner, rest, value),
                _ => Err(format!("cannot set `{key}`: `{head}` is a value, not a table")),
            }
        }
    }
}

/// Removes a dotted key, which has to be there.
fn unset(table: &mut toml::Table, key: &str) -> Result<(), String> {
    let removed = match key.split_once('.') {
        None => table.remove(key).is_some(),
        Some((head, rest)) => match table.get_mut(head) {
            Some(toml::Value::Table(inner)) => return unset(inner, rest),
            _ => false,
        },
    };
    if removed {
        Ok(())
    } else {
        Err(format!("cannot unset `{key}`: the base run has no such key"))
    }
}
