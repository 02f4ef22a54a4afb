//! Softmax and the KL divergence of some tokens on a part of the vocabulary: each one pass over logits that are in cache,
//! on the calling thread.
//!
//! Over parts with largest logits `m` and sums `s` of `exp(logit − m)`, the whole has `M = max m` and
//! `S = Σ s · exp(m − M)` (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867).

use crate::instructions::{LANES, vectorised};
use crate::rows::{check, check_rows};
use crate::{Rows, RowsMut, ShapeError};

/// Terms summed in f32 before they join a sum in f64.
const TERMS: usize = 512;

/// Softmax statistics of a token's logits on a part of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxSums {
    /// The largest logit.
    pub largest: f32,
    /// `Σ exp(logit − largest)`.
    pub sum: f64,
    /// `Σ e (logit of the original − logit)`, `e` the original's exponentials of this part; 0 for the original itself.
    pub weighted: f64,
}

vectorised!(exp_row => exp_loop(row: &[f32], out: &mut [f32]) -> SoftmaxSums);
vectorised!(compare_row => compare_loop(row: &mut [f32], original: &[f32], exps: &[f32]) -> SoftmaxSums);
vectorised!(subtract_row => subtract_loop(q: &mut [f32], p: &[f32], q_scale: f32, p_scale: f32));

/// `exp(logit − largest)` of the original's logits, into `out`.
///
/// # Shapes
/// `logits, out: [n, w]` → one [`SoftmaxSums`] a row.
pub fn exponentials(logits: Rows<'_>, out: RowsMut<'_>) -> Result<Vec<SoftmaxSums>, ShapeError> {
    check_rows("exponentials", logits.shape(), out.shape())?;
    let w = logits.width();
    let rows = logits.numbers().chunks(w).zip(out.into_numbers().chunks_mut(w));
    Ok(rows.map(|(row, out)| exp_row(row, out)).collect())
}

/// The same of other logits, in place, weighing them against the original's.
///
/// # Shapes
/// `logits, original, exps: [n, w]` → one [`SoftmaxSums`] a row.
pub fn compare(
    logits: RowsMut<'_>,
    original: Rows<'_>,
    exps: Rows<'_>,
) -> Result<Vec<SoftmaxSums>, ShapeError> {
    check_rows("the original's logits", logits.shape(), original.shape())?;
    check_rows("the original's exponentials", logits.shape(), exps.shape())?;
    let w = original.width();
    let rows = logits
        .into_numbers()
        .chunks_mut(w)
        .zip(original.numbers().chunks(w))
        .zip(exps.numbers().chunks(w));
    Ok(rows.map(|((row, original), exps)| compare_row(row, original, exps)).collect())
}

/// `q − p` of exponentials, each times its row's scale, in place of those of `q`.
///
/// # Shapes
/// `q, p: [n, w]`, n pairs of scales.
pub fn subtract(q: RowsMut<'_>, p: Rows<'_>, scales: &[(f32, f32)]) -> Result<(), ShapeError> {
    check_rows("exponentials", p.shape(), q.shape())?;
    check("pairs of scales", p.count(), scales.len())?;
    let w = p.width();
    q.into_numbers()
        .chunks_mut(w)
        .zip(p.numbers().chunks(w))
        .zip(scales)
        .for_each(|((q, p), (q_scale, p_scale))| subtract_row(q, p, *q_scale, *p_scale));
    Ok(())
}

#[inline(always)]
fn exp_loop(row: &[f32], out: &mut [f32]) -> SoftmaxSums {
    let largest = largest(row);
    let mut sum = 0.0;
    for (row, out) in row.chunks(TERMS).zip(out.chunks_mut(TERMS)) {
        let mut sums = [0.0_f32; LANES];
        let (row, row_rest) = row.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        for (row, out) in row.iter().zip(out) {
            for i in 0..LANES {
                out[i] = exp(row[i] - largest);
                sums[i] += out[i];
            }
        }
        for (x, out) in row_rest.iter().zip(out_rest) {
            *out = exp(x - largest);
            sums[0] += *out;
        }
        sum += f64::from(sums.iter().sum::<f32>());
    }
    SoftmaxSums { largest, sum, weighted: 0.0 }
}

#[inline(always)]
fn compare_loop(row: &mut [f32], original: &[f32], exps: &[f32]) -> SoftmaxSums {
    let largest = largest(row);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for ((row, original), exps) in
        row.chunks_mut(TERMS).zip(original.chunks(TERMS)).zip(exps.chunks(TERMS))
    {
        let (mut sums, mut weights) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (row, row_rest) = row.as_chunks_mut::<LANES>();
        let (original, original_rest) = original.as_chunks::<LANES>();
        let (exps, exps_rest) = exps.as_chunks::<LANES>();
        for ((row, original), exps) in row.iter_mut().zip(original).zip(exps) {
            for i in 0..LANES {
                weights[i] = exps[i].mul_add(original[i] - row[i], weights[i]);
                row[i] = exp(row[i] - largest);
                sums[i] += row[i];
            }
        }
        for ((x, a), e) in row_rest.iter_mut().zip(original_rest).zip(exps_rest) {
            weights[0] = e.mul_add(a - *x, weights[0]);
            *x = exp(*x - largest);
            sums[0] += *x;
        }
        sum += f64::from(sums.iter().sum::<f32>());
        weighted += f64::from(weights.iter().sum::<f32>());
    }
    SoftmaxSums { largest, sum, weighted }
}

#[inline(always)]
fn subtract_loop(q: &mut [f32], p: &[f32], q_scale: f32, p_scale: f32) {
    for (q, p) in q.iter_mut().zip(p) {
        *q = q.mul_add(q_scale, -(p * p_scale));
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], chunk[i]);
        }
    }
    // NaN is never the largest; it comes out of the sums instead.
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// e^x to about two units in the last place for x ≤ 0, as Cephes' `expf` computes it: x = n · ln 2 + r, and a polynomial
/// of r.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 · 2²³ rounds to a whole number, which stands in the low bits in between.
    const MAGIC: f32 = 12_582_912.0;
    // Below, the result would be subnormal; NaN stays NaN.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let mut y = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        y = y.mul_add(r, c);
    }
    let y = y.mul_add(r * r, r + 1.0);
    let power = (shifted.to_bits() << 23).wrapping_add(0x3f80_0000);
    y * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_exp() {
        for i in 0..200_000 {
            let x = -(i as f32) * 4.35e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - expected).abs() <= 2.5e-7 * expected, "{x}: {found} {expected}");
        }
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(-1e30) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }
}
