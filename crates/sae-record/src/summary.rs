//! What a finished run says of itself, `summary.json`: the evaluation, the features, where it came from.
//!
//! Means are over all tokens of the evaluation set unless said otherwise; next-token metrics are over the `B · (T − 1)`
//! positions that have a next token in their window.

use std::collections::BTreeMap;
use std::path::Path;

use sae_config::file::{LONGEST_TEXT, read_text};
use sae_config::{Site, Variant};
use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_json};

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run's id.
    pub id: String,
    /// The type of SAE.
    pub variant: Variant,
    /// Whether it came to its end.
    pub status: Status,
    /// Optimiser steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub training_tokens: u64,
    /// Dictionary elements, by site.
    pub n_features: BTreeMap<Site, u64>,
    /// Features active on at least one of `alive_tokens` tokens of the training data, by site.
    pub alive: BTreeMap<Site, u64>,
    /// Tokens that `alive` is told from.
    pub alive_tokens: u64,
    /// The final evaluation.
    pub evaluation: Evaluation,
    /// What it was computed from; summaries of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
    /// What it was made with.
    pub versions: Versions,
}

/// Fingerprints of what a run was computed from. Results of different inputs do not belong on one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The language model: its configuration and weights as stored.
    pub model: String,
    /// The training data: every shard's length, rows and footer; column and tokeniser.
    pub training: String,
    /// The evaluation data, likewise.
    pub evaluation: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All steps were taken.
    Finished,
    /// The loss became non-finite; the state before is what was evaluated and kept.
    Diverged,
}

/// What a run was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version of this software.
    pub sae: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The version of libtorch that it was built against.
    pub libtorch: String,
    /// The device that it ran on.
    pub device: String,
}

impl Summary {
    /// Reads `summary.json`.
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        let failed = |error: serde_json::Error| RecordError::format(path, error);
        let text = read_text(path, LONGEST_TEXT).map_err(RecordError::file("read", path))?;
        let mut summary: serde_json::Value = serde_json::from_str(&text).map_err(failed)?;
        // Earlier versions wrote one number for all sites.
        if let Some(count) = summary["n_features"].as_u64() {
            let sites = summary["alive"].as_object().into_iter().flat_map(|alive| alive.keys());
            let counts: serde_json::Value = sites.map(|site| (site.clone(), count)).collect();
            summary["n_features"] = counts;
        }
        serde_json::from_value(summary).map_err(failed)
    }

    /// Writes `summary.json`, whole or not at all. It is the last file of a run: with it, the run is finished.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        write_json(path, self)
    }
}

impl Inputs {
    /// Reads `inputs.json`.
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        read_json(path, LONGEST_TEXT)
    }

    /// Writes `inputs.json`, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        write_json(path, self)
    }
}

/// What an evaluation finds of a member. The spliced pass is used whatever the member was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Tokens evaluated on.
    pub tokens: u64,
    /// Active features per token, summed over the SAEs: mean of `‖c‖₀`.
    #[serde(deserialize_with = "number")]
    pub l0: f64,
    /// Next-token cross-entropy of the original model, nats.
    #[serde(deserialize_with = "number")]
    pub ce_original: f64,
    /// The same with the SAEs spliced in.
    #[serde(deserialize_with = "number")]
    pub ce_spliced: f64,
    /// `ce_spliced − ce_original`; above 0 is worse. (The reference logs `difference_ce_loss`, its negative.)
    #[serde(deserialize_with = "number")]
    pub ce_increase: f64,
    /// Cross-entropy with zeros in place of the activations at the SAEs' sites.
    #[serde(deserialize_with = "number")]
    pub ce_zero_ablation: f64,
    /// The same with each site's mean activation.
    #[serde(deserialize_with = "number")]
    pub ce_mean_ablation: f64,
    /// `(ce_zero_ablation − ce_spliced) / (ce_zero_ablation − ce_original)`: 1 is perfect, 0 as bad as zeros.
    #[serde(deserialize_with = "number")]
    pub ce_recovered_zero: f64,
    /// The same against the mean ablation.
    #[serde(deserialize_with = "number")]
    pub ce_recovered_mean: f64,
    /// Mean over all tokens of `KL(original ‖ spliced)`, nats.
    #[serde(deserialize_with = "number")]
    pub kl: f64,
    /// Share of next tokens that the original model ranks first. (The reference compares position t's prediction with
    /// token t, unshifted; this one with token t + 1.)
    #[serde(deserialize_with = "number")]
    pub top1_accuracy_original: f64,
    /// The same with the SAEs.
    #[serde(deserialize_with = "number")]
    pub top1_accuracy_spliced: f64,
    /// Share of tokens at which both models rank the same token first.
    #[serde(deserialize_with = "number")]
    pub top1_agreement: f64,
    /// Mean over all tokens of `½ Σ_v |p_original − p_spliced|`.
    #[serde(deserialize_with = "number")]
    pub statistical_distance: f64,
    /// Each SAE, by its site.
    pub sites: BTreeMap<Site, SiteMetrics>,
    /// Every later `hook_resid_pre`, and the last `hook_resid_post`.
    pub downstream: BTreeMap<Site, DownstreamMetrics>,
}

/// How an SAE reconstructs its input x.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteMetrics {
    /// Active features per token: mean of `‖c‖₀`.
    #[serde(deserialize_with = "number")]
    pub l0: f64,
    /// Mean over all elements of `(x̂ − x)²`.
    #[serde(deserialize_with = "number")]
    pub mse: f64,
    /// `1 − Σ‖x − x̂‖² / Σ‖x − μ‖²`, μ the clean activation's mean over the evaluation set.
    #[serde(deserialize_with = "number")]
    pub explained_variance: f64,
    /// Mean over tokens of `1 − ‖x − x̂‖² / ‖x − μ‖²`. (The reference takes μ over each batch; and for its `out_to_in`
    /// it divides by the variance of x̂.)
    #[serde(deserialize_with = "number")]
    pub explained_variance_per_token: f64,
    /// Mean cosine between x and x̂.
    #[serde(deserialize_with = "number")]
    pub cosine: f64,
    /// Mean of `‖x̂‖ / ‖x‖`.
    #[serde(deserialize_with = "number")]
    pub l2_ratio: f64,
}

/// How close the spliced model's activations stay to the original's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DownstreamMetrics {
    /// Mean over all elements of `(spliced − original)²`.
    #[serde(deserialize_with = "number")]
    pub mse: f64,
    /// `1 − Σ‖original − spliced‖² / Σ‖original − μ‖²`, μ the original's mean over the evaluation set.
    #[serde(deserialize_with = "number")]
    pub explained_variance: f64,
}

/// JSON has no NaN: what is not finite is written as null, and read back as NaN.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::DownstreamMetrics;

    #[test]
    fn what_is_not_finite_survives_json() {
        let metrics = DownstreamMetrics { mse: f64::INFINITY, explained_variance: 0.5 };
        let json = serde_json::to_string(&metrics).unwrap();
        let again: DownstreamMetrics = serde_json::from_str(&json).unwrap();
        assert!(again.mse.is_nan() && (again.explained_variance - 0.5).abs() < 1e-12);
        assert!(serde_json::from_str::<DownstreamMetrics>(r#"{"mse": 1.0}"#).is_err());
    }
}
