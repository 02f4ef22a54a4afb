//! A fixed number of features a token on average over a batch.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OptionError, Options, Sparsity, check_k};

/// The `k · N` largest activations of a micro-batch of N tokens, after a ReLU (Bussmann et al. 2024, arXiv 2412.06410).
/// What is kept depends on the micro-batch, so `train.batch_size` matters, and not `train.effective_batch_size` alone.
/// Evaluation keeps what is above a threshold instead: the running mean (0.99 of the one before, the first value copied) of
/// the smallest activation that was kept in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchTopK {
    /// Features that a token keeps, on average.
    #[schemars(extend("x-unit" = "features"))]
    pub k: NonZeroUsize,
}

impl Options for BatchTopK {
    const SPARSITY: Sparsity = Sparsity::Kept;

    fn check(&self, n_features: Option<usize>) -> Result<(), OptionError> {
        check_k(self.k.get(), n_features)
    }
}
