//! The passes over all of an SAE's features and all of its parameters.
//!
//! `N` tokens, `D` width of the activation, `F` dictionary elements.

use rayon::prelude::*;
use tch::Tensor;

use super::{Instructions, LANES, applies, check, dot, numbers, numbers_mut, vectorised};
use crate::SaeError;
use crate::sae::MIN_NORM;

/// What [`relu`] finds in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowSums {
    /// Numbers above 0.
    pub active: u32,
    /// Their sum.
    pub sum: f32,
}

vectorised!(relu_row => relu_loop(row: &mut [f32]) -> RowSums);
vectorised!(mask_row => mask_loop(gradient: &mut [f32], features: &[f32], penalty: f32));
vectorised!(scale_of_row => scale_loop(row: &[f32]) -> f32);
vectorised!(project_row => project_loop(gradient: &mut [f32], row: &[f32], scale: f32));

/// ReLU in place; what is no number stays, and counts as active.
///
/// # Shapes
/// `x: [N, F]` → one [`RowSums`] a row.
pub fn relu(x: &mut Tensor) -> Result<Vec<RowSums>, SaeError> {
    check("f32 features on a CPU", applies(&[x]))?;
    let f = x.size2()?.1.max(1) as usize;
    Ok(numbers_mut(x).par_chunks_mut(f).map(relu_row).collect())
}

/// The backward pass of [`relu`], in place: `gradient + penalty` where the feature is active, 0 elsewhere.
///
/// # Shapes
/// `gradient, features: [N, F]`.
pub fn mask(gradient: &mut Tensor, features: &Tensor, penalty: f32) -> Result<(), SaeError> {
    let alike = gradient.size() == features.size();
    check("f32 gradients of features on a CPU", alike && applies(&[gradient, features]))?;
    let f = features.size2()?.1.max(1) as usize;
    numbers_mut(gradient)
        .par_chunks_mut(f)
        .zip(numbers(features).par_chunks(f))
        .for_each(|(gradient, features)| mask_row(gradient, features, penalty));
    Ok(())
}

/// What each row is multiplied by to have unit length.
///
/// # Shapes
/// `w: [F, D]` → F numbers.
pub fn row_scales(w: &Tensor) -> Result<Vec<f32>, SaeError> {
    check("f32 weights on a CPU", applies(&[w]))?;
    let d = w.size2()?.1.max(1) as usize;
    Ok(numbers(w).par_chunks(d).with_min_len(64).map(scale_of_row).collect())
}

/// From the gradient of rows of unit length to that of the rows they were scaled from, in place.
///
/// # Shapes
/// `gradient, w: [F, D]`, F scales.
pub fn project(gradient: &mut Tensor, w: &Tensor, scales: &[f32]) -> Result<(), SaeError> {
    let (f, d) = w.size2()?;
    let fits = gradient.size() == w.size() && scales.len() == f as usize;
    check("f32 gradients of a dictionary on a CPU", fits && applies(&[gradient, w]))?;
    let d = d.max(1) as usize;
    numbers_mut(gradient)
        .par_chunks_mut(d)
        .zip(numbers(w).par_chunks(d))
        .zip(scales)
        .with_min_len(64)
        .for_each(|((gradient, row), scale)| project_row(gradient, row, *scale));
    Ok(())
}

/// Whether a feature is active before its ReLU; what is no number is, so that it is not lost.
#[inline(always)]
pub(super) fn is_active(x: f32) -> bool {
    x > 0.0 || x.is_nan()
}

#[inline(always)]
fn relu_loop(row: &mut [f32]) -> RowSums {
    let (mut active, mut sums) = ([0_u32; LANES], [0.0_f32; LANES]);
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let keep = is_active(chunk[i]);
            chunk[i] = if keep { chunk[i] } else { 0.0 };
            active[i] += u32::from(keep);
            sums[i] += chunk[i];
        }
    }
    for x in rest {
        let keep = is_active(*x);
        *x = if keep { *x } else { 0.0 };
        active[0] += u32::from(keep);
        sums[0] += *x;
    }
    RowSums { active: active.iter().sum(), sum: sums.iter().sum() }
}

#[inline(always)]
fn mask_loop(gradient: &mut [f32], features: &[f32], penalty: f32) {
    for (g, c) in gradient.iter_mut().zip(features) {
        *g = if *c > 0.0 { *g + penalty } else { 0.0 };
    }
}

#[inline(always)]
fn scale_loop(row: &[f32]) -> f32 {
    1.0 / dot(row, row).sqrt().max(MIN_NORM as f32)
}

/// `dict = scale · w`, so that `∂/∂w = scale · (g − dict (dict · g))`; a row too short to be scaled by its norm is
/// multiplied by a constant.
#[inline(always)]
pub(super) fn project_loop(gradient: &mut [f32], row: &[f32], scale: f32) {
    let along =
        if scale < 1.0 / MIN_NORM as f32 { dot(gradient, row) * scale * scale } else { 0.0 };
    for (g, w) in gradient.iter_mut().zip(row) {
        *g = w.mul_add(-along, *g) * scale;
    }
}
