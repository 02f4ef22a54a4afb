//! Normalisation of the residual stream.

use tch::{TchError, Tensor};

use crate::config::NormKind;

/// A norm over the last dimension, with the weight and bias that are left of it.
#[derive(Debug)]
pub(crate) struct Norm {
    /// What is made 1.
    pub kind: NormKind,
    /// `[D]`; none once it has been folded into what reads the norm.
    pub weight: Option<Tensor>,
    /// `[D]`; layer norms alone have one.
    pub bias: Option<Tensor>,
    /// Added to the variance or mean square.
    pub eps: f64,
}

impl Norm {
    /// # Shapes
    /// `x: [..., D]` → `[..., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let shape = x.size();
        let width = &shape[shape.len().saturating_sub(1)..];
        match self.kind {
            NormKind::Layer => {
                x.f_layer_norm(width, self.weight.as_ref(), self.bias.as_ref(), self.eps, true)
            }
            NormKind::Rms => x.f_rms_norm(width, self.weight.as_ref(), self.eps),
        }
    }
}
