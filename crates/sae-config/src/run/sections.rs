//! The sections of a run's configuration, each with what it is where keys are left out.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Architecture, Fraction, Positive, Site, Source};

/// The frozen language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder in Hugging Face layout (`config.json`, weights, `tokenizer.json`), a repository of the hub
    /// (`hf://owner/name`), or a checkpoint `.pt` of a TransformerLens model.
    #[schemars(extend("x-reference" = "tlens_model_name, tlens_model_path"))]
    pub path: Source,
    /// What is done to the weights after loading. Activations, and so the SAEs trained on them, depend on it.
    #[serde(default)]
    pub processing: Processing,
}

impl ModelConfig {
    /// This model, its weights as they are.
    pub fn new(path: Source) -> Self {
        Self { path, processing: Processing::default() }
    }
}

/// Processing of a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A parquet file, a folder of them, a glob, or a data set of the hub (`hf://owner/name`).
    #[schemars(extend("x-reference" = "train_data.dataset_name"))]
    pub train: Source,
    /// The split, where files of several lie together: those with this word in their path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "train_data.split"))]
    pub split: Option<String>,
    /// Windows to leave out at the start of the data: held out for the evaluation where that is of the same data.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("x-unit" = "windows", "default" = 0))]
    pub skip: u64,
    /// The column to read: text, which is tokenised on the way, or lists of integers, which are windows already.
    #[serde(default = "text_column")]
    #[schemars(extend("x-reference" = "train_data.column_name"))]
    pub column: String,
    /// Tokens in a window (a sample), the model's context or less.
    #[schemars(extend("x-unit" = "tokens", "x-reference" = "train_data.n_ctx"))]
    pub context_length: NonZeroUsize,
    /// The folder, file or hub repository of the tokeniser, where it is not the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "train_data.tokenizer_name"))]
    pub tokenizer: Option<Source>,
    /// Whether every window of tokenised text begins with the tokeniser's beginning-of-text token (`bos_token`; its end-of-text
    /// token where it has none). Documents are joined by the end-of-text token (`eos_token`) either way.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub bos: bool,
    /// Windows in the shuffle buffer; 1 keeps the order of the files.
    #[serde(default = "shuffle_buffer")]
    #[schemars(extend("x-unit" = "windows"))]
    pub shuffle_buffer: NonZeroUsize,
    /// Seed of the order of the data; it does not touch initialisation.
    #[serde(default)]
    #[schemars(extend("x-reference" = "train_data.seed, seed"))]
    pub seed: u64,
}

impl DataConfig {
    /// Windows of `context_length` tokens of this data; all else as where it is left out of a file.
    pub fn new(train: Source, context_length: NonZeroUsize) -> Self {
        Self {
            train,
            split: None,
            skip: 0,
            column: text_column(),
            context_length,
            tokenizer: None,
            bos: false,
            shuffle_buffer: shuffle_buffer(),
            seed: 0,
        }
    }
}

/// The SAEs of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaeConfig {
    /// One dictionary at each of these sites, in the order of computation: an SAE, which reads the activation there and
    /// replaces it with its reconstruction; or, where `reads` is given, a transcoder, which writes there.
    #[schemars(extend("x-reference" = "saes.sae_positions"))]
    pub sites: Vec<Site>,
    /// The sites that transcoders read, one for each of `sites` and not after it: `blocks.3.mlp.hook_in` for
    /// `blocks.3.hook_mlp_out`. Left out, every dictionary reads the site that it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("default" = []))]
    pub reads: Vec<Site>,
    /// Whether a linear skip connection, 0 at first, adds to each reconstruction what a matrix makes of the input; for
    /// transcoders.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub skip: bool,
    /// Dictionary elements per dimension of the activation that is read, `F / D`.
    #[schemars(extend("x-reference" = "saes.dict_size_to_input_ratio"))]
    pub expansion: Positive,
    /// How a dictionary makes its code, with the options of the architecture; the paper's ReLU where left out.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = { "relu": {} }))]
    pub architecture: Architecture,
    /// Seed of the initialisation.
    #[serde(default)]
    #[schemars(extend("x-reference" = "seed"))]
    pub seed: u64,
    /// SAEs to start from instead, at the sites that they are for: folders in SAELens's format, run folders, checkpoints,
    /// or the reference's `.pt` files; a later one replaces an earlier one at its site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-reference" = "saes.pretrained_sae_paths", "default" = []))]
    pub pretrained: Vec<Source>,
    /// Whether pretrained SAEs are trained on; left out, they stay as they are beside those that are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("x-reference" = "saes.retrain_saes", "default" = false))]
    pub retrain: bool,
}

impl SaeConfig {
    /// SAEs of the paper's architecture at these sites; all else as where it is left out of a file.
    pub fn new(sites: Vec<Site>, expansion: Positive) -> Self {
        Self {
            sites,
            reads: Vec::new(),
            skip: false,
            expansion,
            architecture: Architecture::default(),
            seed: 0,
            pretrained: Vec::new(),
            retrain: false,
        }
    }
}

/// The optimiser, its schedule and the length of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Windows to train on; all of the data, once, where left out. What is left beyond whole steps is not trained on.
    /// Text that ends before begins anew, which the log says; more than a data set of windows holds is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "n_samples"))]
    pub n_samples: Option<u64>,
    /// Windows in a forward pass.
    #[schemars(extend("x-unit" = "windows", "x-reference" = "batch_size"))]
    pub batch_size: NonZeroUsize,
    /// Windows in an optimiser step, a multiple of `batch_size`; `batch_size` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "effective_batch_size"))]
    pub effective_batch_size: Option<NonZeroUsize>,
    /// Adam's learning rate after warm-up.
    #[schemars(extend("x-reference" = "lr"))]
    pub lr: Positive,
    /// Gradients of a run, all its SAEs together, are scaled down to this norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "max_grad_norm"))]
    pub max_grad_norm: Option<Positive>,
    /// The learning rate over the run.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// The precision of weights and activations.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "f32"))]
    pub precision: Precision,
    /// Whether the blocks after the SAE are computed a second time on the way back, one by one, instead of all being kept:
    /// less memory, for one more forward pass. (Smaller `batch_size`s, accumulated, need less memory too, at no cost.)
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub recompute: bool,
}

impl TrainConfig {
    /// Steps of `batch_size` windows at this rate over all of the data; all else as where it is left out of a file.
    pub fn new(batch_size: NonZeroUsize, lr: Positive) -> Self {
        Self {
            n_samples: None,
            batch_size,
            effective_batch_size: None,
            lr,
            max_grad_norm: None,
            schedule: ScheduleConfig::default(),
            precision: Precision::default(),
            recompute: false,
        }
    }
}

/// A floating-point precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Double precision: for comparisons of implementations; twice the memory and slower.
    F64,
    /// For GPUs: the language model, the SAEs' products and that of KL's gradient in bfloat16; the SAEs' parameters, the
    /// optimiser, logits and the KL divergence in single precision.
    Bf16,
}

/// The shape of the learning rate over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The shape.
    #[serde(default)]
    #[schemars(extend("x-reference" = "lr_schedule"))]
    pub kind: ScheduleKind,
    /// Windows over which the rate rises to its full value.
    #[serde(default)]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "warmup_samples"))]
    pub warmup_samples: u64,
    /// Windows at the end over which a linear schedule falls.
    #[serde(default)]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "cooldown_samples"))]
    pub cooldown_samples: u64,
    /// The rate at the end, as a fraction of the full one.
    #[serde(default = "min_lr_factor")]
    #[schemars(extend("x-reference" = "min_lr_factor"))]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the full rate to `min_lr_factor`.
    #[default]
    Cosine,
    /// Constant, then a straight line down over `cooldown_samples`.
    Linear,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Parquet of the same kind as the training data, and none of it: other files, or its first windows where
    /// `data.skip` holds them out.
    #[schemars(extend("x-reference" = "eval_data.dataset_name"))]
    pub data: Source,
    /// The split, as `data.split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "eval_data.split"))]
    pub split: Option<String>,
    /// The column, where it is not the training data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "eval_data.column_name"))]
    pub column: Option<String>,
    /// Windows to evaluate on, from the start of the data; all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "eval_n_samples"))]
    pub n_samples: Option<u64>,
    /// Windows in a forward pass; the training batch where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows"))]
    pub batch_size: Option<NonZeroUsize>,
    /// Evaluate each time so many windows have been trained on, beside the evaluation at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows", "x-reference" = "eval_every_n_samples"))]
    pub every_n_samples: Option<NonZeroUsize>,
    /// A feature is alive if it is active on any of so many tokens of the training data.
    #[serde(default = "alive_tokens")]
    #[schemars(extend("x-unit" = "tokens", "x-reference" = "act_frequency_n_tokens"))]
    pub alive_tokens: u64,
}

impl EvalConfig {
    /// All of this data; all else as where it is left out of a file.
    pub fn new(data: Source) -> Self {
        Self {
            data,
            split: None,
            column: None,
            n_samples: None,
            batch_size: None,
            every_n_samples: None,
            alive_tokens: alive_tokens(),
        }
    }
}

/// What is written while the run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Optimiser steps between two lines of `metrics.jsonl`.
    #[serde(default = "log_steps")]
    #[schemars(extend("x-unit" = "optimiser steps", "x-reference" = "log_every_n_grad_steps"))]
    pub every_n_steps: NonZeroUsize,
    /// Optimiser steps between two checkpoints that are kept; none are kept where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "optimiser steps", "x-reference" = "save_every_n_samples"))]
    pub checkpoint_every_n_steps: Option<NonZeroUsize>,
    /// Minutes between two checkpoints that an interrupted run goes on from; the last two stay until the run ends.
    #[serde(default = "checkpoint_minutes", skip_serializing_if = "is_checkpoint_minutes")]
    #[schemars(extend("x-unit" = "minutes", "default" = 10.0))]
    pub checkpoint_every_minutes: Positive,
    /// Whether what goes into `metrics.jsonl` is written as an event file of TensorBoard beside it, too.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub tensorboard: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            every_n_steps: log_steps(),
            checkpoint_every_n_steps: None,
            checkpoint_every_minutes: checkpoint_minutes(),
            tensorboard: false,
        }
    }
}

/// Whether a value is what it would be if it were left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
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
