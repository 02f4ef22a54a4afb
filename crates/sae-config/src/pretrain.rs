//! Pretraining a small language model: its sizes, its data, its optimiser.

use std::num::NonZeroUsize;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{folder_of, from_text, read};
use crate::keys::FileKind;
use crate::run::{is_default, min_lr_factor, positive, shuffle_buffer, text_column};
use crate::{Coefficient, ConfigError, Fraction, Positive, Source, setting};

/// A pretraining run of a GPT-2 of any size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// The model's sizes.
    pub model: ModelSizes,
    /// What it is trained and validated on.
    pub data: PretrainData,
    /// How.
    #[serde(default)]
    pub train: PretrainSteps,
    /// What the model card says of the data: where it comes from and how to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// The sizes of a GPT-2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Layers.
    #[schemars(extend("x-reference" = "tlens_config.n_layers"))]
    pub n_layers: NonZeroUsize,
    /// Width of the residual stream.
    #[schemars(extend("x-reference" = "tlens_config.d_model", "x-unit" = "dimensions"))]
    pub d_model: NonZeroUsize,
    /// Attention heads.
    #[schemars(extend("x-reference" = "tlens_config.d_head"))]
    pub n_heads: NonZeroUsize,
    /// Longest context, and the length of the training windows.
    #[schemars(extend("x-reference" = "tlens_config.n_ctx", "x-unit" = "tokens"))]
    pub context_length: NonZeroUsize,
    /// Seed of the initialisation.
    #[serde(default)]
    #[schemars(extend("x-reference" = "seed"))]
    pub seed: u64,
}

/// The data of a pretraining run: parquet files, folders of them, globs, or data sets of the hub (`hf://owner/name`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Data to train on.
    pub train: Source,
    /// Data to validate on, all of it; where it is the training data, the windows that `skip` leaves out.
    pub validation: Source,
    /// The most windows to validate on, from the first; all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "windows"))]
    pub n_validation_samples: Option<NonZeroUsize>,
    /// Windows to leave out at the start of the training data.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("x-unit" = "windows", "default" = 0))]
    pub skip: u64,
    /// The column of both.
    #[serde(default = "text_column")]
    pub column: String,
    /// The tokeniser's folder, file or hub repository; the model is given as many ids.
    #[schemars(extend("x-reference" = "tlens_config.tokenizer_name"))]
    pub tokenizer: Source,
    /// Whether every window of text begins with the tokeniser's beginning-of-text token (`bos_token`; its end-of-text token where
    /// it has none). Documents are joined by the end-of-text token (`eos_token`) either way.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = false))]
    pub bos: bool,
    /// Windows in the shuffle buffer.
    #[serde(default = "shuffle_buffer")]
    #[schemars(extend("x-unit" = "windows"))]
    pub shuffle_buffer: NonZeroUsize,
    /// Seed of the order.
    #[serde(default)]
    #[schemars(extend("x-reference" = "seed"))]
    pub seed: u64,
}

/// The optimiser of a pretraining run, and its length: `n_steps` or `n_epochs`, not both; one epoch where both are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSteps {
    /// Optimiser steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "optimiser steps"))]
    pub n_steps: Option<NonZeroUsize>,
    /// Passes over the training data, each of as many steps as it has whole batches; its windows are counted first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-reference" = "train.n_epochs", "x-unit" = "passes over the data"))]
    pub n_epochs: Option<NonZeroUsize>,
    /// Windows in a step.
    #[serde(default = "batch_size")]
    #[schemars(extend("x-reference" = "train.effective_batch_size", "x-unit" = "windows"))]
    pub batch_size: NonZeroUsize,
    /// AdamW's learning rate after warm-up.
    #[serde(default = "lr")]
    #[schemars(extend("x-reference" = "train.lr"))]
    pub lr: Positive,
    /// Steps of warm-up.
    #[serde(default)]
    #[schemars(extend("x-reference" = "train.warmup_samples", "x-unit" = "optimiser steps"))]
    pub warmup_steps: usize,
    /// The rate at the end of the cosine, as a fraction of the full one; 1 keeps the rate.
    #[serde(default = "min_lr_factor")]
    pub min_lr_factor: Fraction,
    /// AdamW's weight decay, on matrices alone.
    #[serde(default = "weight_decay")]
    pub weight_decay: Coefficient,
    /// Bound of the gradient's norm; none where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<Positive>,
}

impl Default for PretrainSteps {
    fn default() -> Self {
        Self {
            n_steps: None,
            n_epochs: Some(NonZeroUsize::MIN),
            batch_size: batch_size(),
            lr: lr(),
            warmup_steps: 0,
            min_lr_factor: min_lr_factor(),
            weight_decay: weight_decay(),
            max_grad_norm: None,
        }
    }
}

fn batch_size() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(31)
}

fn lr() -> Positive {
    positive(1e-3)
}

fn weight_decay() -> Coefficient {
    Coefficient::try_from(0.1).unwrap_or_else(|_| unreachable!("0.1 is above 0"))
}

/// Layers.
const MOST_LAYERS: u64 = 1_000;
/// Dimensions of the residual stream.
const MOST_DIMENSIONS: u64 = 1 << 16;
/// Tokens in a window.
const MOST_TOKENS: u64 = 1 << 20;
/// Windows in a batch.
const MOST_WINDOWS: u64 = 1 << 20;
/// Windows in a shuffle buffer.
const MOST_BUFFERED: u64 = 1 << 31;
/// Windows that are left out.
const MOST_SKIPPED: u64 = 1 << 50;
/// Optimiser steps.
const MOST_STEPS: u64 = 1 << 40;

impl PretrainConfig {
    /// Reads and checks a TOML file. Relative paths in it are relative to the file, and absolute in what is returned.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::load_recorded(path)?;
        config.resolve_paths(folder_of(path));
        Ok(config)
    }

    /// Empties the paths of data and tokeniser on this machine, to compare configurations of what may have moved.
    pub fn clear_local_paths(&mut self) {
        let PretrainData { train, validation, tokenizer, .. } = &mut self.data;
        for source in [train, validation, tokenizer] {
            if let Source::Local(path) = source {
                path.clear();
            }
        }
    }

    /// Makes relative paths absolute, as seen from `folder`.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let PretrainData { train, validation, tokenizer, .. } = &mut self.data;
        for source in [train, validation, tokenizer] {
            source.resolve(folder);
        }
    }

    /// The same with other values of some keys, as [`crate::RunConfig::with`] has it. One of `train.n_steps` and `train.n_epochs` takes
    /// the other's place.
    pub fn with(&self, settings: &[String]) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        let names =
            |key: &str| settings.iter().any(|setting| setting.trim_start().starts_with(key));
        if names("train.n_steps") != names("train.n_epochs") {
            (config.train.n_steps, config.train.n_epochs) = (None, None);
        }
        let (mut config, origin) = setting::with(&config, settings)?;
        config.check(&origin)?;
        config.resolve_paths(Path::new("."));
        Ok(config)
    }

    /// Reads and checks the TOML that is recorded beside a model. Its paths are as they are.
    pub fn load_recorded(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, &path.display().to_string())
    }

    /// Reads and checks TOML; `origin` names its source in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let mut config: Self = from_text(text, origin, FileKind::Pretrain)?;
        if config.train.n_steps.is_none() {
            config.train.n_epochs.get_or_insert(NonZeroUsize::MIN);
        }
        config.check(origin)?;
        Ok(config)
    }

    /// Checks what no single value shows, and that no size is beyond what there is; `origin` names the file in errors.
    pub fn check(&self, origin: &str) -> Result<(), ConfigError> {
        let Self { model, data, train, .. } = self;
        let bounds = [
            ("model.n_layers", Some(model.n_layers), MOST_LAYERS),
            ("model.d_model", Some(model.d_model), MOST_DIMENSIONS),
            ("model.context_length", Some(model.context_length), MOST_TOKENS),
            ("data.skip", NonZeroUsize::new(data.skip as usize), MOST_SKIPPED),
            ("data.shuffle_buffer", Some(data.shuffle_buffer), MOST_BUFFERED),
            ("train.n_steps", train.n_steps, MOST_STEPS),
            ("train.n_epochs", train.n_epochs, MOST_STEPS),
            ("train.batch_size", Some(train.batch_size), MOST_WINDOWS),
        ];
        for (key, found, most) in bounds {
            if let Some(found) = found.filter(|found| found.get() as u64 > most) {
                return Err(ConfigError::invalid(
                    origin,
                    key,
                    found,
                    format!("{most} is the most that it can be"),
                ));
            }
        }
        if model.context_length.get() < 2 {
            return Err(ConfigError::invalid(
                origin,
                "model.context_length",
                model.context_length,
                "a window needs a next token: 2 or more",
            ));
        }
        if model.n_heads > model.d_model || model.d_model.get() % model.n_heads != 0 {
            return Err(ConfigError::invalid(
                origin,
                "model.n_heads",
                model.n_heads,
                format!("it must divide model.d_model, {}", model.d_model),
            ));
        }
        if train.n_steps.is_some() && train.n_epochs.is_some() {
            return Err(ConfigError::invalid(
                origin,
                "train.n_steps",
                "given with train.n_epochs",
                "exactly one of the two says how long to train",
            ));
        }
        if let Some(n_steps) = train.n_steps
            && train.warmup_steps >= n_steps.get()
        {
            return Err(ConfigError::invalid(
                origin,
                "train.warmup_steps",
                train.warmup_steps,
                format!("it must be below train.n_steps, {n_steps}"),
            ));
        }
        Ok(())
    }

    /// Optimiser steps; 0 as long as `train.n_epochs` stands for them: pretraining counts them once the data is open.
    pub fn n_steps(&self) -> u64 {
        self.train.n_steps.map_or(0, |n| n.get() as u64)
    }

    /// Takes over the commits that equal requests of another configuration were resolved to.
    pub fn adopt_commits(&mut self, resolved: &Self) {
        self.data.train.adopt_commit(&resolved.data.train);
        self.data.validation.adopt_commit(&resolved.data.validation);
        self.data.tokenizer.adopt_commit(&resolved.data.tokenizer);
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Parse {
            origin: "in memory".to_owned(),
            message: error.to_string(),
        })
    }
}
