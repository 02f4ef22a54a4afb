//! The terms of the loss, at unit coefficient. All are means over tokens.
//!
//! Formulas as in the reference, `e2e_sae/losses.py`; a configuration's names in brackets.

mod kl;

use tch::{Kind, Reduction, Tensor};

use crate::SaeError;

pub use kl::{KlTerm, kl_without_logits};

/// `mean_n ‖c_n‖_p / D` (`sparsity`).
///
/// # Shapes
/// `features: [..., F]` → scalar.
pub fn sparsity(features: &Tensor, p: f64, d_model: usize) -> Result<Tensor, SaeError> {
    // Features are never negative, so the 1-norm is their sum.
    #[allow(clippy::float_cmp)]
    let norms = if p == 1.0 {
        features.f_sum_dim_intlist([-1_i64].as_slice(), false, wide(features))?
    } else {
        features.f_to_kind(wide(features))?.f_norm_scalaropt_dim(p, [-1], false)?
    };
    Ok(norms.f_mean(None)?.f_div_scalar(d_model as f64)?)
}

/// Mean over all elements of `(a − b)²`: `local` (`out_to_in`), `output` (`out_to_orig`) and, at each site, `downstream`
/// (`in_to_orig`). Neither side is detached.
///
/// # Shapes
/// `a, b: [..., D]` → scalar.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor, SaeError> {
    let kind = wide(a);
    Ok(a.f_to_kind(kind)?.f_mse_loss(&b.f_to_kind(kind)?, Reduction::Mean)?)
}

/// The precision that sums are taken in: single at least.
pub(crate) fn wide(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}
