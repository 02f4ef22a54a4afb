//! The paper's dictionary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Options, Sparsity};

/// `c = relu(x · w_encᵀ + b_enc)` (Braun et al. 2024, section 2). It has no options: the sparsity coefficient decides how
/// many features are active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relu {}

impl Options for Relu {
    const SPARSITY: Sparsity = Sparsity::Norm;
}
