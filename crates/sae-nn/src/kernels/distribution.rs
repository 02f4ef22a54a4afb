//! Softmax with its normaliser, and the KL divergence with its gradient, in one pass each.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{LANES, applies, check, is_wide, numbers, numbers_mut, vectorised};
use crate::SaeError;

/// Terms summed in f32 before they join a sum in f64.
const TERMS: usize = 512;

/// A distribution over the vocabulary for every token, and the logarithm of what its logits were divided by; in buffers
/// that are used again for the next tokens.
#[derive(Debug)]
pub struct Distribution {
    /// Logits less their largest, `[n, V]`.
    shifted: Tensor,
    /// Their exponentials: what probabilities are a share of, `[n, V]`.
    exp: Tensor,
    /// `Σ exp(shifted)`, a number a row.
    sums: Vec<f64>,
}

impl Distribution {
    /// Room for `n` tokens; no distribution yet.
    pub fn buffers(n: i64, v: i64) -> Result<Self, SaeError> {
        let empty = || Tensor::f_empty([n, v], (Kind::Float, Device::Cpu));
        Ok(Self { shifted: empty()?, exp: empty()?, sums: Vec::new() })
    }

    /// Takes the softmax of the logits that `write` writes for the next `n` tokens, at most those that there is room for.
    ///
    /// # Shapes
    /// `write` is given `[n, V]`.
    pub fn set(
        &mut self,
        n: i64,
        write: impl FnOnce(&Tensor) -> Result<(), SaeError>,
    ) -> Result<(), SaeError> {
        let (mut logits, mut exp) = (self.shifted.f_narrow(0, 0, n)?, self.exp.f_narrow(0, 0, n)?);
        write(&logits)?;
        check("softmax of f32 logits on a CPU", applies(&[&logits]))?;
        let v = logits.size2()?.1 as usize;
        self.sums = numbers_mut(&mut logits)
            .par_chunks_mut(v)
            .zip(numbers_mut(&mut exp).par_chunks_mut(v))
            .map(|(row, exp)| exp_row(row, exp))
            .collect();
        Ok(())
    }

    /// `Σ_n KL(p ‖ q)` for the `q` of other logits, which become the gradient `q − p`.
    ///
    /// # Shapes
    /// `logits: [n, V]`, of as many tokens as were set.
    pub fn kl_and_gradient(&self, logits: &mut Tensor) -> Result<f64, SaeError> {
        let v = self.exp.size2()?.1;
        check(
            "logits of the same shape, f32 on a CPU",
            applies(&[logits]) && logits.size() == [self.sums.len() as i64, v],
        )?;
        let v = v as usize;
        let rows: Vec<f64> = numbers_mut(logits)
            .par_chunks_mut(v)
            .zip(numbers(&self.shifted).par_chunks(v))
            .zip(numbers(&self.exp).par_chunks(v))
            .zip(&self.sums)
            .map(|(((logits, shifted), exp), sum)| kl_row(logits, shifted, exp, *sum))
            .collect();
        // One after the other, so that the sum does not depend on how the rows were shared out.
        Ok(rows.iter().sum())
    }
}

vectorised!(exp_row => exp_loop(row: &mut [f32], out: &mut [f32]) -> f64);
vectorised!(kl_row => kl_loop(logits: &mut [f32], shifted: &[f32], exps: &[f32], original_sum: f64) -> f64);

/// Shifts a row by its largest number, and takes the exponentials; → their sum.
#[inline(always)]
fn exp_loop(row: &mut [f32], out: &mut [f32]) -> f64 {
    let largest = largest(row);
    let mut sum = 0.0;
    for (row, out) in row.chunks_mut(TERMS).zip(out.chunks_mut(TERMS)) {
        let mut lanes = [0.0_f32; LANES];
        let ((row, row_rest), (out, out_rest)) =
            (row.as_chunks_mut::<LANES>(), out.as_chunks_mut::<LANES>());
        for (row, out) in row.iter_mut().zip(out) {
            for i in 0..LANES {
                row[i] -= largest;
                out[i] = exp(row[i]);
                lanes[i] += out[i];
            }
        }
        for (x, out) in row_rest.iter_mut().zip(out_rest) {
            *x -= largest;
            *out = exp(*x);
            lanes[0] += *out;
        }
        sum += f64::from(lanes.iter().sum::<f32>());
    }
    sum
}

/// `Σ p (log p − log q)` with `p = exps / original_sum`; the logits of `q` become `q − p`.
#[inline(always)]
fn kl_loop(logits: &mut [f32], shifted: &[f32], exps: &[f32], original_sum: f64) -> f64 {
    let largest = largest(logits);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for ((logits, shifted), exps) in
        logits.chunks_mut(TERMS).zip(shifted.chunks(TERMS)).zip(exps.chunks(TERMS))
    {
        let (mut sums, mut weights) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (logits, logits_rest) = logits.as_chunks_mut::<LANES>();
        let (shifted, shifted_rest) = shifted.as_chunks::<LANES>();
        let (exps, exps_rest) = exps.as_chunks::<LANES>();
        for ((logits, shifted), exps) in logits.iter_mut().zip(shifted).zip(exps) {
            for i in 0..LANES {
                let b = logits[i] - largest;
                weights[i] = exps[i].mul_add(shifted[i] - b, weights[i]);
                logits[i] = exp(b);
                sums[i] += logits[i];
            }
        }
        for ((x, a), e) in logits_rest.iter_mut().zip(shifted_rest).zip(exps_rest) {
            let b = *x - largest;
            weights[0] = e.mul_add(a - b, weights[0]);
            *x = exp(b);
            sums[0] += *x;
        }
        sum += f64::from(sums.iter().sum::<f32>());
        weighted += f64::from(weights.iter().sum::<f32>());
    }
    let (scale, original_scale) = ((1.0 / sum) as f32, (1.0 / original_sum) as f32);
    for (q, e) in logits.iter_mut().zip(exps) {
        *q = q.mul_add(scale, -(e * original_scale));
    }
    weighted / original_sum - original_sum.ln() + sum.ln()
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
    // NaN is no largest number, and comes out of the sums instead.
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
