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
        self.normalized(x, self.weight.as_ref(), self.bias.as_ref())
    }

    /// The norm without its weight and bias.
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., D]`.
    pub fn unscaled(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.normalized(x, None, None)
    }

    /// The part of the norm that is linear: centring, where it centres, and the weight.
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., D]`.
    pub fn direct(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let centred = match self.kind {
            NormKind::Layer => x.f_sub(&x.f_mean_dim([-1].as_slice(), true, None)?)?,
            NormKind::Rms => x.shallow_clone(),
        };
        match &self.weight {
            None => Ok(centred),
            Some(weight) => centred.f_mul(weight),
        }
    }

    /// The weight and bias alone, of what [`Norm::unscaled`] gave.
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., D]`.
    pub fn scale(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let scaled = match &self.weight {
            None => x.shallow_clone(),
            Some(weight) => x.f_mul(weight)?,
        };
        match &self.bias {
            None => Ok(scaled),
            Some(bias) => scaled.f_add(bias),
        }
    }

    fn normalized(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let shape = x.size();
        let width = &shape[shape.len().saturating_sub(1)..];
        match self.kind {
            NormKind::Layer => x.f_layer_norm(width, weight, bias, self.eps, true),
            NormKind::Rms => x.f_rms_norm(width, weight, self.eps),
        }
    }
}
