//! A threshold a feature, trained.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OptionError, Options, Sparsity};
use crate::Positive;

/// `c = pre · 1[pre > θ]`, `pre = x · w_encᵀ + b_enc`, with a threshold θ > 0 a feature (Rajamanoharan et al. 2024, arXiv
/// 2407.14435). The step has no gradient; that of θ is estimated by a rectangle of width ε around it (their equations 11 and
/// 12): −θ/ε of the feature and −1/ε of the number of active features where `|pre − θ| < ε/2`. `loss.sparsity.p = 0` trains on
/// that number, as they do; with p = 1, θ learns from the reconstruction and the activations.
///
/// Both options are in units of a pre-activation. They take 0.001 for both, on activations scaled to a mean squared norm of 1;
/// here nothing is scaled. Thresholds and the gate are in single precision at least.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JumpRelu {
    /// θ at the beginning, of every feature.
    #[schemars(extend("x-unit" = "pre-activations"))]
    pub initial_threshold: Positive,
    /// The width ε of the rectangle that estimates the thresholds' gradient.
    #[schemars(extend("x-unit" = "pre-activations"))]
    pub bandwidth: Positive,
}

impl Options for JumpRelu {
    const SPARSITY: Sparsity = Sparsity::NormOrNumber;
    /// Of the pre-activations, the gate, the rectangle and the code, with what autograd makes on the way.
    const KEPT_TENSORS: f64 = 8.0;

    fn check(&self, _: Option<usize>) -> Result<(), OptionError> {
        let options =
            [("initial_threshold", self.initial_threshold), ("bandwidth", self.bandwidth)];
        for (key, value) in options {
            if !(1e-30..=1e30).contains(&value.get()) {
                return Err(OptionError {
                    key,
                    found: value.get().to_string(),
                    expected: "a number from 1e-30 to 1e30, which single precision holds".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The options matter in training alone.
    fn computes_as(&self, _: &Self) -> bool {
        true
    }
}
