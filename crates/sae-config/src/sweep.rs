//! A sweep: a base run, variants of it and grids over any key, expanded to jobs.
//!
//! ```toml
//! name = "rust-lm"
//! base = "../runs/rust-lm.toml"
//! bank_size = 8
//!
//! [[variants]]
//! name = "e2e"
//! set = { "loss.kl.coeff" = 1.0 }
//! grid = { "loss.sparsity.coeff" = [1.0, 2.0, 4.0] }
//! ```
//!
//! `sae-record` writes what a sweep expands to as a manifest, from which every launcher starts `sae train --manifest M --job I`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{folder_of, from_text, read};
use crate::fingerprint::Fingerprint;
use crate::keys::FileKind;
use crate::source::resolved;
use crate::{ConfigError, RunConfig, Source};

/// A sweep: a base run, variants of it, and values to try for any of its keys. Each run is the base, with the sweep's `set`, then
/// without what its variant leaves out, then with the variant's `set`, and last with a value of each grid; a variant's grid takes the
/// place of the sweep's for the same key, and a key that the variant leaves out is not taken from the sweep's grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The name: its folder below `runs/`.
    pub name: String,
    /// The base run's TOML file. Relative, it is relative to the sweep's file, as all paths are that the sweep sets; those of
    /// the base run are relative to that.
    #[schemars(extend("x-kind" = "path"))]
    pub base: PathBuf,
    /// The most runs that train as one bank.
    #[serde(default = "bank_size")]
    #[schemars(extend("x-unit" = "runs"))]
    pub bank_size: NonZeroUsize,
    /// Values that replace the base's in every run, by dotted key.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>", extend("x-kind" = "table: dotted keys, each with its value", "default" = {}))]
    pub set: BTreeMap<String, toml::Value>,
    /// What differs from the base, one entry a type of SAE; at least one.
    pub variants: Vec<VariantConfig>,
    /// Values for any key, combined with every variant's own grid.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<serde_json::Value>>", extend("x-kind" = "table: dotted keys, each with a list of values", "default" = {}))]
    pub grid: Grid,
    /// The folder that relative paths are seen from: that of the file, once it is read.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A variant of the base run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantConfig {
    /// The name, with which the ids of its runs begin.
    pub name: String,
    /// Dotted keys of the base to leave out, a term of the loss for example.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Values that replace the base's, by dotted key.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>", extend("x-kind" = "table: dotted keys, each with its value", "default" = {}))]
    pub set: BTreeMap<String, toml::Value>,
    /// Values to try for each dotted key; all combinations are run.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<serde_json::Value>>", extend("x-kind" = "table: dotted keys, each with a list of values", "default" = {}))]
    pub grid: Grid,
}

/// Dotted keys and the values to try for each.
pub type Grid = BTreeMap<String, Vec<toml::Value>>;

/// The most runs that train as one bank, where a sweep does not say.
pub fn bank_size() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

/// The most runs of a sweep, where the caller does not say: a slip of a grid ends in an error, not in a day of work.
pub const MOST_RUNS: usize = 10_000;

/// An expanded sweep: its runs, in jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Expansion {
    /// The sweep's name.
    pub sweep: String,
    /// The jobs: the runs that train together, each job one bank.
    pub jobs: Vec<Vec<PlannedRun>>,
}

/// A run of an expanded sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// The id, unique in the sweep.
    pub id: String,
    /// The values that the sweep's grid gives it, by dotted key; the id is made of them, shortened where they are long.
    pub values: BTreeMap<String, String>,
    /// The resolved configuration.
    pub config: RunConfig,
}

impl Expansion {
    /// All runs, job by job.
    pub fn runs(&self) -> impl Iterator<Item = &PlannedRun> {
        self.jobs.iter().flatten()
    }
}

impl SweepConfig {
    /// Reads a TOML file, to which relative paths in it are relative.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::parse(&read(path)?, &path.display().to_string())?;
        Ok(Self { folder: folder_of(path).to_owned(), ..config })
    }

    /// Reads TOML; `origin` names its source in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = from_text(text, origin, FileKind::Sweep)?;
        if config.base.as_os_str().is_empty() {
            return Err(ConfigError::invalid(
                origin,
                "base",
                "empty",
                "it names the TOML file of the run that the variants differ from",
            ));
        }
        for name in std::iter::once(&config.name).chain(config.variants.iter().map(|v| &v.name)) {
            if !is_plain(name) || name.len() > LONGEST_NAME {
                return Err(ConfigError::invalid(
                    origin,
                    "name",
                    format!("{name:?}"),
                    format!(
                        "names become folders: at most {LONGEST_NAME} letters, digits, `-`, `_`, `+` and `.` alone"
                    ),
                ));
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = config.variants.iter().find(|variant| !names.insert(&variant.name)) {
            return Err(ConfigError::invalid(
                origin,
                "variants",
                format!("a list that names {} twice", twice.name),
                "every variant has a name of its own: the ids of its runs begin with it",
            ));
        }
        let grids = std::iter::once(&config.grid).chain(config.variants.iter().map(|v| &v.grid));
        if let Some((key, _)) = grids.flatten().find(|(_, values)| values.is_empty()) {
            return Err(ConfigError::invalid(
                origin,
                "grid",
                format!("`{key}` without values"),
                "a key without values leaves no run: give it some, or leave it out",
            ));
        }
        Ok(config)
    }

    /// Reads the base run and expands the sweep to at most `most` runs.
    pub fn expand(&self, most: usize) -> Result<Expansion, ConfigError> {
        let path = resolved(&self.base, &self.folder);
        let text = read(&path)?;
        let origin = path.display().to_string();
        let mut base: toml::Table =
            toml::from_str(&text).map_err(|error| ConfigError::parse(&origin, &error))?;
        resolve_table("", &mut base, folder_of(&path));
        self.expand_from(&base, most)
    }

    /// Expands the sweep over a base run given as a table, to at most `most` runs.
    pub fn expand_from(&self, base: &toml::Table, most: usize) -> Result<Expansion, ConfigError> {
        let grids: Vec<Grid> = self
            .variants
            .iter()
            .map(|variant| {
                let mut grid = self.grid.clone();
                grid.retain(|key, _| !variant.leaves_out(key));
                grid.extend(variant.grid.clone());
                grid
            })
            .collect();
        let sizes = grids.iter().map(|grid| grid.values().map(Vec::len));
        check_count(&self.name, sizes.map(Iterator::collect::<Vec<_>>), most)?;
        let mut builder = ExpansionBuilder::new(&self.name, self.bank_size);
        for (variant, grid) in self.variants.iter().zip(&grids) {
            builder.close_jobs();
            for point in combinations(grid) {
                let shown: Vec<(String, String)> =
                    point.iter().map(|(key, value)| ((*key).to_owned(), show(value))).collect();
                let id = run_id(&variant.name, &shown);
                let origin = format!("run {id} of sweep {}", self.name);
                let mut table = base.clone();
                self.set_all(&mut table, pairs(&self.set), &origin)?;
                for key in &variant.unset {
                    let is_in_grid =
                        self.grid.keys().any(|in_grid| in_grid == key || is_inside(in_grid, key));
                    match unset(&mut table, key) {
                        Err(_) if is_in_grid => {}
                        result => result.map_err(|message| ConfigError::Parse {
                            origin: format!("variant {} of sweep {}", variant.name, self.name),
                            message,
                        })?,
                    }
                }
                let own = pairs(&variant.set).chain(point.iter().copied());
                self.set_all(&mut table, own, &origin)?;
                let config = RunConfig::from_table(table, &origin)?;
                builder.add(id, shown, config)?;
            }
        }
        builder.finish()
    }

    /// Sets dotted keys of a run's table.
    fn set_all<'a>(
        &self,
        table: &mut toml::Table,
        values: impl Iterator<Item = (&'a str, &'a toml::Value)>,
        origin: &str,
    ) -> Result<(), ConfigError> {
        for (key, value) in values {
            // Ids have values as they are written; a moved sweep has the same ones.
            let mut value = value.clone();
            resolve_value(key, &mut value, &self.folder);
            set(table, key, value)
                .map_err(|message| ConfigError::Parse { origin: origin.to_owned(), message })?;
        }
        Ok(())
    }
}

impl VariantConfig {
    /// Whether the variant leaves this key out.
    fn leaves_out(&self, key: &str) -> bool {
        self.unset.iter().any(|unset| unset == key || is_inside(key, unset))
    }
}

fn pairs(values: &BTreeMap<String, toml::Value>) -> impl Iterator<Item = (&str, &toml::Value)> {
    values.iter().map(|(key, value)| (key.as_str(), value))
}

/// Whether a dotted key is inside the table `outer`.
fn is_inside(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// Refuses grids (the numbers of values of each) with more points than `most`, before any is made.
pub(crate) fn check_count(
    sweep: &str,
    grids: impl IntoIterator<Item = Vec<usize>>,
    most: usize,
) -> Result<(), ConfigError> {
    let points = |sizes: Vec<usize>| sizes.into_iter().fold(1, usize::saturating_mul);
    let runs = grids.into_iter().map(points).fold(0, usize::saturating_add);
    if runs <= most {
        return Ok(());
    }
    Err(ConfigError::invalid(
        &format!("sweep {sweep}"),
        "grid",
        format!("{runs} runs"),
        format!("{most} is the most: thin the grid, or allow more with --max-runs {runs}"),
    ))
}

/// Puts runs into jobs.
pub(crate) struct ExpansionBuilder {
    expansion: Expansion,
    bank_size: NonZeroUsize,
    ids: HashSet<String>,
    /// The jobs that runs may still join: those with room, by what their runs have in common.
    open: HashMap<String, usize>,
}

impl ExpansionBuilder {
    pub fn new(sweep: &str, bank_size: NonZeroUsize) -> Self {
        Self {
            expansion: Expansion { sweep: sweep.to_owned(), jobs: Vec::new() },
            bank_size,
            ids: HashSet::new(),
            open: HashMap::new(),
        }
    }

    /// Later runs join none of the jobs so far.
    pub fn close_jobs(&mut self) {
        self.open.clear();
    }

    /// Puts a run into the first open job that may hold it, or into a new one.
    pub fn add(
        &mut self,
        id: String,
        values: Vec<(String, String)>,
        config: RunConfig,
    ) -> Result<(), ConfigError> {
        if !self.ids.insert(id.clone()) {
            return Err(ConfigError::invalid(
                &format!("sweep {}", self.expansion.sweep),
                "variants",
                format!("two runs named {id}"),
                "every variant has a name of its own, and every grid distinct values",
            ));
        }
        let key = format!("{:?}", config.bank_key());
        let values = values.into_iter().collect();
        let run = PlannedRun { id, values, config };
        let jobs = &mut self.expansion.jobs;
        let job = *self.open.entry(key.clone()).or_insert_with(|| {
            jobs.push(Vec::new());
            jobs.len() - 1
        });
        jobs[job].push(run);
        if jobs[job].len() == self.bank_size.get() {
            self.open.remove(&key);
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Expansion, ConfigError> {
        if self.expansion.jobs.is_empty() {
            return Err(ConfigError::invalid(
                &format!("sweep {}", self.expansion.sweep),
                "variants",
                "no run",
                "a sweep has at least one run",
            ));
        }
        Ok(self.expansion)
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

/// The longest id of a run: it is a folder's name, and other names are made of it.
const LONGEST_ID: usize = 200;
/// The longest name of a sweep or variant.
const LONGEST_NAME: usize = 64;

/// Whether a name may become a folder's: letters, digits, `-`, `_`, `+` and `.` alone, the last not in front.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
        && !name.starts_with('.')
}

/// `e2e_sparsity-2_seed-0`: the variant, then the last telling word of each dotted key with its value. An id that is too
/// long for a folder keeps its beginning and ends in a hash of the whole; the manifest has the values.
pub(crate) fn run_id(variant: &str, point: &[(String, String)]) -> String {
    let plain = |text: &str| -> String {
        let keep = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
        text.chars().map(|c| if keep(c) { c } else { '-' }).collect()
    };
    let mut id = variant.to_owned();
    for (key, value) in point {
        let word = key.rsplit('.').find(|word| !matches!(*word, "coeff" | "total_coeff"));
        // What is set apart by `_` in an id are its parts.
        let value = plain(value).replace('_', "-");
        id.push('_');
        id.push_str(&plain(word.unwrap_or(key)));
        id.push('-');
        id.push_str(value.trim_matches('-'));
    }
    if id.len() <= LONGEST_ID {
        return id;
    }
    let hash = Fingerprint::new().text(&id).finish();
    id.truncate(LONGEST_ID - 13);
    format!("{id}_{}", &hash[..12])
}

fn show(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

/// The keys whose values are paths, or sources that may be.
const PATHS: [&str; 5] =
    ["model.path", "data.train", "data.tokenizer", "eval.data", "sae.pretrained"];

/// Makes relative paths in a run's table absolute, as seen from `folder`.
fn resolve_table(prefix: &str, table: &mut toml::Table, folder: &Path) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => resolve_table(&key, inner, folder),
            value => resolve_value(&key, value, folder),
        }
    }
}

/// The same for the value of a dotted key.
pub(crate) fn resolve_value(key: &str, value: &mut toml::Value, folder: &Path) {
    match value {
        toml::Value::Table(table) => resolve_table(key, table, folder),
        toml::Value::Array(values) => {
            for value in values {
                resolve_value(key, value, folder);
            }
        }
        toml::Value::String(text) if PATHS.contains(&key) => {
            // What is no source is refused where the run is made.
            if let Ok(mut source) = text.parse::<Source>() {
                source.resolve(folder);
                *text = source.to_string();
            }
        }
        _ => {}
    }
}

/// Sets a dotted key, making tables on the way.
pub(crate) fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::PATHS;
    use crate::keys::FileKind;
    use crate::source::KIND;

    #[test]
    fn the_keys_that_are_paths_are_those_of_the_types() {
        let sections = FileKind::Run.sections();
        let keys = sections.iter().flat_map(|section| &section.keys);
        let paths = keys.filter(|key| key.kind.ends_with(KIND)).map(|key| key.path.as_str());
        let sorted = |mut paths: Vec<&str>| {
            paths.sort_unstable();
            paths.join(" ")
        };
        assert_eq!(sorted(paths.collect()), sorted(PATHS.to_vec()));
    }
}
