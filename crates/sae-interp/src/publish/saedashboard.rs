//! Features as SAEDashboard writes them for Neuronpedia: `run_settings.json`, `skipped_indexes.json` and `batch-N.json`.
//!
//! The form is that of `sae-dashboard` 0.8.0 (`neuronpedia_dashboard.py`, `neuronpedia_converter.py`): values have three decimals; the
//! windows of the highest activations have −1 as `bin_min` and `bin_contains`, and the greatest activation as `bin_max`; those of an
//! interval its ends and the share of tokens in it. What a dashboard here has not (the histogram of logits, correlations by Pearson)
//! is left empty, as there.

use std::path::Path;

use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard};
use serde_json::{Value, json};

use super::PublishError;
use super::neuronpedia::SourceName;

/// Intervals of a feature's activation that windows are drawn from.
const INTERVALS: u8 = 5;
/// Largest entries of a dictionary element that are named.
const ALIGNED: usize = 3;

/// A feature and what is written of it.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// What it is.
    pub card: &'a FeatureCard,
    /// The windows that it is active in.
    pub examples: Vec<ExampleRecord>,
    /// Its dictionary element, `[D]`, of unit length; empty where it is not known.
    pub element: Vec<f32>,
}

/// The settings of a run, as SAEDashboard names them.
pub fn settings(dashboard: &Dashboard, source: &SourceName, batch: usize) -> Value {
    let gathered = &dashboard.gathered;
    json!({
        "sae_set": source.set,
        "np_set_name": source.set,
        "model_id": source.model,
        "layer": source.layer,
        "huggingface_dataset_path": data_name(dashboard),
        "n_prompts_total": gathered.tokens / gathered.context_length.max(1),
        "n_tokens_in_prompt": gathered.context_length,
        "n_features_at_a_time": batch,
        "n_quantiles": INTERVALS,
    })
}

/// The features that were never active.
pub fn skipped(dashboard: &Dashboard, source: &SourceName) -> Value {
    let is_active = |feature: &u64| {
        u32::try_from(*feature).is_ok_and(|feature| dashboard.card(feature).is_some())
    };
    let skipped: Vec<u64> =
        (0..dashboard.gathered.n_features).filter(|feature| !is_active(feature)).collect();
    json!({
        "model_id": source.model,
        "layer": source.layer.to_string(),
        "sae_set": source.set,
        "log_sparsity": Value::Null,
        "skipped_indexes": skipped,
    })
}

/// A batch of features.
pub fn batch(dashboard: &Dashboard, source: &SourceName, features: &[Shown<'_>]) -> Value {
    json!({
        "model_id": source.model,
        "layer": source.layer,
        "sae_set": source.set,
        "sae_id_suffix": Value::Null,
        "features": features.iter().map(|own| feature(dashboard, own)).collect::<Vec<_>>(),
    })
}

/// The name of the data; of a place on this machine its last part.
fn data_name(dashboard: &Dashboard) -> String {
    let data = &dashboard.gathered.data;
    let local = || Path::new(data).file_name().map(|name| name.to_string_lossy().into_owned());
    if data.starts_with("hf://") { data.clone() } else { local().unwrap_or_default() }
}

fn feature(dashboard: &Dashboard, shown: &Shown<'_>) -> Value {
    let (card, gathered) = (shown.card, &dashboard.gathered);
    let text = |token: u32| dashboard.text(token).to_owned();
    let names = |tokens: &[sae_record::dashboard::LensToken]| -> Vec<String> {
        tokens.iter().map(|own| text(own.token)).collect()
    };
    let values = |tokens: &[sae_record::dashboard::LensToken]| -> Vec<f64> {
        tokens.iter().map(|own| rounded(f64::from(own.logit))).collect()
    };
    let sum: f64 = shown.element.iter().map(|own| f64::from(own.abs())).sum();
    let mut largest: Vec<(usize, f64)> =
        shown.element.iter().map(|own| f64::from(*own)).enumerate().collect();
    largest.sort_by(|a, b| b.1.total_cmp(&a.1));
    largest.truncate(ALIGNED);
    let used = card.histogram.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    let middle = |bin: usize| rounded((bin as f64 + 0.5) * f64::from(card.histogram_width));
    let empty = Vec::<f64>::new;
    json!({
        "feature_index": card.feature,
        "neuron_alignment_indices": largest.iter().map(|(place, _)| place).collect::<Vec<_>>(),
        "neuron_alignment_values": largest.iter().map(|(_, own)| rounded(*own)).collect::<Vec<_>>(),
        "neuron_alignment_l1":
            largest.iter().map(|(_, own)| rounded(own.abs() / sum)).collect::<Vec<_>>(),
        "correlated_neurons_indices": empty(),
        "correlated_neurons_l1": empty(),
        "correlated_neurons_pearson": empty(),
        "correlated_features_indices": empty(),
        "correlated_features_l1": empty(),
        "correlated_features_pearson": empty(),
        "neg_str": names(&card.lowest),
        "neg_values": values(&card.lowest),
        "pos_str": names(&card.highest),
        "pos_values": values(&card.highest),
        "frac_nonzero": card.density,
        "freq_hist_data_bar_values": (0..used).map(middle).collect::<Vec<_>>(),
        "freq_hist_data_bar_heights": card.histogram[..used],
        "logits_hist_data_bar_heights": empty(),
        "logits_hist_data_bar_values": empty(),
        "n_prompts_total": gathered.tokens / gathered.context_length.max(1),
        "n_tokens_in_prompt": gathered.context_length,
        "dataset": data_name(dashboard),
        "decoder_weights_dist": empty(),
        "activations":
            shown.examples.iter().map(|own| activation(dashboard, card, own)).collect::<Vec<_>>(),
        "vector": shown.element,
    })
}

fn activation(dashboard: &Dashboard, card: &FeatureCard, example: &ExampleRecord) -> Value {
    let (low, high, share) = match bounds(card, example.interval) {
        Some([low, high]) => (low, high, share(card, dashboard.gathered.tokens, low, high)),
        None => (-1.0, f64::from(card.max), -1.0),
    };
    json!({
        "bin_min": rounded(low),
        "bin_max": rounded(high),
        "bin_contains": share,
        "tokens": tokens(dashboard, example),
        "values": values(example),
        "qualifying_token_index": example.position,
    })
}

/// The ends of the interval that a window was drawn from; none of the highest.
pub(super) fn bounds(card: &FeatureCard, interval: Option<u8>) -> Option<[f64; 2]> {
    let width = f64::from(card.max) / f64::from(INTERVALS);
    interval.map(|number| [f64::from(number) * width, f64::from(number + 1) * width])
}

/// The share of all tokens on which a feature is active within an interval, from its histogram: within a bin as if evenly.
pub(super) fn share(card: &FeatureCard, tokens: u64, low: f64, high: f64) -> f64 {
    let width = f64::from(card.histogram_width);
    let counted: f64 = card
        .histogram
        .iter()
        .enumerate()
        .map(|(bin, &count)| {
            let (from, to) = (bin as f64 * width, (bin as f64 + 1.0) * width);
            // The last bin that has any ends at the greatest activation.
            let to = to.min(f64::from(card.max)).max(from + f64::EPSILON);
            let within = (high.min(to) - low.max(from)).max(0.0);
            count as f64 * (within / (to - from)).min(1.0)
        })
        .sum();
    (counted / tokens.max(1) as f64).clamp(0.0, 1.0)
}

/// The texts of a window's tokens; none is empty.
pub(super) fn tokens(dashboard: &Dashboard, example: &ExampleRecord) -> Vec<String> {
    example.tokens.iter().map(|&token| text(dashboard, token)).collect()
}

pub(super) fn text(dashboard: &Dashboard, token: u32) -> String {
    match dashboard.text(token) {
        "" => "\u{fffd}".to_owned(),
        text => text.to_owned(),
    }
}

/// Activations with three decimals.
pub(super) fn values(example: &ExampleRecord) -> Vec<f64> {
    example.activations.iter().map(|own| rounded(f64::from(*own))).collect()
}

/// Three decimals; what is no number is 0.
pub(super) fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1e3).round() / 1e3 } else { 0.0 }
}

/// Writes a file of JSON, whole or not at all.
pub(super) fn write(folder: &Path, name: &str, value: &Value) -> Result<(), PublishError> {
    let path = folder.join(name);
    let text = value.to_string();
    sae_config::file::write_atomically(&path, text.as_bytes())
        .map_err(PublishError::file("write", &path))
}
