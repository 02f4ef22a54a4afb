//! The reference's training of a language model (`run_train_tlens.py`), read as a pretraining of this project.
#![allow(clippy::struct_field_names)] // The names are the reference's.

use std::path::Path;

use serde::Deserialize;

use super::differences::{left_out, tokenisation};
use super::import::WHOLE_BUFFER;
use super::schema::{Count, Real};
use super::{Kind, sources, yaml};
use crate::error::read;
use crate::pretrain::{ModelSizes, PretrainData, PretrainSteps};
use crate::{ConfigError, PretrainConfig};

/// The training of a language model in the reference, imported.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedModel {
    /// The pretraining in this project's terms.
    pub config: PretrainConfig,
    /// What was dropped or changed, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads a language model's YAML.
pub fn load_language_model(path: &Path) -> Result<ImportedModel, ConfigError> {
    parse_language_model(&read(path)?, &path.display().to_string())
}

/// Reads a language model's YAML; `origin` names its source in errors.
pub fn parse_language_model(text: &str, origin: &str) -> Result<ImportedModel, ConfigError> {
    let value = yaml(text, origin)?;
    Kind::of(&value).require(Kind::LanguageModel, origin)?;
    let given =
        LanguageModel::deserialize(value).map_err(|error| ConfigError::parse(origin, &error))?;
    let config = given.import(origin)?;
    config.check(origin)?;
    let warnings = given.differences();
    Ok(ImportedModel { config, warnings })
}

/// What the reference's script trains every language model on: the tokens of this data set's column `text`.
const DATA: &str = "hf://NeelNanda/pile-10k";
/// The length of its windows, whatever the model's context.
const WINDOW: u64 = 1024;
/// Windows to validate on, 16 batches; the reference has no validation.
const HELD_OUT: u64 = 512;
/// GELU by the error function, and the names of its tanh approximation, which GPT-2 has.
const GELU: &str = "gelu";
const GELU_NEW: [&str; 3] = ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LanguageModel {
    seed: Option<Count>,
    name: String,
    tlens_config: Sizes,
    train: Train,
    wandb_project: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    d_model: Count,
    n_layers: Count,
    n_ctx: Count,
    d_head: Count,
    #[serde(rename = "d_vocab")]
    _d_vocab: Count,
    act_fn: String,
    dtype: Option<String>,
    tokenizer_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Train {
    n_epochs: Count,
    batch_size: Count,
    effective_batch_size: Option<Count>,
    lr: Real,
    warmup_samples: Option<Count>,
    save_dir: Option<String>,
    save_every_n_epochs: Option<Count>,
}

impl LanguageModel {
    fn import(&self, origin: &str) -> Result<PretrainConfig, ConfigError> {
        let Self { tlens_config: sizes, train, .. } = self;
        if sizes.act_fn != GELU && !GELU_NEW.contains(&sizes.act_fn.as_str()) {
            return Err(ConfigError::invalid(
                origin,
                "tlens_config.act_fn",
                format!("`{}`", sizes.act_fn),
                "`sae pretrain` makes models of GPT-2's architecture, whose activation is GELU: gelu or gelu_new",
            ));
        }
        let d_model = sizes.d_model.above_zero(origin, "tlens_config.d_model")?;
        let d_head = sizes.d_head.above_zero(origin, "tlens_config.d_head")?;
        if d_model.get() % d_head != 0 {
            return Err(ConfigError::invalid(
                origin,
                "tlens_config.d_head",
                d_head,
                format!("it must divide tlens_config.d_model, {d_model}"),
            ));
        }
        let batch_size = train.batch_size.above_zero(origin, "train.batch_size")?;
        let effective = match train.effective_batch_size {
            Some(size) => size.above_zero(origin, "train.effective_batch_size")?,
            None => batch_size,
        };
        if effective.get() % batch_size != 0 {
            return Err(ConfigError::invalid(
                origin,
                "train.effective_batch_size",
                effective,
                format!("it must be a multiple of train.batch_size, {batch_size}"),
            ));
        }
        let data = sources::any(origin, DATA)?;
        let seed = self.seed.map_or(0, |Count(seed)| seed);
        Ok(PretrainConfig {
            model: ModelSizes {
                n_layers: sizes.n_layers.above_zero(origin, "tlens_config.n_layers")?,
                d_model,
                n_heads: Count((d_model.get() / d_head) as u64)
                    .above_zero(origin, "tlens_config.d_head")?,
                context_length: sizes.n_ctx.above_zero(origin, "tlens_config.n_ctx")?,
                seed,
            },
            data: PretrainData {
                train: data.clone(),
                validation: data,
                n_validation_samples: None,
                skip: HELD_OUT,
                column: "text".to_owned(),
                tokenizer: sources::tokenizer(
                    origin,
                    "tlens_config.tokenizer_name",
                    &sizes.tokenizer_name,
                )?,
                bos: true,
                shuffle_buffer: WHOLE_BUFFER,
                seed,
            },
            train: PretrainSteps {
                n_steps: None,
                n_epochs: Some(train.n_epochs.above_zero(origin, "train.n_epochs")?),
                batch_size: effective,
                lr: train.lr.ranged(origin, "train.lr")?,
                warmup_steps: train.warmup_samples.map_or(0, |Count(n)| n as usize) / effective,
                // Constant after the warm-up, without decay or clipping.
                min_lr_factor: Real(1.0).ranged(origin, "train.min_lr_factor")?,
                weight_decay: Real(0.0).ranged(origin, "train.weight_decay")?,
                max_grad_norm: None,
            },
            about: Some(format!("Trained after `{}`, a configuration of e2e_sae.", self.name)),
        })
    }

    /// What is done otherwise here, a sentence each.
    fn differences(&self) -> Vec<String> {
        let Self { tlens_config: sizes, train, .. } = self;
        let unused = [
            ("wandb_project", self.wandb_project.is_some()),
            ("tlens_config.d_vocab", true),
            ("train.save_dir", train.save_dir.is_some()),
            ("train.save_every_n_epochs", train.save_every_n_epochs.is_some()),
        ];
        let effective = train.effective_batch_size.filter(|size| *size != train.batch_size);
        let single = [None, Some("float32"), Some("torch.float32")];
        [
            left_out(
                &unused,
                "the model is written to --out once it is trained, and has as many ids as its tokeniser",
            ),
            Some(
                "the model is GPT-2 as its authors made it: it has one matrix for embedding and unembedding, and their \
                 initialisation; the reference trains an unembedding of its own, with a bias, and initialises as \
                 TransformerLens does"
                    .to_owned(),
            ),
            (sizes.act_fn == GELU).then(|| {
                "tlens_config.act_fn: gelu is the exact GELU in the reference; here it is GPT-2's tanh approximation, \
                 gelu_new"
                    .to_owned()
            }),
            (!single.contains(&sizes.dtype.as_deref())).then(|| {
                "tlens_config.dtype: the model is trained in single precision here, and stored in half".to_owned()
            }),
            Some("Adam's second beta is 0.95 here, 0.999 in the reference".to_owned()),
            effective.map(|Count(size)| {
                format!(
                    "train.effective_batch_size: the {size} windows of a step pass through the model at once, which takes \
                     more memory"
                )
            }),
            Some(format!(
                "the reference validates on nothing: here the first {HELD_OUT} windows are held out for it"
            )),
            Some(format!(
                "the reference shuffles all windows anew in every epoch; here they pass through a shuffle buffer of \
                 {WHOLE_BUFFER} windows"
            )),
            (sizes.n_ctx.0 != WINDOW).then(|| {
                format!(
                    "tlens_config.n_ctx: the windows have {} tokens here, {WINDOW} in the reference whatever the context",
                    sizes.n_ctx.0
                )
            }),
            Some(tokenisation()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The sizes of a language model that the reference trains: `tlens_config` in its `final_config.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TlensConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers.
    pub n_layers: usize,
    /// Longest context.
    pub n_ctx: usize,
    /// Width of a head; as many heads as fit into `d_model`.
    pub d_head: usize,
    /// Vocabulary.
    pub d_vocab: usize,
    /// The MLP's activation function.
    pub act_fn: String,
}

impl TlensConfig {
    /// Reads it from a `final_config.yaml`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let value = yaml(&read(path)?, &origin)?;
        Self::deserialize(&value["tlens_config"])
            .map_err(|error| ConfigError::parse(&origin, &format!("tlens_config: {error}")))
    }
}
