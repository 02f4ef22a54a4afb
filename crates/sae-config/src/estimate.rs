//! What a bank will cost before it runs: tokens, and an upper estimate of memory.

use std::path::Path;

use serde::Deserialize;

use crate::error::read;
use crate::loss::Scope;
use crate::reference::TlensConfig;
use crate::run::Precision;
use crate::{ConfigError, RunConfig, Site, SiteKind};

/// The sizes of a language model that memory depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Layers, L.
    pub n_layers: u64,
    /// Width of the residual stream, D.
    pub d_model: u64,
    /// Width of the MLPs' hidden layers.
    pub d_mlp: u64,
    /// Vocabulary, V.
    pub vocabulary: u64,
    /// Numbers in all parameters.
    pub n_parameters: u64,
}

/// What of `config.json` matters here, by the names that families give it.
#[derive(Debug, Deserialize)]
struct ConfigJson {
    #[serde(alias = "num_hidden_layers", alias = "num_layers")]
    n_layer: u64,
    #[serde(alias = "hidden_size")]
    n_embd: u64,
    vocab_size: u64,
    #[serde(alias = "max_position_embeddings")]
    n_positions: u64,
}

impl ModelShape {
    /// The shape of a GPT-2 of these sizes, as an estimate for other families too: their blocks have about as many
    /// parameters.
    pub fn gpt2(n_layers: u64, d_model: u64, vocabulary: u64, context_length: u64) -> Self {
        let of_blocks = n_layers.saturating_mul(12).saturating_mul(d_model.saturating_pow(2));
        let of_embeddings = vocabulary.saturating_add(context_length).saturating_mul(d_model);
        let n_parameters = of_blocks.saturating_add(of_embeddings);
        let d_mlp = d_model.saturating_mul(4);
        Self { n_layers, d_model, d_mlp, vocabulary, n_parameters }
    }

    /// Reads `config.json` in a model's folder, or, of a checkpoint `.pt` of the reference, `final_config.yaml` beside it.
    pub fn load(model: &Path) -> Result<Self, ConfigError> {
        if model.extension().is_some_and(|extension| extension == "pt") {
            let TlensConfig { n_layers, d_model, d_vocab, n_ctx, .. } =
                TlensConfig::load(&model.with_file_name("final_config.yaml"))?;
            let [n_layers, d_model, d_vocab, n_ctx] =
                [n_layers, d_model, d_vocab, n_ctx].map(|n| n as u64);
            return Ok(Self::gpt2(n_layers, d_model, d_vocab, n_ctx));
        }
        let path = model.join("config.json");
        let text = read(&path)?;
        let ConfigJson { n_layer, n_embd, vocab_size, n_positions } =
            serde_json::from_str(&text)
                .map_err(|error| ConfigError::parse(&path.display().to_string(), &error))?;
        Ok(Self::gpt2(n_layer, n_embd, vocab_size, n_positions))
    }
}

/// A user of memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryUse {
    /// What takes it.
    pub what: String,
    /// Bytes, from above.
    pub bytes: f64,
}

/// Bytes that libtorch, the tokeniser and the data threads take before any tensor.
const BASE: f64 = 524_288_000.0;
/// Logits of a KL chunk, at least a token's; `sae-splice` takes a quarter of it on a CPU.
const KL_CHUNK_LOGITS: f64 = 4_194_304.0;
/// Copies of an SAE's parameters: themselves, gradients, Adam's two moments, and the last good state, twice while it is
/// replaced.
const COPIES: f64 = 6.0;
/// Activations as wide as the residual stream that the backward pass of a block needs: 16 by count, and slack.
const ACTIVATIONS: f64 = 24.0;

/// Dictionary elements of every dictionary of a run, with the widths that it reads and writes.
fn dictionaries(model: ModelShape, run: &RunConfig) -> impl Iterator<Item = [f64; 3]> {
    run.placements().map(move |(reads, writes)| {
        let width = |site: Site| match site.kind {
            SiteKind::MlpPost => model.d_mlp,
            _ => model.d_model,
        };
        let features = run.n_features(width(reads) as usize);
        [features as f64, width(reads) as f64, width(writes) as f64]
    })
}

/// Bytes of the parameters of all dictionaries of these runs and of what is kept beside each of them.
pub fn parameter_bytes(model: ModelShape, runs: &[&RunConfig]) -> f64 {
    let of_run = |run: &&RunConfig| {
        let skip = f64::from(u8::from(run.sae.skip));
        let numbers =
            dictionaries(model, run).map(|[f, d, e]| f * d + f + f * e + e + skip * d * e);
        COPIES * full_bytes(run.train.precision) * numbers.sum::<f64>()
    };
    runs.iter().map(of_run).sum()
}

/// What training a bank of these runs needs memory for at its peak, from above: the model once; the SAEs with their
/// optimisers; feature activations of all members, and one SAE's gradients at a time; of each member's spliced pass the
/// activations that its backward pass needs; one KL chunk.
pub fn memory_uses(model: ModelShape, runs: &[&RunConfig]) -> Vec<MemoryUse> {
    let Some(first) = runs.first() else { return Vec::new() };
    let (full, low) = (full_bytes(first.train.precision), low_bytes(first.train.precision));
    let [layers, d, v] = [model.n_layers, model.d_model, model.vocabulary].map(|n| n as f64);
    let n = first.train.batch_size.get() as f64 * first.data.context_length.get() as f64;
    let passes = |run: &RunConfig| {
        let of_features = |[f, ..]: [f64; 3]| run.sae.architecture.spliced_passes(f as usize);
        let most = dictionaries(model, run).map(of_features).max().unwrap_or(1);
        if run.scope() > Scope::Dictionary { most as f64 } else { 1.0 }
    };
    let of_run = |run: &RunConfig| dictionaries(model, run).map(|[f, ..]| f).sum::<f64>();
    let kept = |run: &RunConfig| of_run(run) * run.sae.architecture.kept_tensors() * passes(run);
    let features: f64 = runs.iter().map(|run| kept(run)).sum();
    let largest = runs.iter().map(|run| of_run(run)).fold(0.0, f64::max);
    let blocks = |run: &RunConfig| {
        let start = run.placements().map(|(reads, _)| reads.block as u64).min().unwrap_or(0);
        match (run.scope() > Scope::Dictionary, run.train.recompute) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => model.n_layers.saturating_sub(start) as f64 * passes(run),
        }
    };
    let blocks: f64 = runs.iter().map(|run| blocks(run)).sum();
    let mut uses = vec![
        ("libtorch, the tokeniser and the data".to_owned(), BASE),
        ("the language model".to_owned(), low * model.n_parameters as f64),
        ("activations of the clean pass".to_owned(), low * n * d * (layers + 10.0)),
        (
            "parameters, gradients, moments and the kept copies of the SAEs".to_owned(),
            parameter_bytes(model, runs),
        ),
        (
            format!("feature activations of {n} tokens and their gradients"),
            low * n * (features + 2.0 * largest),
        ),
        (
            format!("activations of {blocks} blocks after the SAEs of all runs"),
            low * n * d * ACTIVATIONS * blocks,
        ),
    ];
    if runs.iter().any(|run| run.scope() == Scope::Output) {
        let logits = 6.0 * full * KL_CHUNK_LOGITS.max(v);
        uses.push(("logits of the KL divergence".to_owned(), logits));
    }
    uses.into_iter().map(|(what, bytes)| MemoryUse { what, bytes }).collect()
}

/// Peak bytes of training a bank of these runs, from above.
pub fn peak_bytes(model: ModelShape, runs: &[&RunConfig]) -> f64 {
    memory_uses(model, runs).iter().map(|used| used.bytes).sum()
}

/// Bytes of a parameter.
fn full_bytes(precision: Precision) -> f64 {
    if precision == Precision::F64 { 8.0 } else { 4.0 }
}

/// Bytes of an activation.
fn low_bytes(precision: Precision) -> f64 {
    if precision == Precision::Bf16 { 2.0 } else { full_bytes(precision) }
}

/// Tokens that a run trains on.
pub fn training_tokens(run: &RunConfig) -> u64 {
    let samples = run.n_steps().saturating_mul(run.effective_batch_size());
    samples.saturating_mul(run.data.context_length.get() as u64)
}
