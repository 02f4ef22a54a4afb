//! One run: what is trained, on what, towards what.
//!
//! A [`RunConfig`] is read from TOML ([`RunConfig::load`]), every key named and every value in its range, and checked as
//! a whole ([`RunConfig::check`]) before anything starts. Relative paths in it are relative to the file.

mod check;
mod sections;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{folder_of, from_table, from_text, read};
use crate::keys::FileKind;
use crate::loss::{LossConfig, Scope, Term};
use crate::{ConfigError, Site, Source, setting};

pub use sections::{
    DataConfig, EvalConfig, LogConfig, ModelConfig, Precision, Processing, SaeConfig,
    ScheduleConfig, ScheduleKind, TrainConfig,
};
pub(crate) use sections::{is_default, min_lr_factor, positive, shuffle_buffer, text_column};

/// A run: what is trained, on which data and which model, towards what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The frozen language model.
    pub model: ModelConfig,
    /// The training data.
    pub data: DataConfig,
    /// The SAEs.
    pub sae: SaeConfig,
    /// What is minimised: a sum of terms, each a table. A term that is left out is neither trained on nor tracked; one with
    /// coefficient 0 is tracked.
    pub loss: LossConfig,
    /// How it is minimised.
    pub train: TrainConfig,
    /// What is measured at the end, and in between.
    pub eval: EvalConfig,
    /// What is written while the run goes on.
    #[serde(default)]
    pub log: LogConfig,
}

/// The types of SAE that the paper compares, told from the terms that are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Variant {
    /// Local reconstruction only.
    #[serde(rename = "local")]
    Local,
    /// KL divergence only.
    #[serde(rename = "e2e")]
    E2e,
    /// KL divergence and downstream reconstruction.
    #[serde(rename = "e2e+ds")]
    E2eDs,
    /// Any other mixture.
    #[serde(rename = "other")]
    Other,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::E2e => "e2e",
            Self::E2eDs => "e2e+ds",
            Self::Other => "other",
        })
    }
}

impl RunConfig {
    /// Reads and checks a TOML file. Relative paths in it are relative to the file, and absolute in what is returned.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::load_recorded(path)?;
        config.resolve_paths(folder_of(path));
        Ok(config)
    }

    /// Reads and checks the TOML that a run has recorded. Its paths are absolute; those that an earlier version wrote are
    /// relative to the working directory, and stay so.
    pub fn load_recorded(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Makes relative paths absolute, as seen from `folder`.
    pub fn resolve_paths(&mut self, folder: &Path) {
        self.sources_mut().for_each(|source| source.resolve(folder));
    }

    /// Reads and checks TOML; `origin` names its source in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = from_text(text, origin, FileKind::Run)?;
        config.check(origin)?;
        Ok(config)
    }

    /// Empties the paths of model and data on this machine, to compare configurations of what may have moved.
    pub fn clear_local_paths(&mut self) {
        let Self { model, data, eval, .. } = self;
        let sources = [&mut model.path, &mut data.train, &mut eval.data];
        for source in sources.into_iter().chain(&mut data.tokenizer) {
            if let Source::Local(path) = source {
                path.clear();
            }
        }
    }

    /// The same with names for places on this machine, their last parts: for who has other places.
    #[must_use]
    pub fn without_places(&self) -> Self {
        let mut config = self.clone();
        for source in config.sources_mut() {
            if let Source::Local(path) = source
                && let Some(name) = path.file_name()
            {
                *path = name.into();
            }
        }
        config
    }

    /// Takes over where another configuration has model and data.
    pub fn adopt_places(&mut self, other: &Self) {
        self.model.path.clone_from(&other.model.path);
        self.data.train.clone_from(&other.data.train);
        self.data.tokenizer.clone_from(&other.data.tokenizer);
        self.eval.data.clone_from(&other.eval.data);
    }

    /// The same with other values of some keys: `model.path=/data/gpt2`, dotted keys with TOML's values, of which text needs no
    /// quotes. Paths are as seen from the working directory.
    pub fn with(&self, settings: &[String]) -> Result<Self, ConfigError> {
        let (config, origin) = setting::with(self, settings)?;
        config.check(&origin)?;
        Ok(config)
    }

    /// The same, from a table that a sweep has put together.
    pub(crate) fn from_table(table: toml::Table, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = from_table(table, origin)?;
        config.check(origin)?;
        Ok(config)
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Parse {
            origin: "in memory".to_owned(),
            message: error.to_string(),
        })
    }

    /// The type of SAE, told from the terms with a coefficient above zero.
    pub fn variant(&self) -> Variant {
        let terms = self.loss.terms().into_iter().filter(Term::is_trained_on);
        let keys: Vec<&str> =
            terms.map(|term| term.name()).filter(|key| *key != "sparsity").collect();
        match keys.as_slice() {
            ["local"] => Variant::Local,
            ["kl"] => Variant::E2e,
            ["downstream", "kl"] => Variant::E2eDs,
            _ => Variant::Other,
        }
    }

    /// How far into the model the loss looks. Beyond the dictionaries it needs a spliced pass, and the clean one to its end.
    pub fn scope(&self) -> Scope {
        self.loss.terms().iter().map(Term::scope).max().unwrap_or(Scope::Dictionary)
    }

    /// Dictionary elements of each SAE on activations of this width, `F / D` times it without a fraction, as the
    /// reference has it.
    pub fn n_features(&self, d_model: usize) -> usize {
        ((self.sae.expansion.get() * d_model as f64) as usize).max(1)
    }

    /// The sites that the dictionaries read and write.
    pub fn placements(&self) -> impl Iterator<Item = (Site, Site)> {
        let SaeConfig { sites, reads, .. } = &self.sae;
        sites.iter().enumerate().map(|(index, site)| (*reads.get(index).unwrap_or(site), *site))
    }

    /// Windows in an optimiser step.
    pub fn effective_batch_size(&self) -> u64 {
        self.train.effective_batch_size.unwrap_or(self.train.batch_size).get() as u64
    }

    /// Forward passes in an optimiser step.
    pub fn accumulation(&self) -> u64 {
        self.effective_batch_size() / self.train.batch_size.get() as u64
    }

    /// Optimiser steps of the run; an incomplete last group of batches is dropped. 0 as long as `train.n_samples` is
    /// left out: training fills it in once the data is open.
    pub fn n_steps(&self) -> u64 {
        self.train.n_samples.unwrap_or(0) / self.effective_batch_size()
    }

    /// Takes over the commits that another configuration of the same sources was resolved to.
    pub fn adopt_commits(&mut self, resolved: &Self) {
        self.model.path.adopt_commit(&resolved.model.path);
        self.data.train.adopt_commit(&resolved.data.train);
        self.eval.data.adopt_commit(&resolved.eval.data);
        if let (Some(own), Some(other)) = (&mut self.data.tokenizer, &resolved.data.tokenizer) {
            own.adopt_commit(other);
        }
        for own in &mut self.sae.pretrained {
            for other in &resolved.sae.pretrained {
                own.adopt_commit(other);
            }
        }
    }

    /// Everything that may lie on the hub.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.model.path, &self.data.train, &self.eval.data]
            .into_iter()
            .chain(&self.data.tokenizer)
            .chain(&self.sae.pretrained)
    }

    fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let Self { model, data, sae, eval, .. } = self;
        [&mut model.path, &mut data.train, &mut eval.data]
            .into_iter()
            .chain(&mut data.tokenizer)
            .chain(&mut sae.pretrained)
    }

    /// The column of the evaluation data.
    pub fn eval_column(&self) -> &str {
        self.eval.column.as_deref().unwrap_or(&self.data.column)
    }

    /// Windows in a forward pass of the evaluation.
    pub fn eval_batch_size(&self) -> usize {
        self.eval.batch_size.unwrap_or(self.train.batch_size).get()
    }

    /// Two runs with equal keys see the same model, batches and evaluation: they may train as members of one bank.
    pub fn bank_key(&self) -> BankKey {
        let TrainConfig { n_samples, batch_size, precision, recompute, .. } = self.train;
        BankKey {
            model: self.model.clone(),
            data: self.data.clone(),
            eval: self.eval.clone(),
            log: self.log.clone(),
            n_samples,
            batch_size,
            effective_batch_size: self.effective_batch_size(),
            precision,
            recompute,
        }
    }
}

/// What the members of a bank have in common; see [`RunConfig::bank_key`].
#[derive(Debug, Clone, PartialEq)]
pub struct BankKey {
    model: ModelConfig,
    data: DataConfig,
    eval: EvalConfig,
    log: LogConfig,
    n_samples: Option<u64>,
    batch_size: NonZeroUsize,
    effective_batch_size: u64,
    precision: Precision,
    recompute: bool,
}
