//! What the families have in common: reading `config.json`, activations by name, rotary settings, checks of sizes.

use std::path::{Path, PathBuf};

use sae_config::file::{LONGEST_TEXT, read_text};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{Activation, RotaryConfig, RotaryScaling};
use crate::{ModelConfig, ModelError};

/// `config.json`, and where it lies.
pub(super) struct Json {
    path: PathBuf,
    value: serde_json::Value,
}

/// The keys of rotary positions: on top of `config.json`, or in its `rope_parameters` (transformers 5).
#[derive(Debug, Default, Deserialize)]
#[allow(clippy::struct_field_names)] // The keys as they are.
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name; some files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl Json {
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        if !folder.exists() {
            let message = "there is no such folder; a model of the hub is written hf://owner/name, as in \
                           hf://openai-community/gpt2";
            return Err(ModelError::Config {
                path: folder.to_owned(),
                message: message.to_owned(),
            });
        }
        let text = read_text(&path, LONGEST_TEXT).map_err(|source| ModelError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let json = match serde_json::from_str(&text) {
            Ok(value) => Self { path, value },
            Err(error) => return Err(ModelError::Config { path, message: error.to_string() }),
        };
        if !json.value["quantization_config"].is_null() {
            return Err(json.failed(
                "it has a quantization_config; quantised models are not supported: use the model's full weights"
                    .to_owned(),
            ));
        }
        Ok(json)
    }

    pub fn model_type(&self) -> Option<&str> {
        self.value["model_type"].as_str()
    }

    /// The keys that a family looks at.
    pub fn keys<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        T::deserialize(&self.value).map_err(|error| self.failed(error.to_string()))
    }

    pub fn failed(&self, message: String) -> ModelError {
        ModelError::Config { path: self.path.clone(), message }
    }

    pub fn activation(&self, name: &str) -> Result<Activation, ModelError> {
        activation(name).map_err(|message| self.failed(message))
    }

    /// Rotary positions on heads of this width; `share` and `base` hold where the configuration says nothing.
    pub fn rotary(&self, d_head: usize, share: f64, base: f64) -> Result<RotaryConfig, ModelError> {
        let read = |key: &str| -> Result<Rope, ModelError> {
            match &self.value[key] {
                serde_json::Value::Null => Ok(Rope::default()),
                value => {
                    Rope::deserialize(value).map_err(|error| self.failed(format!("{key}: {error}")))
                }
            }
        };
        let (scaling, parameters) = (read("rope_scaling")?, read("rope_parameters")?);
        let rope = if parameters.rope_type.is_some() { &parameters } else { &scaling };
        let rope_type = rope.rope_type.as_deref().or(rope.old_type.as_deref());
        let need = |value: Option<f64>, key: &str| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            other => Err(self
                .failed(format!("rotary scaling: {key} is {other:?}, expected a number above 0"))),
        };
        let scaling = match rope_type {
            None | Some("default") => RotaryScaling::None,
            Some("linear") => RotaryScaling::Linear { factor: need(rope.factor, "factor")? },
            Some("llama3") => RotaryScaling::Llama3 {
                factor: need(rope.factor, "factor")?,
                low: need(rope.low_freq_factor, "low_freq_factor")?,
                high: need(rope.high_freq_factor, "high_freq_factor")?,
                original_context: need(
                    rope.original_max_position_embeddings,
                    "original_max_position_embeddings",
                )?,
            },
            Some(other) => {
                return Err(self.failed(format!(
                    "rotary scaling `{other}` is not supported; supported are default, linear, llama3"
                )));
            }
        };
        let share = parameters.partial_rotary_factor.unwrap_or(share);
        let dims = (d_head as f64 * share) as usize;
        if dims < 2 || !dims.is_multiple_of(2) || dims > d_head {
            return Err(self.failed(format!(
                "{dims} of a head's {d_head} dimensions are rotary, expected an even number of them, 2 or more"
            )));
        }
        let base = parameters.rope_theta.unwrap_or(base);
        Ok(RotaryConfig { dims, base: need(Some(base), "theta")?, scaling })
    }

    /// Refuses sizes that no model has.
    pub fn check(&self, config: ModelConfig) -> Result<ModelConfig, ModelError> {
        let ModelConfig { n_layers, d_model, n_heads, n_kv_heads, d_head, .. } = config;
        let sizes = [d_model, n_heads, n_kv_heads, d_head, config.d_mlp, config.context_length];
        let impossible = |size: &usize| *size == 0 || *size > 1 << 24;
        if sizes.iter().chain([&config.vocabulary]).any(impossible)
            || !(1..=4096).contains(&n_layers)
        {
            return Err(self.failed(format!(
                "{n_layers} layers of width {d_model} (MLP {}), {n_heads} heads of width {d_head}, {n_kv_heads} of keys \
                 and values, context {}, vocabulary {}: all must be above 0, and none beyond what there is",
                config.d_mlp, config.context_length, config.vocabulary
            )));
        }
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(self.failed(format!(
                "{n_kv_heads} heads of keys and values must divide {n_heads} heads"
            )));
        }
        Ok(config)
    }

    /// The width of a head where the heads share the model's width out.
    pub fn d_head(&self, d_model: usize, n_heads: usize) -> Result<usize, ModelError> {
        if n_heads == 0 || !d_model.is_multiple_of(n_heads) {
            return Err(self.failed(format!(
                "{n_heads} heads must be above 0 and divide the width {d_model}"
            )));
        }
        Ok(d_model / n_heads)
    }
}

/// An activation function by the name that transformers and TransformerLens give it.
pub(super) fn activation(name: &str) -> Result<Activation, String> {
    match name {
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(format!(
            "the activation function is `{other}`, supported are gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu"
        )),
    }
}

pub(super) fn yes() -> bool {
    true
}
