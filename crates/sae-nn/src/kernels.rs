//! Loops over whole tensors that libtorch would make several passes of: softmax with its normaliser, the KL divergence
//! with its gradient, Adam. For f32 on a CPU with AVX2; everything else takes the plain path, which the tests hold these
//! to.
//!
//! The one module of the workspace with unsafe code beside `sae-model::device`: it reads and writes tensors' memory and
//! compiles its loops for instructions that not every CPU has. Callers check with [`applies`] first.
#![allow(unsafe_code)]
// A loop takes on the instructions of the function that it is compiled into, so it must be compiled into it.
#![allow(clippy::inline_always)]

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::SaeError;

/// Numbers of a loop that a thread takes at a time.
const PIECE: usize = 1 << 14;
/// Terms summed in f32 before they join a sum in f64.
const TERMS: usize = 512;

/// Whether the kernels can work on these tensors: f32, contiguous, on a CPU that has AVX2 and FMA.
pub fn applies(tensors: &[&Tensor]) -> bool {
    has_instructions()
        && tensors.iter().all(|tensor| {
            tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous()
        })
}

#[cfg(target_arch = "x86_64")]
fn has_instructions() -> bool {
    std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instructions() -> bool {
    false
}

/// The numbers of a tensor for which [`applies`] holds.
fn numbers(tensor: &Tensor) -> &[f32] {
    debug_assert!(applies(&[tensor]));
    // SAFETY: a contiguous f32 tensor on the CPU holds `numel` numbers from `data_ptr` on for as long as it lives, and
    // nothing writes to it while this borrow is alive: the functions below are the only ones that do, through `&mut`.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

/// The same, to write to.
#[allow(clippy::needless_pass_by_ref_mut)] // A tensor is a handle; the exclusive borrow is what makes this sound.
fn numbers_mut(tensor: &mut Tensor) -> &mut [f32] {
    debug_assert!(applies(&[tensor]));
    // SAFETY: as above. Other handles to the same memory may exist (an optimiser's parameter is its SAE's), but none is
    // used while this borrow is alive.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

fn check(what: &str, holds: bool) -> Result<(), SaeError> {
    if holds { Ok(()) } else { Err(tch::TchError::Shape(what.to_owned()).into()) }
}

/// A distribution over the vocabulary for every token, and the logarithm of what its logits were divided by; in buffers
/// that are used again for the next tokens.
#[derive(Debug)]
pub struct Distribution {
    /// Logits less their largest, `[n, V]`.
    shifted: Tensor,
    /// Probabilities, `[n, V]`.
    p: Tensor,
    /// `log Σ exp(shifted)`, a number a row.
    log_sum: Vec<f64>,
}

impl Distribution {
    /// Room for `n` tokens; no distribution yet.
    pub fn buffers(n: i64, v: i64) -> Result<Self, SaeError> {
        let empty = || Tensor::f_empty([n, v], (Kind::Float, Device::Cpu));
        Ok(Self { shifted: empty()?, p: empty()?, log_sum: Vec::new() })
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
        let (mut logits, mut p) = (self.shifted.f_narrow(0, 0, n)?, self.p.f_narrow(0, 0, n)?);
        write(&logits)?;
        check("softmax of f32 logits on a CPU", applies(&[&logits]))?;
        let v = logits.size2()?.1 as usize;
        self.log_sum = numbers_mut(&mut logits)
            .par_chunks_mut(v)
            .zip(numbers_mut(&mut p).par_chunks_mut(v))
            .map(|(row, p)| softmax_row(row, p))
            .collect();
        Ok(())
    }

    /// `Σ_n KL(p ‖ q)` for the `q` of other logits, which become the gradient `q − p`.
    ///
    /// # Shapes
    /// `logits: [n, V]`, of as many tokens as were set.
    pub fn kl_and_gradient(&self, logits: &mut Tensor) -> Result<f64, SaeError> {
        let v = self.p.size2()?.1;
        check(
            "logits of the same shape, f32 on a CPU",
            applies(&[logits]) && logits.size() == [self.log_sum.len() as i64, v],
        )?;
        let v = v as usize;
        let rows: Vec<f64> = numbers_mut(logits)
            .par_chunks_mut(v)
            .zip(numbers(&self.shifted).par_chunks(v))
            .zip(numbers(&self.p).par_chunks(v))
            .zip(&self.log_sum)
            .map(|(((logits, shifted), p), log_sum)| kl_row(logits, shifted, p, *log_sum))
            .collect();
        // One after the other, so that the sum does not depend on how the rows were shared out.
        Ok(rows.iter().sum())
    }
}

/// Compiles a function's loops for AVX2 and, where a CPU has it, for AVX-512, with the same results: a lane's numbers do
/// not depend on how many lanes there are.
macro_rules! vectorised {
    ($name:ident => $inner:ident ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                unsafe fn wide($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn narrow($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
                if is_wide() {
                    // SAFETY: the CPU has these instructions.
                    unsafe { wide($($argument),*) }
                } else {
                    // SAFETY: every caller has checked `applies`, which has found these instructions.
                    unsafe { narrow($($argument),*) }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            $inner($($argument),*)
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn is_wide() -> bool {
    std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq")
}

vectorised!(softmax_row => softmax_loop(row: &mut [f32], p: &mut [f32]) -> f64);
vectorised!(kl_row => kl_loop(logits: &mut [f32], shifted: &[f32], p: &[f32], log_sum: f64) -> f64);
vectorised!(adam_piece => adam_loop(parameter: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], step: AdamStep));

#[inline(always)]
fn softmax_loop(row: &mut [f32], p: &mut [f32]) -> f64 {
    let largest = largest(row);
    let mut sum = 0.0;
    for (row, p) in row.chunks_mut(TERMS).zip(p.chunks_mut(TERMS)) {
        let mut lanes = [0.0_f32; LANES];
        let ((row, row_rest), (p, p_rest)) =
            (row.as_chunks_mut::<LANES>(), p.as_chunks_mut::<LANES>());
        for (row, p) in row.iter_mut().zip(p) {
            for i in 0..LANES {
                row[i] -= largest;
                p[i] = exp(row[i]);
                lanes[i] += p[i];
            }
        }
        for (x, p) in row_rest.iter_mut().zip(p_rest) {
            *x -= largest;
            *p = exp(*x);
            lanes[0] += *p;
        }
        sum += f64::from(lanes.iter().sum::<f32>());
    }
    let scale = (1.0 / sum) as f32;
    for p in p {
        *p *= scale;
    }
    sum.ln()
}

#[inline(always)]
fn kl_loop(logits: &mut [f32], shifted: &[f32], p: &[f32], log_sum: f64) -> f64 {
    let largest = largest(logits);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for ((logits, shifted), p) in
        logits.chunks_mut(TERMS).zip(shifted.chunks(TERMS)).zip(p.chunks(TERMS))
    {
        let (mut sums, mut weights) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (logits, logits_rest) = logits.as_chunks_mut::<LANES>();
        let (shifted, shifted_rest) = shifted.as_chunks::<LANES>();
        let (p, p_rest) = p.as_chunks::<LANES>();
        for ((logits, shifted), p) in logits.iter_mut().zip(shifted).zip(p) {
            for i in 0..LANES {
                let b = logits[i] - largest;
                weights[i] = p[i].mul_add(shifted[i] - b, weights[i]);
                logits[i] = exp(b);
                sums[i] += logits[i];
            }
        }
        for ((x, a), p) in logits_rest.iter_mut().zip(shifted_rest).zip(p_rest) {
            let b = *x - largest;
            weights[0] = p.mul_add(a - b, weights[0]);
            *x = exp(b);
            sums[0] += *x;
        }
        sum += f64::from(sums.iter().sum::<f32>());
        weighted += f64::from(weights.iter().sum::<f32>());
    }
    let scale = (1.0 / sum) as f32;
    for (q, p) in logits.iter_mut().zip(p) {
        *q = q.mul_add(scale, -p);
    }
    weighted - log_sum + sum.ln()
}

/// Numbers that a loop works on side by side: four AVX2 registers, two of AVX-512.
const LANES: usize = 32;

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

/// What an Adam step multiplies and adds; see `sae-train::optim`.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// What a gradient counts for in the mean, `1 − β₁`; taken in f64, because f32 has 0.999 only to 2e-8 and 0.001 from
    /// it to 5e-5.
    pub mean_weight: f32,
    /// What a squared gradient counts for in the mean square, `1 − β₂`.
    pub square_weight: f32,
    /// What the mean square before counts for, `β₂`.
    pub square_decay: f32,
    /// Added to the root.
    pub eps: f32,
    /// The learning rate over the mean's correction.
    pub rate: f32,
    /// One over the root's correction.
    pub root_scale: f32,
    /// What gradients are multiplied by: clipping.
    pub gradient_scale: f32,
    /// What parameters are multiplied by before: decoupled weight decay.
    pub decay: f32,
}

/// One pass of Adam over a parameter and its moments.
///
/// # Shapes
/// All alike.
pub fn adam(
    parameter: &mut Tensor,
    gradient: &Tensor,
    mean: &mut Tensor,
    square: &mut Tensor,
    step: AdamStep,
) -> Result<(), SaeError> {
    let alike = [gradient, mean, square].iter().all(|other| other.size() == parameter.size());
    check(
        "f32 tensors of one shape on a CPU",
        alike && applies(&[parameter, gradient, mean, square]),
    )?;
    numbers_mut(parameter)
        .par_chunks_mut(PIECE)
        .zip(numbers(gradient).par_chunks(PIECE))
        .zip(numbers_mut(mean).par_chunks_mut(PIECE))
        .zip(numbers_mut(square).par_chunks_mut(PIECE))
        .for_each(|(((parameter, gradient), mean), square)| {
            adam_piece(parameter, gradient, mean, square, step);
        });
    Ok(())
}

#[inline(always)]
fn adam_loop(
    parameter: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
    step: AdamStep,
) {
    for (((p, g), m), s) in parameter.iter_mut().zip(gradient).zip(mean).zip(square) {
        let g = g * step.gradient_scale;
        *m = (g - *m).mul_add(step.mean_weight, *m);
        *s = (g * g).mul_add(step.square_weight, *s * step.square_decay);
        let root = s.sqrt().mul_add(step.root_scale, step.eps);
        *p = (*p * step.decay) - step.rate * *m / root;
    }
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
