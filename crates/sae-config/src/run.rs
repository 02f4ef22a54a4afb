//! One run: what is trained, on what, towards what.
//!
//! A [`RunConfig`] is read from TOML ([`RunConfig::load`]), every key named and every value in its range, and checked as
//! a whole ([`RunConfig::check`]) before anything starts. Paths are relative to the working directory.

mod check;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{from_table, from_text, read};
use crate::loss::{LossConfig, Scope, Term};
use crate::{Architecture, ConfigError, Fraction, Positive, Site, Source};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The frozen language model.
    pub model: ModelConfig,
    /// The training data.
    pub data: DataConfig,
    /// The SAEs.
    pub sae: SaeConfig,
    /// What is minimised.
    pub loss: LossConfig,
    /// How it is minimised.
    pub train: TrainConfig,
    /// What is measured at the end, and in between.
    pub eval: EvalConfig,
    /// What is written while the run goes on.
    #[serde(default)]
    pub log: LogConfig,
}

/// The frozen language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder in Hugging Face layout (`config.json`, weights, `tokenizer.json`), a repository of the hub
    /// (`hf://owner/name`), or a checkpoint `.pt` of a TransformerLens model.
    pub path: Source,
    /// What is done to the weights after loading. Activations, and so the SAEs trained on them, depend on it.
    #[serde(default)]
    pub processing: Processing,
}

/// Processing of a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processing {
    /// The weights as they are.
    #[default]
    None,
    /// As TransformerLens does by default, and so the reference: norms folded into what reads them, weights that write
    /// to the residual stream centred, the unembedding centred.
    TransformerLens,
}

/// The training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A parquet file, a folder of them, a glob, or a data set of the hub (`hf://owner/name`).
    pub train: Source,
    /// The split, where files of several lie together: those with this word in their path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Windows to leave out at the start of the data: held out for the evaluation where that is of the same data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip: u64,
    /// The column to read: text, which is tokenised on the way, or lists of integers, which are windows already.
    #[serde(default = "text_column")]
    pub column: String,
    /// Tokens in a window (a sample), the model's context or less.
    pub context_length: NonZeroUsize,
    /// The folder, file or hub repository of the tokeniser, where it is not the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Source>,
    /// Whether every window of tokenised text begins with the tokeniser's beginning-of-text token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bos: bool,
    /// Windows in the shuffle buffer; 1 keeps the order of the files.
    #[serde(default = "shuffle_buffer")]
    pub shuffle_buffer: NonZeroUsize,
    /// Seed of the order of the data; it does not touch initialisation.
    #[serde(default)]
    pub seed: u64,
}

/// The SAEs of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaeConfig {
    /// One dictionary at each of these sites, in the order of computation: an SAE, which reads the activation there and
    /// replaces it with its reconstruction; or, where `reads` is given, a transcoder, which writes there.
    pub sites: Vec<Site>,
    /// The sites that transcoders read, one for each of `sites` and not after it: `blocks.3.mlp.hook_in` for
    /// `blocks.3.hook_mlp_out`. Left out, every dictionary reads the site that it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Site>,
    /// Whether a linear skip connection, 0 at first, adds to each reconstruction what a matrix makes of the input; for
    /// transcoders.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip: bool,
    /// Dictionary elements per dimension of the activation that is read, `F / D`.
    pub expansion: Positive,
    /// How a dictionary makes its code, with the options of the architecture; the paper's ReLU where left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub architecture: Architecture,
    /// Seed of the initialisation.
    #[serde(default)]
    pub seed: u64,
    /// SAEs to start from instead, at the sites that they are for: folders in SAELens's format, run folders, checkpoints,
    /// or the reference's `.pt` files; a later one replaces an earlier one at its site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pretrained: Vec<Source>,
    /// Whether pretrained SAEs are trained on; left out, they stay as they are beside those that are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retrain: bool,
}

/// The optimiser, its schedule and the length of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Windows to train on; all of the data, once, where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_samples: Option<u64>,
    /// Windows in a forward pass.
    pub batch_size: NonZeroUsize,
    /// Windows in an optimiser step, a multiple of `batch_size`; `batch_size` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_batch_size: Option<NonZeroUsize>,
    /// Adam's learning rate after warm-up.
    pub lr: Positive,
    /// Gradients of a run, all its SAEs together, are scaled down to this norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<Positive>,
    /// The learning rate over the run.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// The precision of weights and activations.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Whether the blocks after the SAE are computed a second time on the way back, one by one, instead of all being kept:
    /// less memory, for one more forward pass. (Smaller `batch_size`s, accumulated, need less memory too, at no cost.)
    #[serde(default, skip_serializing_if = "is_default")]
    pub recompute: bool,
}

/// A floating-point precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    #[default]
    F32,
    /// Double: for comparisons of implementations; twice the memory and slower.
    F64,
    /// For GPUs: the language model, the SAEs' products and that of KL's gradient in bfloat16; the SAEs' parameters, the
    /// optimiser, logits and the KL divergence in single precision.
    Bf16,
}

/// The shape of the learning rate over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The shape.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// Windows over which the rate rises to its full value.
    #[serde(default)]
    pub warmup_samples: u64,
    /// Windows at the end over which a linear schedule falls.
    #[serde(default)]
    pub cooldown_samples: u64,
    /// The rate at the end, as a fraction of the full one.
    #[serde(default = "min_lr_factor")]
    pub min_lr_factor: Fraction,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::default(),
            warmup_samples: 0,
            cooldown_samples: 0,
            min_lr_factor: min_lr_factor(),
        }
    }
}

/// The shapes of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the full rate to `min_lr_factor`.
    #[default]
    Cosine,
    /// Constant, then a straight line down over `cooldown_samples`.
    Linear,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Parquet of the same kind as the training data, and none of it: other files, or its first windows where
    /// `data.skip` holds them out.
    pub data: Source,
    /// The split, as `data.split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The column, where it is not the training data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Windows to evaluate on, from the start of the data; all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_samples: Option<u64>,
    /// Windows in a forward pass; the training batch where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<NonZeroUsize>,
    /// Evaluate each time so many windows have been trained on, beside the evaluation at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_n_samples: Option<NonZeroUsize>,
    /// A feature is alive if it is active on any of so many tokens of the training data.
    #[serde(default = "alive_tokens")]
    pub alive_tokens: u64,
}

/// What is written while the run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Optimiser steps between two lines of `metrics.jsonl`.
    #[serde(default = "log_steps")]
    pub every_n_steps: NonZeroUsize,
    /// Optimiser steps between two checkpoints that are kept; none are kept where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_n_steps: Option<NonZeroUsize>,
    /// Minutes between two checkpoints that an interrupted run goes on from; the last two stay until the run ends.
    #[serde(default = "checkpoint_minutes", skip_serializing_if = "is_checkpoint_minutes")]
    pub checkpoint_every_minutes: Positive,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            every_n_steps: log_steps(),
            checkpoint_every_n_steps: None,
            checkpoint_every_minutes: checkpoint_minutes(),
        }
    }
}

/// Whether a value is what it would be if it were left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
pub(crate) fn text_column() -> String {
    "text".to_owned()
}
pub(crate) fn shuffle_buffer() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(4095)
}
pub(crate) fn min_lr_factor() -> Fraction {
    Fraction::try_from(0.1).unwrap_or_else(|_| unreachable!("0.1 is a fraction"))
}
fn alive_tokens() -> u64 {
    500_000
}
fn log_steps() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(9)
}
fn checkpoint_minutes() -> Positive {
    positive(10.0)
}
#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_checkpoint_minutes(minutes: &Positive) -> bool {
    *minutes == checkpoint_minutes()
}
pub(crate) fn positive(value: f64) -> Positive {
    Positive::try_from(value).unwrap_or_else(|_| unreachable!("a constant above 0"))
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
    /// Reads and checks a TOML file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads and checks TOML; `origin` names its source in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = from_text(text, origin)?;
        config.check(origin)?;
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
