//! Nested dictionaries, each a prefix of the next.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OptionError, Options, Sparsity, check_k};
use crate::Fraction;

/// BatchTopK with nested prefixes of the dictionary, each of which reconstructs by itself (Bussmann et al. 2025, arXiv
/// 2503.17547, who choose the features as here, over the whole dictionary, and sum the errors of the prefixes, where here
/// their mean is taken). Terms that compare the reconstruction at the site are means over the prefixes. Terms of the spliced
/// model (KL, downstream) would need a spliced pass for each prefix; `spliced` says which are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matryoshka {
    /// Features that a token keeps, on average.
    #[schemars(extend("x-unit" = "features"))]
    pub k: NonZeroUsize,
    /// The prefixes as shares of the dictionary, rising; the whole is added where it is missing.
    #[serde(default = "shares")]
    pub prefixes: Vec<Fraction>,
    /// Which prefixes are spliced into the model in training. (Evaluation splices the whole dictionary.)
    #[serde(default)]
    pub spliced: SplicedPrefixes,
}

/// Which prefixes of a dictionary are spliced into the model in a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplicedPrefixes {
    /// One, drawn anew for every micro-batch from the run's seed: in expectation the gradients of `all`, for one pass.
    #[default]
    Drawn,
    /// All, a pass each; their terms are means over the prefixes.
    All,
}

/// 1/16, 1/8, 1/4, 1/2, 1.
fn shares() -> Vec<Fraction> {
    [0.0625, 0.125, 0.25, 0.5, 1.0].into_iter().filter_map(|x| Fraction::try_from(x).ok()).collect()
}

impl Options for Matryoshka {
    const SPARSITY: Sparsity = Sparsity::Kept;

    fn check(&self, n_features: Option<usize>) -> Result<(), OptionError> {
        let invalid = |found: String, expected: &str| {
            Err(OptionError { key: "prefixes", found, expected: expected.to_owned() })
        };
        let shares: Vec<f64> = self.prefixes.iter().map(|share| share.get()).collect();
        if shares.first().is_none_or(|first| *first <= 0.0) {
            return invalid(format!("{shares:?}"), "a prefix has elements: shares above 0");
        }
        if let Some([a, b]) = shares.array_windows().find(|[a, b]| a >= b) {
            return invalid(format!("{a}, {b}"), "prefixes rise");
        }
        check_k(self.k.get(), n_features)
    }

    fn spliced(&self) -> SplicedPrefixes {
        self.spliced
    }

    fn prefixes(&self, n_features: usize) -> Vec<usize> {
        let end = |share: &Fraction| (share.get() * n_features as f64).round() as usize;
        let mut ends: Vec<usize> = self.prefixes.iter().map(end).collect();
        ends.push(n_features);
        ends.retain(|end| (1..=n_features).contains(end));
        ends.dedup();
        ends
    }
}
