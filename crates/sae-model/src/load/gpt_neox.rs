//! GPT-NeoX (Pythia): rotary positions on a part of each head, attention and MLP side by side, an unembedding of its own.

use serde::Deserialize;
use tch::Tensor;

use super::Family;
use super::family::{Json, yes};
use super::weights::Weights;
use crate::attention::Attention;
use crate::config::Positions;
use crate::linear::Linear;
use crate::mlp::Mlp;
use crate::transformer::{Block, Parts};
use crate::{ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "gpt_neox", config, assemble };

#[derive(Debug, Deserialize)]
struct GptNeoxConfig {
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "activation")]
    hidden_act: String,
    #[serde(default = "rotary_pct")]
    rotary_pct: f64,
    #[serde(default = "rotary_emb_base")]
    rotary_emb_base: f64,
    #[serde(default = "yes")]
    use_parallel_residual: bool,
    #[serde(default = "yes")]
    attention_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

fn eps() -> f64 {
    1e-5
}
fn activation() -> String {
    "gelu".to_owned()
}
fn rotary_pct() -> f64 {
    0.25
}
fn rotary_emb_base() -> f64 {
    10_000.0
}

fn config(json: &Json) -> Result<ModelConfig, ModelError> {
    let raw: GptNeoxConfig = json.keys()?;
    let d_head = json.d_head(raw.hidden_size, raw.num_attention_heads)?;
    json.check(ModelConfig {
        d_mlp: raw.intermediate_size,
        norm_eps: raw.layer_norm_eps,
        activation: json.activation(&raw.hidden_act)?,
        positions: Positions::Rotary(json.rotary(d_head, raw.rotary_pct, raw.rotary_emb_base)?),
        parallel_residual: raw.use_parallel_residual,
        ..ModelConfig::gpt2(
            raw.num_hidden_layers,
            raw.hidden_size,
            raw.num_attention_heads,
            raw.max_position_embeddings,
            raw.vocab_size,
        )
    })
}

fn assemble(json: &Json, config: &ModelConfig, weights: &Weights) -> Result<Parts, ModelError> {
    let raw: GptNeoxConfig = json.keys()?;
    let (d, d_mlp) = (config.d_model, config.d_mlp);
    let prefix = weights.prefix("gpt_neox.", "embed_in.weight");
    let token_embedding =
        weights.take(&format!("{prefix}embed_in.weight"), &[config.vocabulary, d])?;
    let mut blocks = Vec::new();
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("{prefix}layers.{index}.{rest}");
        let bias = raw.attention_bias;
        let qkv = weights.linear(&name("attention.query_key_value"), 3 * d, d, bias)?;
        blocks.push(Block {
            norm_1: weights.norm(&name("input_layernorm"), config)?,
            attention: Attention::of(
                config,
                index,
                by_role(&qkv, config)?,
                weights.linear(&name("attention.dense"), d, d, bias)?,
            ),
            norm_2: weights.norm(&name("post_attention_layernorm"), config)?,
            mlp: Mlp {
                up: weights.linear(&name("mlp.dense_h_to_4h"), d_mlp, d, true)?,
                gate: None,
                down: weights.linear(&name("mlp.dense_4h_to_h"), d, d_mlp, true)?,
                activation: config.activation,
            },
        });
    }
    let unembedding = weights.unembedding(
        "embed_out.weight",
        raw.tie_word_embeddings,
        &token_embedding,
        config,
    )?;
    Ok(Parts {
        token_embedding,
        position_embedding: None,
        blocks,
        final_norm: weights.norm(&format!("{prefix}final_layer_norm"), config)?,
        unembedding,
        unembedding_bias: None,
    })
}

/// Stored head by head, each with its queries, keys and values; wanted are all heads' queries, then keys, then values.
fn by_role(stored: &Linear, config: &ModelConfig) -> Result<Linear, ModelError> {
    let (h, d_head) = (config.n_heads as i64, config.d_head as i64);
    let reorder = |tensor: &Tensor, rest: &[i64]| -> Result<Tensor, ModelError> {
        let shape: Vec<i64> = [h, 3, d_head].into_iter().chain(rest.iter().copied()).collect();
        let flat: Vec<i64> = [3 * h * d_head].into_iter().chain(rest.iter().copied()).collect();
        Ok(tensor.f_view(shape.as_slice())?.f_transpose(0, 1)?.f_reshape(flat.as_slice())?)
    };
    let weight = reorder(&stored.weight, &[config.d_model as i64])?;
    let bias = match &stored.bias {
        Some(bias) => Some(reorder(bias, &[])?),
        None => None,
    };
    Ok(Linear { weight, bias })
}
