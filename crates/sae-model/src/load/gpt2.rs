//! GPT-2: learned positions, layer norms before attention and MLP, tied embeddings, matrices stored `[in, out]`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::Family;
use super::family::{Json, yes};
use super::weights::Weights;
use crate::attention::Attention;
use crate::config::Activation;
use crate::mlp::Mlp;
use crate::transformer::{Block, Parts};
use crate::{ModelConfig, ModelError, Transformer};

pub(super) const FAMILY: Family = Family { model_type: "gpt2", config, assemble };

/// The keys of `config.json` that matter to the computation.
#[derive(Debug, Serialize, Deserialize)]
struct Gpt2Config {
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    #[serde(default)]
    n_inner: Option<usize>,
    n_positions: usize,
    vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "activation")]
    activation_function: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
}

fn eps() -> f64 {
    1e-5
}
fn activation() -> String {
    "gelu_new".to_owned()
}

fn config(json: &Json) -> Result<ModelConfig, ModelError> {
    let raw: Gpt2Config = json.keys()?;
    if !raw.scale_attn_weights || raw.scale_attn_by_inverse_layer_idx {
        return Err(json.failed(
            "unscaled attention scores, or scores scaled by layer, are not supported for gpt2"
                .to_owned(),
        ));
    }
    json.d_head(raw.n_embd, raw.n_head)?;
    json.check(ModelConfig {
        d_mlp: raw.n_inner.unwrap_or(4 * raw.n_embd),
        norm_eps: raw.layer_norm_epsilon,
        activation: json.activation(&raw.activation_function)?,
        ..ModelConfig::gpt2(raw.n_layer, raw.n_embd, raw.n_head, raw.n_positions, raw.vocab_size)
    })
}

fn assemble(json: &Json, config: &ModelConfig, weights: &Weights) -> Result<Parts, ModelError> {
    let raw: Gpt2Config = json.keys()?;
    let (d, d_mlp) = (config.d_model, config.d_mlp);
    // GPT2LMHeadModel writes a prefix, GPT2Model (and the hub's gpt2) does not.
    let prefix = weights.prefix("transformer.", "wte.weight");
    let token_embedding = weights.take(&format!("{prefix}wte.weight"), &[config.vocabulary, d])?;
    let mut blocks = Vec::new();
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("{prefix}h.{index}.{rest}");
        blocks.push(Block {
            norm_1: weights.norm(&name("ln_1"), config)?,
            attention: Attention::of(
                config,
                index,
                weights.linear_transposed(&name("attn.c_attn"), 3 * d, d)?,
                weights.linear_transposed(&name("attn.c_proj"), d, d)?,
            ),
            norm_2: weights.norm(&name("ln_2"), config)?,
            mlp: Mlp {
                up: weights.linear_transposed(&name("mlp.c_fc"), d_mlp, d)?,
                gate: None,
                down: weights.linear_transposed(&name("mlp.c_proj"), d, d_mlp)?,
                activation: config.activation,
            },
        });
    }
    let unembedding =
        weights.unembedding("lm_head.weight", raw.tie_word_embeddings, &token_embedding, config)?;
    Ok(Parts {
        position_embedding: Some(
            weights.take(&format!("{prefix}wpe.weight"), &[config.context_length, d])?,
        ),
        token_embedding,
        blocks,
        final_norm: weights.norm(&format!("{prefix}ln_f"), config)?,
        unembedding,
        unembedding_bias: None,
    })
}

pub(super) fn save(model: &Transformer, folder: &Path, kind: Kind) -> Result<(), ModelError> {
    let config = model.config();
    let plain = ModelConfig {
        d_mlp: config.d_mlp,
        norm_eps: config.norm_eps,
        activation: config.activation,
        ..ModelConfig::gpt2(
            config.n_layers,
            config.d_model,
            config.n_heads,
            config.context_length,
            config.vocabulary,
        )
    };
    if *config != plain || model.parts.unembedding_bias.is_some() {
        return Err(ModelError::Config {
            path: folder.join("config.json"),
            message:
                "only a model of GPT-2's architecture, unprocessed, can be written in its layout"
                    .to_owned(),
        });
    }
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::Io { action, path, source }
    };
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let raw = Gpt2Config {
        n_layer: config.n_layers,
        n_embd: config.d_model,
        n_head: config.n_heads,
        n_inner: Some(config.d_mlp),
        n_positions: config.context_length,
        vocab_size: config.vocabulary,
        layer_norm_epsilon: config.norm_eps,
        activation_function: match config.activation {
            Activation::GeluTanh => "gelu_new",
            Activation::Gelu => "gelu",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
        }
        .to_owned(),
        tie_word_embeddings: model.is_tied(),
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
    };
    let path = folder.join("config.json");
    let json = || -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_value(&raw)?;
        json["model_type"] = "gpt2".into();
        json["architectures"] = serde_json::json!(["GPT2LMHeadModel"]);
        // Id 0 is the end-of-text token of a tokeniser trained here.
        json["bos_token_id"] = 0.into();
        json["eos_token_id"] = 0.into();
        serde_json::to_string_pretty(&json)
    };
    let json = json()
        .map_err(|error| ModelError::Config { path: path.clone(), message: error.to_string() })?;
    std::fs::write(&path, json + "\n").map_err(io("write", &path))?;

    let tensors = model
        .parameters()
        .into_iter()
        .map(|parameter| {
            let tensor = parameter.tensor.f_detach()?;
            let tensor = if parameter.transposed { tensor.f_tr()? } else { tensor };
            let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
            Ok((parameter.name, tensor))
        })
        .collect::<Result<Vec<(String, Tensor)>, ModelError>>()?;
    let path = folder.join("model.safetensors");
    let partial = folder.join("model.safetensors.partial");
    Tensor::write_safetensors(&tensors, &partial).map_err(|error| {
        // Half a file is of no use; the error that is reported says what happened.
        let _ = std::fs::remove_file(&partial);
        ModelError::Weights { path: partial.clone(), message: format!("cannot write: {error}") }
    })?;
    std::fs::rename(&partial, &path).map_err(io("rename", &partial))
}
