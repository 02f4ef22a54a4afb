//! Causal multi-head self-attention.

use tch::{TchError, Tensor};

use crate::linear::Linear;

/// Self-attention with one projection for queries, keys and values.
#[derive(Debug)]
pub(crate) struct Attention {
    /// D → 3 D: queries, keys, values.
    pub qkv: Linear,
    /// D → D.
    pub out: Linear,
    /// Heads, H.
    pub n_heads: i64,
}

impl Attention {
    /// Scores are scaled by `1 / √(D / H)`; `[B, H, T, T]` is never stored.
    ///
    /// # Shapes
    /// `x: [B, T, D]` → `[B, T, D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, t, d) = x.size3()?;
        let heads = self.qkv.forward(x)?.f_view([b, t, 3, self.n_heads, d / self.n_heads])?;
        let head = |which: i64| heads.f_select(2, which)?.f_transpose(1, 2);
        let mixed = Tensor::f_scaled_dot_product_attention(
            &head(0)?,
            &head(1)?,
            &head(2)?,
            None::<&Tensor>,
            0.0,
            true,
            None,
            false,
        )?;
        self.out.forward(&mixed.f_transpose(1, 2)?.f_reshape([b, t, d])?)
    }
}
