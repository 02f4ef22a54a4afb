//! Llama: rotary positions, RMS norms, a gated MLP, several heads a head of keys and values.

use serde::Deserialize;

use super::Family;
use super::family::Json;
use super::weights::{Weights, concatenated};
use crate::attention::Attention;
use crate::config::{NormKind, Positions};
use crate::mlp::Mlp;
use crate::transformer::{Block, Parts};
use crate::{ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "llama", config, assemble };

#[derive(Debug, Deserialize)]
struct LlamaConfig {
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    #[serde(default = "eps")]
    rms_norm_eps: f64,
    #[serde(default = "activation")]
    hidden_act: String,
    #[serde(default = "theta")]
    rope_theta: f64,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

fn eps() -> f64 {
    1e-6
}
fn activation() -> String {
    "silu".to_owned()
}
fn theta() -> f64 {
    10_000.0
}

fn config(json: &Json) -> Result<ModelConfig, ModelError> {
    let raw: LlamaConfig = json.keys()?;
    let d_head = match raw.head_dim {
        Some(d_head) => d_head,
        None => json.d_head(raw.hidden_size, raw.num_attention_heads)?,
    };
    json.check(ModelConfig {
        n_layers: raw.num_hidden_layers,
        d_model: raw.hidden_size,
        n_heads: raw.num_attention_heads,
        n_kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
        d_head,
        d_mlp: raw.intermediate_size,
        context_length: raw.max_position_embeddings,
        vocabulary: raw.vocab_size,
        norm: NormKind::Rms,
        norm_eps: raw.rms_norm_eps,
        activation: json.activation(&raw.hidden_act)?,
        positions: Positions::Rotary(json.rotary(d_head, 1.0, raw.rope_theta)?),
        score_scale: None,
        windows: Vec::new(),
        parallel_residual: false,
    })
}

fn assemble(json: &Json, config: &ModelConfig, weights: &Weights) -> Result<Parts, ModelError> {
    let raw: LlamaConfig = json.keys()?;
    let (d, d_mlp) = (config.d_model, config.d_mlp);
    let prefix = weights.prefix("model.", "embed_tokens.weight");
    let token_embedding =
        weights.take(&format!("{prefix}embed_tokens.weight"), &[config.vocabulary, d])?;
    let mut blocks = Vec::new();
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("{prefix}layers.{index}.{rest}");
        let project = |which: &str, heads: usize| {
            let name = name(&format!("self_attn.{which}_proj"));
            weights.linear(&name, heads * config.d_head, d, raw.attention_bias)
        };
        let (h, kv) = (config.n_heads, config.n_kv_heads);
        let mlp = |which: &str, out: usize, input: usize| {
            weights.linear(&name(&format!("mlp.{which}_proj")), out, input, raw.mlp_bias)
        };
        blocks.push(Block {
            norm_1: weights.norm(&name("input_layernorm"), config)?,
            attention: Attention::of(
                config,
                index,
                concatenated(&[project("q", h)?, project("k", kv)?, project("v", kv)?])?,
                weights.linear(
                    &name("self_attn.o_proj"),
                    d,
                    h * config.d_head,
                    raw.attention_bias,
                )?,
            ),
            norm_2: weights.norm(&name("post_attention_layernorm"), config)?,
            mlp: Mlp {
                up: mlp("up", d_mlp, d)?,
                gate: Some(mlp("gate", d_mlp, d)?),
                down: mlp("down", d, d_mlp)?,
                activation: config.activation,
            },
        });
    }
    let unembedding =
        weights.unembedding("lm_head.weight", raw.tie_word_embeddings, &token_embedding, config)?;
    Ok(Parts {
        token_embedding,
        position_embedding: None,
        blocks,
        final_norm: weights.norm(&format!("{prefix}norm"), config)?,
        unembedding,
        unembedding_bias: None,
    })
}
