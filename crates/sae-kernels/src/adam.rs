//! Adam in one pass over a parameter, its gradient and its moments.

use rayon::prelude::*;

use crate::ShapeError;
use crate::instructions::vectorised;
use crate::rows::check;

/// Numbers of a loop that a thread takes at a time.
const PIECE: usize = 1 << 14;

vectorised!(adam_piece => adam_loop(parameter: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], step: AdamStep));

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

/// One pass of Adam over a parameter and its moments, all of one length.
pub fn adam(
    parameter: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
    step: AdamStep,
) -> Result<(), ShapeError> {
    check("a gradient", parameter.len(), gradient.len())?;
    check("a mean of gradients", parameter.len(), mean.len())?;
    check("a mean of squared gradients", parameter.len(), square.len())?;
    parameter
        .par_chunks_mut(PIECE)
        .zip(gradient.par_chunks(PIECE))
        .zip(mean.par_chunks_mut(PIECE))
        .zip(square.par_chunks_mut(PIECE))
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
