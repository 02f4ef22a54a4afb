//! Adam and AdamW with the update of PyTorch, the state our own: it is saved in checkpoints and restored exactly.

use sae_nn::kernels::{self, AdamStep, gpu};
use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::TrainError;

/// The hyper-parameters of [`Adam`] that do not change during a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamOptions {
    /// PyTorch's: 0.9, 0.999, 1e-8.
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, eps: 1e-8 }
    }
}

/// Adam (Kingma and Ba, 2015), decoupled weight decay (Loshchilov and Hutter, 2019) where a parameter has one.
#[derive(Debug)]
pub struct Adam {
    options: AdamOptions,
    step: u64,
    slots: Vec<Slot>,
}

/// A parameter with its moments.
#[derive(Debug)]
struct Slot {
    parameter: Tensor,
    weight_decay: f64,
    mean: Tensor,
    square: Tensor,
}

impl Adam {
    /// An optimiser of these parameters, each with its weight decay, all moments zero.
    pub fn new(
        parameters: impl IntoIterator<Item = (Tensor, f64)>,
        options: AdamOptions,
    ) -> Result<Self, TchError> {
        let slots = parameters
            .into_iter()
            .map(|(parameter, weight_decay)| {
                let mean = parameter.f_detach()?.f_zeros_like()?;
                let square = mean.f_zeros_like()?;
                Ok(Slot { parameter, weight_decay, mean, square })
            })
            .collect::<Result<_, TchError>>()?;
        Ok(Self { options, step: 0, slots })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.iter().map(|slot| &slot.parameter)
    }

    /// One step with these gradients times `scale`, in the order of the parameters.
    pub fn step(&mut self, gradients: &[Tensor], scale: f64, lr: f64) -> Result<(), TrainError> {
        self.step += 1;
        let AdamOptions { beta_1, beta_2, eps } = self.options;
        let exponent = self.step as i32;
        let correction_1 = 1.0 - beta_1.powi(exponent);
        let correction_2 = (1.0 - beta_2.powi(exponent)).sqrt();
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            let Slot { parameter, weight_decay, mean, square } = slot;
            let decay = 1.0 - lr * *weight_decay;
            let step = AdamStep {
                mean_weight: (1.0 - beta_1) as f32,
                square_weight: (1.0 - beta_2) as f32,
                square_decay: beta_2 as f32,
                eps: eps as f32,
                rate: (lr / correction_1) as f32,
                root_scale: (1.0 / correction_2) as f32,
                gradient_scale: scale as f32,
                decay: decay as f32,
            };
            if kernels::applies(&[parameter, gradient, mean, square]) {
                kernels::adam(parameter, gradient, mean, square, step)?;
                continue;
            }
            if gpu::adam(parameter, gradient, mean, square, step)? {
                continue;
            }
            no_grad(|| {
                let gradient = gradient.f_mul_scalar(scale)?;
                let _ = mean.f_lerp_(&gradient, 1.0 - beta_1)?;
                let _ = square.f_mul_scalar_(beta_2)?;
                let scaled = gradient.f_mul_scalar(1.0 - beta_2)?;
                let _ = square.f_addcmul_(&gradient, &scaled)?;
                let _ = parameter.f_mul_scalar_(decay)?;
                // p −= lr / correction_1 · mean / (√square / correction_2 + eps)
                let mut denominator = square.f_sqrt()?;
                let _ = denominator.f_div_scalar_(correction_2)?;
                let _ = denominator.f_add_scalar_(eps)?;
                let step = mean.f_mul_scalar(-lr / correction_1)?;
                parameter.f_addcdiv_(&step, &denominator).map(|_| ())
            })?;
        }
        Ok(())
    }

    /// Both moments of every parameter, in order: what a checkpoint holds beside the parameters and the step.
    pub fn moments(&self) -> impl Iterator<Item = (&Tensor, &Tensor)> {
        self.slots.iter().map(|slot| (&slot.mean, &slot.square))
    }

    /// Restores what [`Adam::moments`] and [`Adam::steps`] gave.
    pub fn restore(
        &mut self,
        step: u64,
        moments: impl IntoIterator<Item = (Tensor, Tensor)>,
    ) -> Result<(), TchError> {
        self.step = step;
        for (slot, (mean, square)) in self.slots.iter_mut().zip(moments) {
            slot.mean.f_copy_(&mean)?;
            slot.square.f_copy_(&square)?;
        }
        Ok(())
    }
}

/// The Euclidean norm of all gradients together, a scalar where the gradients are.
pub fn global_norm(gradients: &[Tensor]) -> Result<Tensor, TchError> {
    let norms = gradients.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    Tensor::f_stack(&norms, 0)?.f_norm()
}

/// The values of scalars, brought from their device together: where a step waits for a GPU, beside the counts of active
/// features.
pub fn read(scalars: &[Tensor]) -> Result<Vec<f64>, TchError> {
    let Some(device) = scalars.iter().map(Tensor::device).find(|&device| device != Device::Cpu)
    else {
        return scalars.iter().map(|scalar| scalar.f_double_value(&[])).collect();
    };
    let scalars = scalars
        .iter()
        .map(|scalar| scalar.f_detach()?.f_to_device(device)?.f_to_kind(Kind::Double))
        .collect::<Result<Vec<_>, _>>()?;
    Vec::try_from(Tensor::f_stack(&scalars, 0)?)
}

/// What gradients of this norm are multiplied by so that it is at most `max_norm`: `min(1, max_norm / (norm + 1e-6))`, as
/// in `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}
