//! The reference's schema of a run, field by field (`Config` in `run_train_tlens_saes.py`).
#![allow(clippy::struct_field_names)] // The names are the reference's.

use std::fmt::Display;
use std::num::NonZeroUsize;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::ConfigError;

/// A whole number of 0 or more, also as Python writes it: `400_000`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Count(pub u64);

/// A finite number, also one that YAML 1.1 takes for text: `5e-4`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Real(pub f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl Visitor<'_> for Numbers {
            type Value = Real;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Real, E> {
                Ok(Real(value as f64))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Real, E> {
                Ok(Real(value))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Real, E> {
                let number = text.replace('_', "").parse().ok().filter(|n: &f64| n.is_finite());
                number.map(Real).ok_or_else(|| E::custom(format!("`{text}` is not a number")))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Real(value) = Real::deserialize(deserializer)?;
        // Above 2^53 a float skips whole numbers; nobody counts that far.
        if value >= 0.0 && value.fract() == 0.0 && value < 9e15 {
            Ok(Self(value as u64))
        } else {
            Err(D::Error::custom(format!("{value} is not a whole number of 0 or more")))
        }
    }
}

impl Count {
    /// As a size, which must be above 0.
    pub fn above_zero(self, origin: &str, key: &'static str) -> Result<NonZeroUsize, ConfigError> {
        NonZeroUsize::new(self.0 as usize)
            .ok_or_else(|| ConfigError::invalid(origin, key, self.0, "it must be above 0"))
    }
}

impl Real {
    /// As a number with a range.
    pub fn ranged<T>(self, origin: &str, key: &'static str) -> Result<T, ConfigError>
    where
        T: TryFrom<f64>,
        T::Error: Display,
    {
        T::try_from(self.0)
            .map_err(|error| ConfigError::invalid(origin, key, self.0, error.to_string()))
    }
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(vec![text])),
            list => Vec::<String>::deserialize(list).map(Self).map_err(D::Error::custom),
        }
    }
}

/// A run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub wandb_project: Option<String>,
    pub wandb_run_name: Option<String>,
    pub wandb_run_name_prefix: Option<String>,
    #[serde(default = "zero")]
    pub seed: Count,
    pub tlens_model_name: Option<String>,
    pub tlens_model_path: Option<String>,
    pub save_dir: Option<String>,
    pub n_samples: Option<Count>,
    pub save_every_n_samples: Option<Count>,
    pub eval_every_n_samples: Option<Count>,
    pub eval_n_samples: Option<Count>,
    pub batch_size: Count,
    pub effective_batch_size: Option<Count>,
    pub lr: Real,
    #[serde(default)]
    pub lr_schedule: LrSchedule,
    #[serde(default = "min_lr_factor")]
    pub min_lr_factor: Real,
    #[serde(default = "zero")]
    pub warmup_samples: Count,
    #[serde(default = "zero")]
    pub cooldown_samples: Count,
    pub max_grad_norm: Option<Real>,
    #[serde(default = "log_every")]
    pub log_every_n_grad_steps: Count,
    pub collect_act_frequency_every_n_samples: Option<Count>,
    #[serde(default = "act_frequency_n_tokens")]
    pub act_frequency_n_tokens: Count,
    /// Removed from the reference, which still takes it.
    pub collect_output_metrics_every_n_samples: Option<Count>,
    /// Fields of older versions, which the configurations of published SAEs have.
    pub adam_beta1: Option<serde_json::Value>,
    pub collect_discrete_metrics_every_n_samples: Option<serde_json::Value>,
    pub discrete_metrics_n_tokens: Option<serde_json::Value>,
    pub loss: Loss,
    pub train_data: Dataset,
    pub eval_data: Option<Dataset>,
    pub saes: Saes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LrSchedule {
    #[default]
    Cosine,
    Linear,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Loss {
    pub sparsity: Sparsity,
    pub in_to_orig: Option<InToOrig>,
    pub out_to_orig: Option<Term>,
    pub out_to_in: Option<Term>,
    pub logits_kl: Option<Term>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sparsity {
    pub coeff: Real,
    #[serde(default = "one")]
    pub p_norm: Real,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InToOrig {
    pub total_coeff: Real,
    pub hook_positions: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Term {
    pub coeff: Real,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dataset {
    pub dataset_name: String,
    #[serde(default = "yes")]
    pub is_tokenized: bool,
    pub tokenizer_name: String,
    #[serde(default = "yes")]
    pub streaming: bool,
    pub split: String,
    pub n_ctx: Count,
    pub seed: Option<Count>,
    #[serde(default = "input_ids")]
    pub column_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saes {
    pub type_of_sparsifier: Option<String>,
    #[serde(default = "one")]
    pub dict_size_to_input_ratio: Real,
    pub k: Option<Count>,
    pub pretrained_sae_paths: Option<Texts>,
    #[serde(default)]
    pub retrain_saes: bool,
    pub sae_positions: Texts,
}

fn zero() -> Count {
    Count(0)
}
fn one() -> Real {
    Real(1.0)
}
fn min_lr_factor() -> Real {
    Real(0.1)
}
fn log_every() -> Count {
    Count(20)
}
fn act_frequency_n_tokens() -> Count {
    Count(100_000)
}
fn yes() -> bool {
    true
}
fn input_ids() -> String {
    "input_ids".to_owned()
}
