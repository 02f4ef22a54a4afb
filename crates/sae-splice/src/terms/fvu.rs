//! Fraction of variance unexplained, `Σ‖x̂ − x‖² / Σ‖x − μ‖²`, x being the activation that is replaced, μ its mean over the
//! micro-batch: what sparsify trains on. One coefficient suits sites whose activations differ in size. The denominator is
//! detached, as μ is.

use sae_nn::loss;
use tch::{Kind, Tensor, no_grad};

use super::{AtSplicePoint, Term};
use crate::SpliceError;

#[derive(Debug)]
pub(super) struct Fvu;

impl Term for Fvu {
    fn at_splice_point(&self, at: &AtSplicePoint<'_>) -> Result<Option<Tensor>, SpliceError> {
        let variance = no_grad(|| variance(at.target))?;
        let fvu =
            |reconstruction: &Tensor| Ok(loss::mse(reconstruction, at.target)?.f_div(&variance)?);
        at.mean(fvu).map(Some)
    }
}

/// `[B, T, D]` → scalar: the mean over all elements of `(x − μ)²`, above 0.
fn variance(x: &Tensor) -> Result<Tensor, SpliceError> {
    let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let mean = x.f_mean_dim([0_i64, 1].as_slice(), true, kind)?;
    Ok(x.f_sub(&mean)?.f_square()?.f_mean(kind)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)
}
