//! The passes over all of an SAE's features and all of its parameters.
//!
//! `N` tokens, `D` width of the activation, `F` dictionary elements.

use rayon::prelude::*;

use crate::instructions::{LANES, dot, vectorised};
use crate::rows::{check, check_rows};
use crate::{Rows, RowsMut, ShapeError};

/// Rows shorter than this are divided by it instead of by their norm, as `torch.nn.functional.normalize` does.
pub const MIN_NORM: f32 = 1e-12;

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

/// ReLU in place; NaN stays NaN, and counts as active.
///
/// # Shapes
/// `x: [N, F]` → one [`RowSums`] a row.
pub fn relu(x: RowsMut<'_>) -> Vec<RowSums> {
    let f = x.width();
    x.into_numbers().par_chunks_mut(f).map(relu_row).collect()
}

/// The backward pass of [`relu`], in place: `gradient + penalty` where the feature is active, 0 elsewhere.
///
/// # Shapes
/// `gradient, features: [N, F]`.
pub fn mask(gradient: RowsMut<'_>, features: Rows<'_>, penalty: f32) -> Result<(), ShapeError> {
    check_rows("gradients of features", features.shape(), gradient.shape())?;
    let f = features.width();
    gradient
        .into_numbers()
        .par_chunks_mut(f)
        .zip(features.numbers().par_chunks(f))
        .for_each(|(gradient, features)| mask_row(gradient, features, penalty));
    Ok(())
}

/// What each row is multiplied by to have unit length.
///
/// # Shapes
/// `w: [F, D]` → F numbers.
pub fn row_scales(w: Rows<'_>) -> Vec<f32> {
    w.numbers().par_chunks(w.width()).with_min_len(64).map(scale_of_row).collect()
}

/// From the gradient of rows of unit length to that of the rows they were scaled from, in place.
///
/// # Shapes
/// `gradient, w: [F, D]`, F scales.
pub fn project(gradient: RowsMut<'_>, w: Rows<'_>, scales: &[f32]) -> Result<(), ShapeError> {
    check_rows("gradients of a dictionary", w.shape(), gradient.shape())?;
    check("scales of rows", w.count(), scales.len())?;
    let d = w.width();
    gradient
        .into_numbers()
        .par_chunks_mut(d)
        .zip(w.numbers().par_chunks(d))
        .zip(scales)
        .with_min_len(64)
        .for_each(|((gradient, row), scale)| project_row(gradient, row, *scale));
    Ok(())
}

/// Whether a feature is active before its ReLU. NaN is, so that it is not lost.
#[inline(always)]
pub(crate) fn is_active(x: f32) -> bool {
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
    1.0 / dot(row, row).sqrt().max(MIN_NORM)
}

/// `dict = scale · w`, so that `∂/∂w = scale · (g − dict (dict · g))`; a row too short to be scaled by its norm is
/// multiplied by a constant.
#[inline(always)]
pub(crate) fn project_loop(gradient: &mut [f32], row: &[f32], scale: f32) {
    let along = if scale < 1.0 / MIN_NORM { dot(gradient, row) * scale * scale } else { 0.0 };
    for (g, w) in gradient.iter_mut().zip(row) {
        *g = w.mul_add(-along, *g) * scale;
    }
}
