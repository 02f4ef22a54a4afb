//! Normalisation of the residual stream.

use tch::{TchError, Tensor};

/// Layer norm with weight and bias over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    /// `[D]`.
    pub weight: Tensor,
    /// `[D]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// # Shapes
    /// `x: [..., D]` → `[..., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}
