//! Pretraining a small language model: its sizes, its data, its optimiser.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::read;
use crate::{Coefficient, ConfigError, Fraction, Positive};

/// A pretraining run of a GPT-2 of any size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// The model's sizes.
    pub model: ModelSizes,
    /// What it is trained and validated on.
    pub data: PretrainData,
    /// How.
    pub train: PretrainSteps,
    /// What the model card says of the data: where it comes from and how to make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// The sizes of a GPT-2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Layers.
    pub n_layers: NonZeroUsize,
    /// Width of the residual stream.
    pub d_model: NonZeroUsize,
    /// Attention heads.
    pub n_heads: NonZeroUsize,
    /// Longest context, and the length of the training windows.
    pub context_length: NonZeroUsize,
    /// Seed of the initialisation.
    #[serde(default)]
    pub seed: u64,
}

/// The data of a pretraining run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Parquet to train on.
    pub train: PathBuf,
    /// Parquet to validate on, all of it.
    pub validation: PathBuf,
    /// The column of both.
    pub column: String,
    /// The tokeniser's folder or file; the model is given as many ids.
    pub tokenizer: PathBuf,
    /// Windows in the shuffle buffer.
    pub shuffle_buffer: NonZeroUsize,
    /// Seed of the order.
    #[serde(default)]
    pub seed: u64,
}

/// The optimiser of a pretraining run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainSteps {
    /// Optimiser steps.
    pub n_steps: NonZeroUsize,
    /// Windows in a step.
    pub batch_size: NonZeroUsize,
    /// AdamW's learning rate after warm-up.
    pub lr: Positive,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// The rate at the end of the cosine, as a fraction of the full one.
    pub min_lr_factor: Fraction,
    /// AdamW's weight decay, on matrices alone.
    pub weight_decay: Coefficient,
    /// Bound of the gradient's norm.
    pub max_grad_norm: Positive,
}

impl PretrainConfig {
    /// Reads and checks a TOML file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::parse(&path.display().to_string(), &error))?;
        let origin = &path.display().to_string();
        if config.model.context_length.get() < 2 {
            return Err(ConfigError::invalid(
                origin,
                "model.context_length",
                config.model.context_length,
                "a window needs a next token: 2 or more",
            ));
        }
        if config.model.d_model.get() % config.model.n_heads != 0 {
            return Err(ConfigError::invalid(
                origin,
                "model.n_heads",
                config.model.n_heads,
                format!("it must divide model.d_model, {}", config.model.d_model),
            ));
        }
        if config.train.warmup_steps >= config.train.n_steps.get() {
            return Err(ConfigError::invalid(
                origin,
                "train.warmup_steps",
                config.train.warmup_steps,
                format!("it must be below train.n_steps, {}", config.train.n_steps),
            ));
        }
        Ok(config)
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Parse {
            origin: "in memory".to_owned(),
            message: error.to_string(),
        })
    }
}
