//! A forward pass of an SAE that can be gone back through without autograd: its gradients are written out, so that
//! nothing is kept or computed that they do not need, and only the encoder's product is dense where few features are
//! active.
//!
//! `N` tokens (any leading dimensions), `D` width of the activation, `F` dictionary elements.

use tch::{Kind, Tensor, no_grad};

use crate::kernels::{self, Active, RowSums};
use crate::sae::MIN_NORM;
use crate::{Sae, SaeError, loss};

/// Where fewer of the features are active than this share, they are worked on one by one. (Both ways take the same time
/// at about 1/10 with F = 2 048, D = 128, and 1/16 with F = 3 200, D = 64, on two cores with AVX-512.)
const FEW: f64 = 1.0 / 16.0;

/// What a pass over some tokens gives, and what its way back needs.
///
/// With `g` the loss's gradient with respect to x̂, and ρ that of the sparsity term with respect to c (the chain rule on the
/// formulas of [`Sae`]):
///
/// - `∂pre = g · dictᵀ + ρ` where the feature is active, 0 elsewhere
/// - `∂w_enc = ∂preᵀ · x`, `∂b_enc = Σ_n ∂pre`, `∂x = ∂pre · w_enc`
/// - `∂dict = cᵀ · g`, `∂w_dec = (∂dict − dict (dict · ∂dict)) / ‖w_dec‖` row by row, `∂b_dec = Σ_n g`
///
/// ```
/// use sae_nn::{Penalty, Sae};
/// use tch::{Device, Kind, Tensor};
///
/// let sae = Sae::random(8, 32, 0, 0, Device::Cpu, Kind::Float)?; // D = 8, F = 32
/// let x = Tensor::ones([5, 8], (Kind::Float, Device::Cpu));
/// let pass = sae.pass(&x)?;
/// let gradient = (&pass.reconstruction - &x) * (2.0 / 40.0); // of the mean of (x̂ − x)²
/// let found = pass.backward(&sae, &gradient, Penalty { p: 1.0, weight: 0.1 / 8.0 }, false)?;
/// assert_eq!(found.parameters.map(|all| all[0].size()), Some(vec![32, 8]));
/// # Ok::<(), sae_nn::SaeError>(())
/// ```
#[derive(Debug)]
pub struct SaePass {
    /// The reconstruction x̂, `[..., D]`, in the precision of the input.
    pub reconstruction: Tensor,
    /// x, `[N, D]`.
    input: Tensor,
    features: Features,
}

/// The feature activations c.
#[derive(Debug)]
enum Features {
    /// `[N, F]`, in libtorch's operations.
    Dense { features: Tensor, dictionary: Tensor, norms: Tensor },
    /// The same by kernels: with what each row of `w_dec` is multiplied by, and what is known of every token's.
    Counted { features: Tensor, dictionary: Tensor, scales: Vec<f32>, rows: Vec<RowSums> },
    /// The active ones alone.
    Few { active: Active, scales: Vec<f32> },
}

/// The sparsity term that a loss has: `weight · mean_n ‖c_n‖_p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    /// The norm's p.
    pub p: f64,
    /// What the mean is multiplied by.
    pub weight: f64,
}

/// The gradients of a loss.
#[derive(Debug)]
pub struct SaeGradients {
    /// In the order of [`Sae::parameters`]; none of an SAE that is not trained.
    pub parameters: Option<[Tensor; 4]>,
    /// With respect to the input, `[N, D]`, where it was asked for.
    pub input: Option<Tensor>,
}

impl Sae {
    /// Encodes and decodes, outside of autograd. Products are taken in the precision of `x`.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub fn pass(&self, x: &Tensor) -> Result<SaePass, SaeError> {
        no_grad(|| {
            let (shape, d) = (x.size(), self.d_model() as i64);
            let input = x.f_detach()?.f_reshape([-1, d])?.f_contiguous()?;
            let kind = input.kind();
            let [w_enc, b_enc, w_dec, b_dec] = self.parameters();
            let lower = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(kind);
            let mut features = lower(b_enc)?.f_addmm(&input, &lower(w_enc)?.f_tr()?)?;
            if !kernels::applies(&[&features, w_enc, w_dec, b_dec]) {
                let features = features.f_relu_()?;
                let norms = self.norms()?;
                let dictionary = w_dec.f_detach()?.f_div(&norms)?.f_to_kind(kind)?;
                let reconstruction = lower(b_dec)?.f_addmm(&features, &dictionary)?;
                return Ok(SaePass {
                    reconstruction: reconstruction.f_view(shape.as_slice())?,
                    input,
                    features: Features::Dense { features, dictionary, norms },
                });
            }
            let rows = kernels::relu(&mut features)?;
            let active: usize = rows.iter().map(|row| row.active as usize).sum();
            let scales = kernels::row_scales(w_dec)?;
            let (reconstruction, features) = if (active as f64) < FEW * features.numel() as f64 {
                let active = Active::collect(&features, &rows)?;
                (active.decode(w_dec, &scales, b_dec)?, Features::Few { active, scales })
            } else {
                let dictionary =
                    w_dec.f_detach()?.f_mul(&Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?)?;
                let reconstruction = b_dec.f_detach()?.f_addmm(&features, &dictionary)?;
                (reconstruction, Features::Counted { features, dictionary, scales, rows })
            };
            let reconstruction = reconstruction.f_view(shape.as_slice())?;
            Ok(SaePass { reconstruction, input, features })
        })
    }
}

impl SaePass {
    /// Active features per token, a scalar in f64.
    pub fn l0(&self) -> Result<Tensor, SaeError> {
        let n = self.input.size2()?.0 as f64;
        Ok(match &self.features {
            Features::Dense { features, .. } => {
                features.f_count_nonzero(None::<i64>)?.f_to_kind(Kind::Double)?.f_div_scalar(n)?
            }
            Features::Counted { rows, .. } => {
                let active: usize = rows.iter().map(|row| row.active as usize).sum();
                Tensor::from(active as f64 / n)
            }
            Features::Few { active, .. } => Tensor::from(active.len() as f64 / n),
        })
    }

    /// `mean_n ‖c_n‖_p / D`, as [`loss::sparsity`] has it; a scalar.
    #[allow(clippy::float_cmp)]
    pub fn sparsity(&self, p: f64) -> Result<Tensor, SaeError> {
        let (n, d) = self.input.size2()?;
        match &self.features {
            Features::Counted { rows, .. } if p == 1.0 => {
                let sum: f64 = rows.iter().map(|row| f64::from(row.sum)).sum();
                Ok(Tensor::from(sum / (n * d) as f64))
            }
            Features::Dense { features, .. } | Features::Counted { features, .. } => {
                loss::sparsity(features, p, d as usize)
            }
            Features::Few { active, .. } => Ok(Tensor::from(active.mean_norm(p) / d as f64)),
        }
    }

    /// The gradients of a loss with this gradient with respect to the reconstruction, and this sparsity term.
    ///
    /// # Shapes
    /// `gradient: [..., D]`, as the reconstruction.
    pub fn backward(
        &self,
        sae: &Sae,
        gradient: &Tensor,
        penalty: Penalty,
        wants_input: bool,
    ) -> Result<SaeGradients, SaeError> {
        no_grad(|| {
            let gradient = gradient.f_reshape(self.input.size())?.f_contiguous()?;
            match &self.features {
                Features::Few { active, scales } => {
                    self.backward_few(sae, active, scales, &gradient, penalty, wants_input)
                }
                _ => self.backward_dense(sae, &gradient, penalty, wants_input),
            }
        })
    }

    fn backward_few(
        &self,
        sae: &Sae,
        active: &Active,
        scales: &[f32],
        gradient: &Tensor,
        penalty: Penalty,
        wants_input: bool,
    ) -> Result<SaeGradients, SaeError> {
        let [w_enc, _, w_dec, _] = sae.parameters();
        let penalties = active.penalties(penalty.p, penalty.weight);
        let pre = active.backward(gradient, w_dec, scales, penalties)?;
        let input = wants_input.then(|| active.input_gradient(&pre, w_enc)).transpose()?;
        let parameters = if sae.is_trained() {
            let found = active.parameter_gradients(&pre, &self.input, gradient, w_dec, scales)?;
            Some([found.w_enc, found.b_enc, found.w_dec, sum_of_rows(gradient)?])
        } else {
            None
        };
        Ok(SaeGradients { parameters, input })
    }

    fn backward_dense(
        &self,
        sae: &Sae,
        gradient: &Tensor,
        penalty: Penalty,
        wants_input: bool,
    ) -> Result<SaeGradients, SaeError> {
        let (Features::Dense { features, dictionary, .. }
        | Features::Counted { features, dictionary, .. }) = &self.features
        else {
            unreachable!("the other case has a way back of its own");
        };
        let [w_enc, _, w_dec, _] = sae.parameters();
        let mut pre = gradient.f_mm(&dictionary.f_tr()?)?;
        let weight = penalty.weight / self.input.size2()?.0 as f64;
        #[allow(clippy::float_cmp)]
        let constant = penalty.p == 1.0;
        if constant && matches!(self.features, Features::Counted { .. }) {
            kernels::mask(&mut pre, features, weight as f32)?;
        } else if constant {
            let _ = pre.f_add_scalar_(weight)?;
            pre = features.f_threshold_backward(&pre, 0.0)?;
        } else {
            let norms = features.f_norm_scalaropt_dim(penalty.p, [-1], true)?;
            let powers = features.f_pow_tensor_scalar(penalty.p - 1.0)?;
            let derivative = powers.f_mul(&norms.f_pow_tensor_scalar(1.0 - penalty.p)?)?;
            // Where nothing is active, a power below 0 is infinite, and the mask takes it out.
            pre = pre.f_add(&derivative.f_mul_scalar(weight)?)?;
            pre = pre.f_where_self(&features.f_gt(0.0)?, &pre.f_zeros_like()?)?;
        }
        let input = wants_input.then(|| pre.f_mm(&w_enc.f_to_kind(pre.kind())?)).transpose()?;
        if !sae.is_trained() {
            return Ok(SaeGradients { parameters: None, input });
        }
        let kind = w_enc.kind();
        let by_encoder = pre.f_tr()?.f_mm(&self.input)?.f_to_kind(kind)?;
        let bias = sum_of_rows(&pre)?.f_to_kind(kind)?;
        drop(pre);
        let mut by_row = features.f_tr()?.f_mm(gradient)?.f_to_kind(kind)?;
        match &self.features {
            Features::Counted { scales, .. } => kernels::project(&mut by_row, w_dec, scales)?,
            Features::Dense { norms, .. } => {
                let mut rows = w_dec.f_div(norms)?;
                let along = rows.f_mul(&by_row)?.f_sum_dim_intlist([-1].as_slice(), true, None)?;
                // A row too short to be divided by its norm is divided by a constant.
                let along = along.f_mul(&norms.f_gt(MIN_NORM)?)?;
                by_row = by_row.f_sub_(&rows.f_mul_(&along)?)?.f_div_(norms)?;
            }
            Features::Few { .. } => {}
        }
        let parameters = [by_encoder, bias, by_row, sum_of_rows(gradient)?.f_to_kind(kind)?];
        Ok(SaeGradients { parameters: Some(parameters), input })
    }
}

/// `[N, D]` → `[D]`, summed in f32 at least.
fn sum_of_rows(x: &Tensor) -> Result<Tensor, SaeError> {
    Ok(x.f_sum_dim_intlist([0_i64].as_slice(), false, loss::wide(x))?)
}
