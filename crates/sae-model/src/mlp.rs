//! The MLP of a block.

use tch::{TchError, Tensor};

use crate::config::Activation;
use crate::linear::Linear;

/// Up, activation, down; or, with a gate, `down(activation(gate(x)) · up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// D → d_mlp.
    pub up: Linear,
    /// D → d_mlp.
    pub gate: Option<Linear>,
    /// d_mlp → D.
    pub down: Linear,
    /// Of the gate where there is one, else of `up`.
    pub activation: Activation,
}

impl Mlp {
    /// The hidden layer after the activation function (and gate).
    ///
    /// # Shapes
    /// `x: [B, T, D]` → `[B, T, d_mlp]`.
    pub fn hidden(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let up = self.up.forward(x)?;
        match &self.gate {
            None => self.activate(&up),
            Some(gate) => self.activate(&gate.forward(x)?)?.f_mul(&up),
        }
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self.activation {
            Activation::GeluTanh => x.f_gelu("tanh"),
            Activation::Gelu => x.f_gelu("none"),
            Activation::Relu => x.f_relu(),
            Activation::Silu => x.f_silu(),
        }
    }
}
