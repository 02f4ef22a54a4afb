//! What a measurement of activations finds: of the model at a site, and of a run's SAEs there; for the analysis.
//!
//! `T` positions of a window, `P` principal directions.

use std::collections::BTreeMap;
use std::path::Path;

use sae_config::Site;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_text};

/// The names of the model's and the evaluation data's fingerprints in [`Measured::of`].
pub const MODEL: &str = "model";
/// The same of the evaluation data.
pub const EVALUATION: &str = "evaluation";

/// The longest measurement, in bytes: a few numbers a position of the window.
const LONGEST: u64 = 4 << 30;

/// A measurement, and what it was computed from: it is taken up again only where that is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured<T> {
    /// Fingerprints of all that the values depend on, by name.
    pub of: BTreeMap<String, String>,
    /// What was measured.
    pub values: T,
}

impl<T: Serialize + DeserializeOwned> Measured<T> {
    /// Reads a measurement; none where there is no file.
    pub fn load(path: &Path) -> Result<Option<Self>, RecordError> {
        if path.exists() { read_json(path, LONGEST).map(Some) } else { Ok(None) }
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        let text = serde_json::to_string(self).map_err(RecordError::file("write", path))?;
        write_text(path, &text)
    }
}

/// The clean activations x at a site, over an evaluation set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteActivations {
    /// Tokens measured on.
    pub tokens: u64,
    /// Mean of `‖x‖` at every position, T numbers.
    pub norm: Vec<f64>,
    /// The principal directions of all tokens' activations, the one with the most variance first.
    pub directions: Vec<Direction>,
    /// Mean over random directions of what resampling costs: what a direction of no importance costs.
    pub random_resampling_kl: f64,
    /// The direction of the mean activation at the first position, D numbers, of unit length.
    pub first_position: Vec<f64>,
    /// Tokens by `u · x` along the first principal direction, apart by what they are.
    pub along_first: Vec<TokensAlong>,
}

/// Tokens of a kind by their component along a direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokensAlong {
    /// What they are: at the first position, the end of a text elsewhere, others.
    pub kind: String,
    /// The least and the greatest component, between which the bins are evenly spaced.
    pub range: [f64; 2],
    /// Tokens in each bin.
    pub counts: Vec<u64>,
}

/// A principal direction, a unit vector u.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Its share of the total variance.
    pub variance_share: f64,
    /// u itself, D numbers.
    pub vector: Vec<f64>,
    /// Mean of `u · (x − mean x)` at every position, T numbers.
    pub by_position: Vec<f64>,
    /// `KL(resampled ‖ original)` in nats a token when every token's component along u is replaced by another token's
    /// (a seeded permutation of each batch; the first position, often an outlier, keeps its own). The direction is the
    /// paper's: its `kl_div(new, old)` is KL(old ‖ new), called with the original logits first. All other KL divergences
    /// of this software are KL(original ‖ changed).
    pub resampling_kl: f64,
}

/// A run's SAEs, by site.
pub type RunActivations = BTreeMap<Site, SaeActivations>;

/// What an SAE makes of the activations at its site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeActivations {
    /// Mean of `‖x̂‖ / ‖x‖` at every position, T numbers.
    pub norm_ratio: Vec<f64>,
    /// Mean cosine between x and x̂ at every position, T numbers.
    pub cosine: Vec<f64>,
    /// `1 − Σ (u · (x − x̂))² / Σ (u · (x − mean x))²` along every principal direction, P numbers.
    pub explained_variance: Vec<f64>,
    /// Pearson's correlation of `u · x` and `u · x̂` along every principal direction over the tokens after the first position, P
    /// numbers; none where one of them does not vary.
    pub correlation: Vec<Option<f64>>,
    /// Mean of `u · (x̂ − mean x)` at every position along the first principal directions, T numbers each.
    pub reconstructed_by_position: Vec<Vec<f64>>,
    /// Tokens by the cosine between x and x̂, in bins evenly spaced from −1 to 1.
    pub cosines: Vec<u64>,
    /// `‖x‖` and `‖x̂‖` of some tokens, an even sample.
    pub norms: Vec<[f64; 2]>,
}
