//! A fixed number of features a token.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OptionError, Options, Sparsity, check_k};

/// The `k` largest pre-activations of every token, after a ReLU, so that fewer are active where fewer are above 0
/// (Makhzani and Frey 2013; Gao et al. 2024, arXiv 2406.04093, who apply no ReLU at first; SAELens applies it after, as
/// here, and sparsify before).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopK {
    /// Features that a token keeps, at most.
    #[schemars(extend("x-unit" = "features"))]
    pub k: NonZeroUsize,
}

impl Options for TopK {
    const SPARSITY: Sparsity = Sparsity::Kept;

    fn check(&self, n_features: Option<usize>) -> Result<(), OptionError> {
        check_k(self.k.get(), n_features)
    }
}
