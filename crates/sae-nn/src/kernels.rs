//! The kernels of `sae-kernels` on tensors: f32, contiguous, on a CPU. Everything else takes the plain path of libtorch's
//! operations, which the tests hold these to. Callers check with [`applies`] first.
//!
//! With `gpu.rs` beside it the one place of the workspace that borrows a tensor's memory. A tensor is a handle: another one may share its memory, and an exclusive borrow of the handle
//! does not exclude that. So whatever is written to is compared with all that is read or written beside it, and every
//! borrow ends inside of a function of this file.
#![allow(unsafe_code)]

pub mod gpu;

pub use sae_kernels::AdamStep;
use sae_kernels::{
    Kept, ParameterGradients, RowSums, Rows, RowsMut, SoftmaxSums, SparseCode, SparseInputs,
};
use tch::{Device, Kind, TchError, Tensor};

use crate::SaeError;

/// Whether the kernels can work on these tensors, and are faster than libtorch's operations on this processor.
pub fn applies(tensors: &[&Tensor]) -> bool {
    sae_kernels::are_worthwhile() && tensors.iter().all(|tensor| is_plain(tensor))
}

/// One pass of Adam over a parameter and its moments.
///
/// # Shapes
/// All alike. Tensors that share memory are refused.
pub fn adam(
    parameter: &mut Tensor,
    gradient: &Tensor,
    mean: &mut Tensor,
    square: &mut Tensor,
    step: AdamStep,
) -> Result<(), SaeError> {
    check_disjoint(parameter, &[gradient, mean, square])?;
    check_disjoint(mean, &[gradient, square])?;
    check_disjoint(square, &[gradient])?;
    let gradient = numbers(gradient)?;
    let (mean, square) = (numbers_mut(mean)?, numbers_mut(square)?);
    Ok(sae_kernels::adam(numbers_mut(parameter)?, gradient, mean, square, step)?)
}

/// ReLU in place.
///
/// # Shapes
/// `x: [N, F]` → one [`RowSums`] a row.
pub(crate) fn relu(x: &mut Tensor) -> Result<Vec<RowSums>, SaeError> {
    Ok(sae_kernels::relu(rows_mut(x)?))
}

/// Keeps the `k` largest activations of every token.
///
/// # Shapes
/// `features: [N, F]` → one [`RowSums`] a row.
pub(crate) fn keep_top(features: &mut Tensor, k: usize) -> Result<Vec<RowSums>, SaeError> {
    Ok(sae_kernels::keep_top(rows_mut(features)?, k))
}

/// Keeps the `count` largest activations of all tokens together.
///
/// # Shapes
/// `features: [N, F]`.
pub(crate) fn keep_largest(features: &mut Tensor, count: usize) -> Result<Kept, SaeError> {
    Ok(sae_kernels::keep_largest(rows_mut(features)?, count))
}

/// The backward pass of [`relu`], in place.
///
/// # Shapes
/// `gradient, features: [N, F]`.
pub(crate) fn mask(gradient: &mut Tensor, features: &Tensor, penalty: f32) -> Result<(), SaeError> {
    check_disjoint(gradient, &[features])?;
    Ok(sae_kernels::mask(rows_mut(gradient)?, rows(features)?, penalty)?)
}

/// What each row is multiplied by to have unit length.
///
/// # Shapes
/// `w: [F, D]` → F numbers.
pub(crate) fn row_scales(w: &Tensor) -> Result<Vec<f32>, SaeError> {
    Ok(sae_kernels::row_scales(rows(w)?))
}

/// From the gradient of rows of unit length to that of the rows they were scaled from, in place.
///
/// # Shapes
/// `gradient, w: [F, D]`, F scales.
pub(crate) fn project(gradient: &mut Tensor, w: &Tensor, scales: &[f32]) -> Result<(), SaeError> {
    check_disjoint(gradient, &[w])?;
    Ok(sae_kernels::project(rows_mut(gradient)?, rows(w)?, scales)?)
}

/// The active features, of features that [`relu`] has made and counted.
///
/// # Shapes
/// `features: [N, F]`, N sums.
pub(crate) fn collect(features: &Tensor, sums: &[RowSums]) -> Result<SparseCode, SaeError> {
    Ok(SparseCode::collect(rows(features)?, sums)?)
}

/// The reconstruction of a sparse code.
///
/// # Shapes
/// `w_dec: [F, D]`, F scales, `b_dec: [D]` → `[N, D]`.
pub(crate) fn decode(
    code: &SparseCode,
    w_dec: &Tensor,
    scales: &[f32],
    b_dec: &Tensor,
) -> Result<Tensor, SaeError> {
    let mut out = empty(&[code.n(), w_dec.size2()?.1 as usize])?;
    code.decode(rows(w_dec)?, scales, numbers(b_dec)?, rows_mut(&mut out)?)?;
    Ok(out)
}

/// The gradient with respect to every active feature: `penalties`, and what comes through the decoder.
///
/// # Shapes
/// `gradient: [N, D]`, `w_dec: [F, D]`, F scales.
pub(crate) fn feature_gradients(
    code: &SparseCode,
    gradient: &Tensor,
    w_dec: &Tensor,
    scales: &[f32],
    penalties: Vec<f32>,
) -> Result<Vec<f32>, SaeError> {
    Ok(code.feature_gradients(rows(gradient)?, rows(w_dec)?, scales, penalties)?)
}

/// The gradient with respect to the input, of what [`feature_gradients`] gave.
///
/// # Shapes
/// `w_enc: [F, D]` → `[N, D]`.
pub(crate) fn input_gradient(
    code: &SparseCode,
    pre: &[f32],
    w_enc: &Tensor,
) -> Result<Tensor, SaeError> {
    let mut out = empty(&[code.n(), w_enc.size2()?.1 as usize])?;
    code.input_gradient(pre, rows(w_enc)?, rows_mut(&mut out)?)?;
    Ok(out)
}

/// The gradients of `w_enc`, `b_enc` and `w_dec`, of what [`feature_gradients`] gave.
///
/// # Shapes
/// `x: [N, D]`, `gradient: [N, E]`, `w_dec: [F, E]`, F scales → `[F, D]`, `[F]`, `[F, E]`.
pub(crate) fn parameter_gradients(
    code: &SparseCode,
    pre: &[f32],
    x: &Tensor,
    gradient: &Tensor,
    w_dec: &Tensor,
    scales: &[f32],
) -> Result<[Tensor; 3], SaeError> {
    let (f, e) = w_dec.size2()?;
    let (f, d, e) = (f as usize, x.size2()?.1 as usize, e as usize);
    let (mut w_enc, mut b_enc, mut by_row) = (empty(&[f, d])?, empty(&[f])?, empty(&[f, e])?);
    let inputs =
        SparseInputs { pre, x: rows(x)?, gradient: rows(gradient)?, w_dec: rows(w_dec)?, scales };
    let out = ParameterGradients {
        w_enc: rows_mut(&mut w_enc)?,
        b_enc: numbers_mut(&mut b_enc)?,
        w_dec: rows_mut(&mut by_row)?,
    };
    code.parameter_gradients(inputs, out)?;
    Ok([w_enc, b_enc, by_row])
}

/// `exp(logit − largest)` of the original's logits, into `out`.
///
/// # Shapes
/// `logits, out: [n, w]` → one [`SoftmaxSums`] a row.
pub(crate) fn exponentials(
    logits: &Tensor,
    out: &mut Tensor,
) -> Result<Vec<SoftmaxSums>, SaeError> {
    check_disjoint(out, &[logits])?;
    Ok(sae_kernels::exponentials(rows(logits)?, rows_mut(out)?)?)
}

/// The same of other logits, in place, weighing them against the original's.
///
/// # Shapes
/// `logits, original, exps: [n, w]` → one [`SoftmaxSums`] a row.
pub(crate) fn compare(
    logits: &mut Tensor,
    original: &Tensor,
    exps: &Tensor,
) -> Result<Vec<SoftmaxSums>, SaeError> {
    check_disjoint(logits, &[original, exps])?;
    Ok(sae_kernels::compare(rows_mut(logits)?, rows(original)?, rows(exps)?)?)
}

/// `q − p` of exponentials, each times its row's scale, in place of those of `q`.
///
/// # Shapes
/// `q, p: [n, w]`, n pairs of scales.
pub(crate) fn subtract(q: &mut Tensor, p: &Tensor, scales: &[(f32, f32)]) -> Result<(), SaeError> {
    check_disjoint(q, &[p])?;
    Ok(sae_kernels::subtract(rows_mut(q)?, rows(p)?, scales)?)
}

/// Memory for numbers that a kernel writes before anything reads them.
fn empty(shape: &[usize]) -> Result<Tensor, SaeError> {
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_empty(shape.as_slice(), (Kind::Float, Device::Cpu))?)
}

fn is_plain(tensor: &Tensor) -> bool {
    tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous()
}

fn check_plain(tensor: &Tensor) -> Result<(), SaeError> {
    if is_plain(tensor) {
        return Ok(());
    }
    let (kind, device) = (tensor.kind(), tensor.device());
    Err(shape_error(format!(
        "a kernel works on contiguous f32 on a CPU, not {kind:?} on {device:?}"
    )))
}

/// Refuses a tensor whose memory another one shares.
fn check_disjoint(written: &Tensor, others: &[&Tensor]) -> Result<(), SaeError> {
    let range = |tensor: &Tensor| {
        let start = tensor.data_ptr().addr();
        start..start + tensor.numel() * size_of::<f32>()
    };
    let own = range(written);
    let overlaps = |other: &&Tensor| {
        let other = range(other);
        own.start < other.end && other.start < own.end
    };
    if others.iter().any(overlaps) {
        return Err(shape_error("a kernel was given tensors that share memory".to_owned()));
    }
    Ok(())
}

fn shape_error(message: String) -> SaeError {
    TchError::Shape(message).into()
}

/// The numbers of a tensor.
fn numbers(tensor: &Tensor) -> Result<&[f32], SaeError> {
    check_plain(tensor)?;
    if tensor.numel() == 0 {
        return Ok(&[]);
    }
    // SAFETY: a contiguous f32 tensor on the CPU holds `numel` numbers from `data_ptr` on for as long as it lives. The
    // functions above keep the borrow to themselves, call nothing else that writes, and have compared what they write to.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// The same, to write to.
#[allow(clippy::needless_pass_by_ref_mut)] // A tensor is a handle; the exclusive borrow says what it is for.
fn numbers_mut(tensor: &mut Tensor) -> Result<&mut [f32], SaeError> {
    check_plain(tensor)?;
    if tensor.numel() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as above; no other borrow that the calling function holds shares this memory.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// A matrix.
fn rows(tensor: &Tensor) -> Result<Rows<'_>, SaeError> {
    let width = tensor.size2()?.1 as usize;
    Ok(Rows::new(numbers(tensor)?, width)?)
}

/// The same, to write to.
fn rows_mut(tensor: &mut Tensor) -> Result<RowsMut<'_>, SaeError> {
    let width = tensor.size2()?.1 as usize;
    Ok(RowsMut::new(numbers_mut(tensor)?, width)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(from: i64, to: i64) -> Tensor {
        Tensor::arange_start(from, to, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn tensors_that_share_memory_are_refused() {
        let step = AdamStep {
            mean_weight: 0.1,
            square_weight: 0.001,
            square_decay: 0.999,
            eps: 1e-8,
            rate: 1e-3,
            root_scale: 1.0,
            gradient_scale: 1.0,
            decay: 1.0,
        };
        let all = numbers(1, 9);
        let half = |first: i64| all.narrow(0, first, 4);
        let [mut mean, mut square] = [1, 2].map(|from| numbers(from, from + 4));
        // The gradient lies beside the parameter, then half of it in the same place.
        assert!(adam(&mut half(0), &half(4), &mut mean, &mut square, step).is_ok());
        assert!(adam(&mut half(0), &half(2), &mut mean, &mut square, step).is_err());
        let mut same = mean.shallow_clone();
        assert!(adam(&mut half(0), &half(4), &mut mean, &mut same, step).is_err());

        let mut gradient = numbers(0, 6).view([2, 3]);
        let features = gradient.shallow_clone();
        assert!(mask(&mut gradient, &features, 0.0).is_err());
        assert!(mask(&mut gradient, &features.copy(), 0.0).is_ok());
    }

    #[test]
    fn sizes_kinds_and_strides_are_checked() {
        let mut gradient = numbers(0, 6).view([2, 3]);
        assert!(mask(&mut gradient, &numbers(0, 6).view([3, 2]), 0.0).is_err());
        assert!(relu(&mut numbers(0, 6).view([2, 3]).tr()).is_err());
        assert!(relu(&mut numbers(0, 6).to_kind(Kind::Double).view([2, 3])).is_err());
        assert!(relu(&mut numbers(0, 6)).is_err());
        assert!(project(&mut gradient, &numbers(0, 6).view([2, 3]), &[1.0]).is_err());
    }
}
