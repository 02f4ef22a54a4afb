//! GPT-2: learned positions, layer norms before attention and MLP, tied embeddings, matrices stored `[in, out]`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::weights::Weights;
use crate::attention::Attention;
use crate::config::Activation;
use crate::linear::Linear;
use crate::mlp::Mlp;
use crate::norm::LayerNorm;
use crate::transformer::Block;
use crate::{ModelConfig, ModelError, Transformer};

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
fn yes() -> bool {
    true
}

pub(super) fn load(
    folder: &Path,
    config_path: &Path,
    json: serde_json::Value,
    device: Device,
    kind: Kind,
) -> Result<Transformer, ModelError> {
    let failed = |message: String| ModelError::Config { path: config_path.to_owned(), message };
    let raw: Gpt2Config =
        serde_json::from_value(json).map_err(|error| failed(error.to_string()))?;
    let activation = match raw.activation_function.as_str() {
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "relu" => Activation::Relu,
        other => {
            return Err(failed(format!(
                "activation_function is `{other}`, supported are gelu_new, gelu_pytorch_tanh, gelu, relu"
            )));
        }
    };
    if !raw.scale_attn_weights || raw.scale_attn_by_inverse_layer_idx {
        return Err(failed(
            "unscaled attention scores, or scores scaled by layer, are not supported for gpt2"
                .into(),
        ));
    }
    if raw.n_layer == 0
        || raw.n_head == 0
        || raw.n_embd == 0
        || !raw.n_embd.is_multiple_of(raw.n_head)
    {
        return Err(failed(format!(
            "{} layers, n_embd {} and {} heads: all must be above 0 and the heads divide n_embd",
            raw.n_layer, raw.n_embd, raw.n_head
        )));
    }
    let config = ModelConfig {
        n_layers: raw.n_layer,
        d_model: raw.n_embd,
        n_heads: raw.n_head,
        d_mlp: raw.n_inner.unwrap_or(4 * raw.n_embd),
        context_length: raw.n_positions,
        vocabulary: raw.vocab_size,
        layer_norm_eps: raw.layer_norm_epsilon,
        activation,
    };
    let weights = Weights::read(&folder.join("model.safetensors"), device, kind)?;
    assemble(config, weights, raw.tie_word_embeddings)
}

fn assemble(
    config: ModelConfig,
    mut weights: Weights,
    tied: bool,
) -> Result<Transformer, ModelError> {
    let (d, v) = (config.d_model, config.vocabulary);
    // GPT2LMHeadModel writes a prefix, GPT2Model (and the hub's gpt2) does not.
    let prefix = if weights.has("transformer.wte.weight") { "transformer." } else { "" };
    let token_embedding = weights.take(&format!("{prefix}wte.weight"), &[v, d])?;
    let position_embedding =
        weights.take(&format!("{prefix}wpe.weight"), &[config.context_length, d])?;
    let norm = |weights: &mut Weights, name: &str| -> Result<LayerNorm, ModelError> {
        Ok(LayerNorm {
            weight: weights.take(&format!("{name}.weight"), &[d])?,
            bias: weights.take(&format!("{name}.bias"), &[d])?,
            eps: config.layer_norm_eps,
        })
    };
    let linear = |weights: &mut Weights, name: &str, out, input| -> Result<Linear, ModelError> {
        Ok(Linear {
            weight: weights.take_transposed(&format!("{name}.weight"), out, input)?,
            bias: Some(weights.take(&format!("{name}.bias"), &[out])?),
        })
    };
    let mut blocks = Vec::with_capacity(config.n_layers);
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("{prefix}h.{index}.{rest}");
        blocks.push(Block {
            norm_1: norm(&mut weights, &name("ln_1"))?,
            attention: Attention {
                qkv: linear(&mut weights, &name("attn.c_attn"), 3 * d, d)?,
                out: linear(&mut weights, &name("attn.c_proj"), d, d)?,
                n_heads: config.n_heads as i64,
            },
            norm_2: norm(&mut weights, &name("ln_2"))?,
            mlp: Mlp {
                up: linear(&mut weights, &name("mlp.c_fc"), config.d_mlp, d)?,
                down: linear(&mut weights, &name("mlp.c_proj"), d, config.d_mlp)?,
                activation: config.activation,
            },
        });
    }
    let final_norm = norm(&mut weights, &format!("{prefix}ln_f"))?;
    let unembedding = if tied {
        token_embedding.shallow_clone()
    } else {
        weights.take("lm_head.weight", &[v, d])?
    };
    Ok(Transformer::new(
        config,
        token_embedding,
        position_embedding,
        blocks,
        final_norm,
        unembedding,
    ))
}

pub(super) fn save(model: &Transformer, folder: &Path, kind: Kind) -> Result<(), ModelError> {
    let config = model.config();
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
        layer_norm_epsilon: config.layer_norm_eps,
        activation_function: match config.activation {
            Activation::GeluTanh => "gelu_new",
            Activation::Gelu => "gelu",
            Activation::Relu => "relu",
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
