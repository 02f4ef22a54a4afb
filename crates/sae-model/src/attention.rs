//! Causal multi-head self-attention.
//!
//! `B` batch, `T` context length, `H` heads, `R` rotated dimensions of a head.

use tch::{TchError, Tensor};

use crate::ModelConfig;
use crate::linear::Linear;
use crate::rotary::Angles;

/// Self-attention with one projection for queries, keys and values.
#[derive(Debug)]
pub(crate) struct Attention {
    /// D → (H + 2·KV) · d_head: all heads' queries, then keys, then values.
    pub qkv: Linear,
    /// H · d_head → D.
    pub out: Linear,
    /// Heads.
    pub n_heads: i64,
    /// Heads of keys and values, KV.
    pub n_kv_heads: i64,
    /// Width of a head.
    pub d_head: i64,
    /// What multiplies the scores, where it is not `1 / √d_head`.
    pub scale: Option<f64>,
    /// Positions back that are seen, its own counted.
    pub window: Option<i64>,
}

impl Attention {
    /// The attention of a block.
    pub fn of(config: &ModelConfig, block: usize, qkv: Linear, out: Linear) -> Self {
        Self {
            qkv,
            out,
            n_heads: config.n_heads as i64,
            n_kv_heads: config.n_kv_heads as i64,
            d_head: config.d_head as i64,
            scale: config.score_scale,
            window: config.windows.get(block).copied().flatten().map(|window| window as i64),
        }
    }

    /// What the heads mix, side by side; `[B, H, T, T]` is never stored. Rotary models give the angles of the positions.
    ///
    /// # Shapes
    /// `x: [B, T, D]` → `[B, T, H · d_head]`.
    pub fn mixed(&self, x: &Tensor, angles: Option<&Angles>) -> Result<Tensor, TchError> {
        let (b, t, _) = x.size3()?;
        let (h, kv) = (self.n_heads, self.n_kv_heads);
        // One split, whose backward pass puts the three gradients side by side in one pass.
        let widths = [h, kv, kv].map(|heads| heads * self.d_head);
        let parts = self.qkv.forward(x)?.f_split_with_sizes(widths, 2)?;
        let [queries, keys, values] = &parts[..] else {
            return Err(TchError::Shape("queries, keys and values are three".to_owned()));
        };
        let heads =
            |part: &Tensor, count: i64| part.f_view([b, t, count, self.d_head])?.f_transpose(1, 2);
        let (mut queries, mut keys, values) =
            (heads(queries, h)?, heads(keys, kv)?, heads(values, kv)?);
        if let Some(angles) = angles {
            queries = angles.rotate(&queries)?;
            keys = angles.rotate(&keys)?;
        }
        let mask = match self.window {
            Some(window) if window < t => Some(band(t, window, x.device())?),
            _ => None,
        };
        let mixed = Tensor::f_scaled_dot_product_attention(
            &queries,
            &keys,
            &values,
            mask.as_ref(),
            0.0,
            mask.is_none(),
            self.scale,
            kv != h,
        )?;
        mixed.f_transpose(1, 2)?.f_reshape([b, t, h * self.d_head])
    }
}

/// Position i sees j where `i - window < j ≤ i`.
///
/// # Shapes
/// → `[T, T]`, bool.
fn band(t: i64, window: i64, device: tch::Device) -> Result<Tensor, TchError> {
    let causal = Tensor::f_ones([t, t], (tch::Kind::Bool, device))?.f_tril(0)?;
    causal.f_logical_and(&causal.f_tril(-window)?.f_logical_not()?)
}
