//! A threshold a feature, trained.

use serde::{Deserialize, Serialize};

use super::{Options, Sparsity};
use crate::Positive;

/// `c = pre · 1[pre > θ]`, `pre = x · w_encᵀ + b_enc`, with a threshold θ > 0 a feature (Rajamanoharan et al. 2024, arXiv
/// 2407.14435). The step has no gradient; that of θ is estimated by a rectangle of width ε around it (their equations 11 and
/// 12): −θ/ε of the feature and −1/ε of the number of active features where `|pre − θ| < ε/2`. `loss.sparsity.p = 0` trains on
/// that number, as they do; with p = 1, θ learns from the reconstruction and the activations.
///
/// Both options are in units of a pre-activation. They take 0.001 for both, on activations scaled to a mean squared norm of 1;
/// here nothing is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JumpRelu {
    /// θ at the beginning, of every feature.
    pub threshold: Positive,
    /// ε.
    pub bandwidth: Positive,
}

impl Options for JumpRelu {
    const SPARSITY: Sparsity = Sparsity::NormOrNumber;
    /// By autograd: the code and its gate, the rectangle, what they are products of.
    const KEPT_TENSORS: f64 = 6.0;
}
