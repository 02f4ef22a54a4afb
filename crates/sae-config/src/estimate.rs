//! What a bank will cost before it runs: tokens, and an upper estimate of memory.

use std::path::Path;

use serde::Deserialize;

use crate::error::read;
use crate::reference::TlensConfig;
use crate::{ConfigError, RunConfig};

/// The sizes of a language model that memory depends on, read from its `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ModelShape {
    /// Layers, L.
    #[serde(alias = "num_hidden_layers", alias = "num_layers")]
    pub n_layer: u64,
    /// d_model, D.
    #[serde(alias = "hidden_size")]
    pub n_embd: u64,
    /// Vocabulary, V.
    pub vocab_size: u64,
    /// Longest context.
    #[serde(alias = "max_position_embeddings")]
    pub n_positions: u64,
}

impl ModelShape {
    /// Reads `config.json` in a model's folder, or, of a checkpoint `.pt` of the reference, `final_config.yaml` beside it.
    pub fn load(model: &Path) -> Result<Self, ConfigError> {
        if model.extension().is_some_and(|extension| extension == "pt") {
            let TlensConfig { n_layers, d_model, d_vocab, n_ctx, .. } =
                TlensConfig::load(&model.with_file_name("final_config.yaml"))?;
            return Ok(Self {
                n_layer: n_layers as u64,
                n_embd: d_model as u64,
                vocab_size: d_vocab as u64,
                n_positions: n_ctx as u64,
            });
        }
        let path = model.join("config.json");
        let text = read(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| ConfigError::parse(&path.display().to_string(), &error))
    }
}

/// Bytes that libtorch, the tokeniser and the data threads take before any tensor.
const BASE: f64 = 524_288_000.0;
/// Logits of a KL chunk, at least a token's; `sae-splice` takes a quarter of it on a CPU.
const KL_CHUNK_LOGITS: f64 = 4_194_304.0;

/// Peak bytes of training a bank of these runs in f32 on a CPU, from above.
///
/// Model weights once; of each SAE its parameters, gradients, Adam's two moments and the last good state (twice while it
/// is replaced); of each member's spliced pass the
/// activations that its backward pass needs; one KL chunk; one SAE's forward and backward at a time.
pub fn peak_bytes(model: ModelShape, runs: &[&RunConfig]) -> f64 {
    let ModelShape { n_layer, n_embd, vocab_size, n_positions } = model;
    let [l, d, v, n_positions] = [n_layer, n_embd, vocab_size, n_positions].map(|n| n as f64);
    let weights = v * d + n_positions * d + 12.0 * l * d * d;
    let Some(first) = runs.first() else { return BASE };
    let tokens = first.train.batch_size.get() as f64 * first.data.context_length.get() as f64;
    let clean = tokens * d * (l + 10.0);
    let members: f64 = runs
        .iter()
        .map(|run| {
            let f = run.n_features(n_embd as usize) as f64;
            let sites = run.sae.sites.len() as f64;
            let start = run.sae.sites.first().map_or(0, |site| site.block as u64);
            let suffix =
                if run.needs_spliced_pass() { n_layer.saturating_sub(start) as f64 } else { 0.0 };
            let parameters = 2.0 * f * d + f + d;
            sites * (6.0 * parameters + 3.0 * tokens * f) + suffix * 24.0 * tokens * d
        })
        .sum();
    let has_kl = runs.iter().any(|run| run.loss.kl.is_some());
    let kl = if has_kl { 6.0 * KL_CHUNK_LOGITS.max(v) } else { 0.0 };
    BASE + 4.0 * (weights + clean + members + kl)
}

/// Tokens that a run trains on.
pub fn training_tokens(run: &RunConfig) -> u64 {
    let samples = run.n_steps().saturating_mul(run.effective_batch_size());
    samples.saturating_mul(run.data.context_length.get() as u64)
}
