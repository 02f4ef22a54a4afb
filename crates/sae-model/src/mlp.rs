//! The MLP of a block.

use tch::{TchError, Tensor};

use crate::config::Activation;
use crate::linear::Linear;

/// Up, activation, down.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// D → d_mlp.
    pub up: Linear,
    /// d_mlp → D.
    pub down: Linear,
    /// Between them.
    pub activation: Activation,
}

impl Mlp {
    /// # Shapes
    /// `x: [B, T, D]` → `[B, T, D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let hidden = self.up.forward(x)?;
        let hidden = match self.activation {
            Activation::GeluTanh => hidden.f_gelu("tanh")?,
            Activation::Gelu => hidden.f_gelu("none")?,
            Activation::Relu => hidden.f_relu()?,
        };
        self.down.forward(&hidden)
    }
}
