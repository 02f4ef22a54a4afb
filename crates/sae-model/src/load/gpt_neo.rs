//! GPT-Neo (TinyStories): GPT-2 with attention that alternates between all positions and a window, scores unscaled,
//! matrices stored `[out, in]`.

use serde::Deserialize;

use super::Family;
use super::family::{Json, yes};
use super::weights::{Weights, concatenated};
use crate::attention::Attention;
use crate::mlp::Mlp;
use crate::transformer::{Block, Parts};
use crate::{ModelConfig, ModelError};

pub(super) const FAMILY: Family = Family { model_type: "gpt_neo", config, assemble };

#[derive(Debug, Deserialize)]
struct GptNeoConfig {
    num_layers: usize,
    hidden_size: usize,
    num_heads: usize,
    #[serde(default)]
    intermediate_size: Option<usize>,
    max_position_embeddings: usize,
    vocab_size: usize,
    #[serde(default = "eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "activation")]
    activation_function: String,
    /// `[[["global", "local"], 4]]`: kinds, and how often they repeat.
    attention_types: Vec<(Vec<String>, usize)>,
    #[serde(default = "window")]
    window_size: usize,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn eps() -> f64 {
    1e-5
}
fn activation() -> String {
    "gelu_new".to_owned()
}
fn window() -> usize {
    256
}

fn config(json: &Json) -> Result<ModelConfig, ModelError> {
    let raw: GptNeoConfig = json.keys()?;
    json.d_head(raw.hidden_size, raw.num_heads)?;
    let kinds = raw.attention_types.iter().flat_map(|(kinds, times)| {
        // More than the layers are an error below, however many they claim to be.
        std::iter::repeat_n(kinds, (*times).min(raw.num_layers + 1)).flatten()
    });
    let windows = kinds
        .take(raw.num_layers + 1)
        .map(|kind| match kind.as_str() {
            "global" => Ok(None),
            "local" if raw.window_size > 0 => Ok(Some(raw.window_size)),
            other => Err(json.failed(format!(
                "attention of kind `{other}` with a window of {}: supported are global, and local with a window above 0",
                raw.window_size
            ))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if windows.len() != raw.num_layers {
        return Err(json.failed(format!(
            "attention_types does not name a kind for each of the {} layers",
            raw.num_layers
        )));
    }
    json.check(ModelConfig {
        d_mlp: raw.intermediate_size.unwrap_or(4 * raw.hidden_size),
        norm_eps: raw.layer_norm_epsilon,
        activation: json.activation(&raw.activation_function)?,
        score_scale: Some(1.0),
        windows,
        ..ModelConfig::gpt2(
            raw.num_layers,
            raw.hidden_size,
            raw.num_heads,
            raw.max_position_embeddings,
            raw.vocab_size,
        )
    })
}

fn assemble(json: &Json, config: &ModelConfig, weights: &Weights) -> Result<Parts, ModelError> {
    let raw: GptNeoConfig = json.keys()?;
    let (d, d_mlp) = (config.d_model, config.d_mlp);
    let prefix = weights.prefix("transformer.", "wte.weight");
    let token_embedding = weights.take(&format!("{prefix}wte.weight"), &[config.vocabulary, d])?;
    let mut blocks = Vec::new();
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("{prefix}h.{index}.{rest}");
        let project = |which: &str| {
            weights.linear(&name(&format!("attn.attention.{which}_proj")), d, d, false)
        };
        blocks.push(Block {
            norm_1: weights.norm(&name("ln_1"), config)?,
            attention: Attention::of(
                config,
                index,
                concatenated(&[project("q")?, project("k")?, project("v")?])?,
                weights.linear(&name("attn.attention.out_proj"), d, d, true)?,
            ),
            norm_2: weights.norm(&name("ln_2"), config)?,
            mlp: Mlp {
                up: weights.linear(&name("mlp.c_fc"), d_mlp, d, true)?,
                gate: None,
                down: weights.linear(&name("mlp.c_proj"), d, d_mlp, true)?,
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
