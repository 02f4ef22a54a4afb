//! The code of some tokens: which features are active, and how much. Sparsity, L0, decoding and gradients work on it, at the
//! cost of the active features alone where these are few.
//!
//! `N` tokens, `D` width of the input, `E` of the reconstruction, `F` dictionary elements, or those of a part of the
//! dictionary.

use std::ops::Range;

use sae_kernels::{RowSums, SparseCode};
use tch::{Kind, TchError, Tensor};

use crate::dictionary::{MIN_NORM, norms};
use crate::kernels::gpu::{self, ParameterInputs};
use crate::{Penalty, SaeError, kernels, loss};

/// Where fewer of the features are active than this share, they are worked on one by one. (Both ways take the same time
/// at about 1/10 with F = 2 048, D = 128, and 1/16 with F = 3 200, D = 64, on two cores with AVX-512.)
const FEW: f64 = 1.0 / 16.0;
/// The same on a GPU, whose products of matrices are that much faster beside its memory. (Both ways take the same time at
/// about 1/110 with F = 46 080, D = 768, bf16, on an H200.)
const FEW_ON_GPU: f64 = 1.0 / 128.0;

/// Feature activations.
#[derive(Debug)]
pub(crate) enum Code {
    /// `[N, F]`, for libtorch's operations.
    Dense(Tensor),
    /// The same for kernels, with the sums of every token; a part of a code has none.
    Counted { features: Tensor, sums: Vec<RowSums> },
    /// The active ones alone.
    Sparse(SparseCode),
    /// The same on a GPU, of a whole dictionary.
    OnGpu(gpu::SparseCode),
}

/// A code on a part of the dictionary.
#[derive(Debug)]
pub(crate) enum PartOf<'a> {
    /// On all of it.
    Whole(&'a Code),
    /// On some consecutive features, and, where it is sparse, where each activation stands in the whole.
    Own { code: Code, places: Vec<u32> },
}

/// The decoder's rows of a part of the dictionary, at unit length.
#[derive(Debug)]
pub(crate) enum UnitRows {
    /// `[F, E]`, and what the rows were divided by, `[F, 1]`.
    Divided { elements: Tensor, norms: Tensor },
    /// What each row is multiplied by; the elements, `[F, E]`, where the code is dense.
    Scaled { elements: Option<Tensor>, scales: Vec<f32> },
}

/// What a part's reconstruction is added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base<'a> {
    /// The decoder's bias, `[E]`.
    Bias(&'a Tensor),
    /// The reconstruction of the parts before, `[N, E]`.
    Before(&'a Tensor),
}

/// The derivative of a sparsity term with respect to every active feature of a whole code.
#[derive(Debug)]
pub(crate) enum Penalties {
    /// The same for all.
    Constant(f64),
    /// Of a dense code or one on a GPU: `weight · factor_n · c^(p − 1)`, factors `[N, 1]`.
    OfNorms { factors: Tensor, p: f64, weight: f64 },
    /// Of a sparse code: one an active feature.
    OfActive(Vec<f32>),
}

/// What the gradients of a part of the dictionary are computed from, beside its code.
#[derive(Debug)]
pub(crate) struct PartInputs<'a> {
    /// `[F, D]`.
    pub w_enc: &'a Tensor,
    /// `[F, E]`.
    pub w_dec: &'a Tensor,
    pub rows: &'a UnitRows,
    /// `[N, D]`.
    pub input: &'a Tensor,
    /// With respect to the reconstructions that the part is in, `[N, E]`.
    pub gradient: &'a Tensor,
    /// Of the whole code.
    pub penalties: &'a Penalties,
    pub wants_input: bool,
    pub wants_parameters: bool,
}

/// Gradients of a part of the dictionary.
#[derive(Debug)]
pub(crate) struct PartGradients {
    /// `[N, D]`.
    pub input: Option<Tensor>,
    /// Of `w_enc`, `b_enc` and `w_dec`.
    pub parameters: Option<[Tensor; 3]>,
}

impl Code {
    /// The code of features by kernels: sparse where few are active.
    ///
    /// # Shapes
    /// `features: [N, F]`, N sums.
    pub fn counted(features: Tensor, sums: Vec<RowSums>) -> Result<Self, SaeError> {
        let active: usize = sums.iter().map(|row| row.active as usize).sum();
        if (active as f64) < FEW * features.numel() as f64 {
            return Ok(Self::Sparse(kernels::collect(&features, &sums)?));
        }
        Ok(Self::Counted { features, sums })
    }

    /// The code of the features that are above 0 where these are few, on a GPU with kernels; none elsewhere, and of a
    /// dictionary in parts.
    ///
    /// # Shapes
    /// `features: [N, F]`, `w_enc: [F, D]`, `w_dec: [F, E]`.
    pub fn of_few_on_gpu(
        features: &Tensor,
        weights: [&Tensor; 2],
        is_in_parts: bool,
    ) -> Result<Option<Self>, SaeError> {
        if is_in_parts {
            return Ok(None);
        }
        let code = gpu::SparseCode::of_few(features, weights, FEW_ON_GPU)?;
        Ok(code.map(Self::OnGpu))
    }

    /// Active features per token of N, a scalar in f64.
    pub fn l0(&self, n: i64) -> Result<Tensor, SaeError> {
        let n = n as f64;
        Ok(match self {
            Self::Dense(features) => {
                features.f_count_nonzero(None::<i64>)?.f_to_kind(Kind::Double)?.f_div_scalar(n)?
            }
            Self::Counted { sums, .. } => {
                let active: usize = sums.iter().map(|row| row.active as usize).sum();
                Tensor::from(active as f64 / n)
            }
            Self::Sparse(code) => Tensor::from(code.len() as f64 / n),
            Self::OnGpu(code) => {
                Tensor::f_full([], code.len() as f64 / n, (Kind::Double, code.device()))?
            }
        })
    }

    /// `mean_n ‖c_n‖_p / D` of N tokens, as [`loss::sparsity`] has it; a scalar.
    #[allow(clippy::float_cmp)]
    pub fn sparsity(&self, p: f64, (n, d): (i64, i64)) -> Result<Tensor, SaeError> {
        match self {
            Self::Counted { sums, .. } if p == 1.0 => {
                let sum: f64 = sums.iter().map(|row| f64::from(row.sum)).sum();
                Ok(Tensor::from(sum / (n * d) as f64))
            }
            Self::Dense(features) | Self::Counted { features, .. } => {
                loss::sparsity(features, p, d as usize)
            }
            Self::Sparse(code) => Ok(Tensor::from(code.mean_norm(p) / d as f64)),
            Self::OnGpu(code) => Ok(code.norms(p)?.f_mean(None)?.f_div_scalar(d as f64)?),
        }
    }

    /// The derivative of `weight · mean_n ‖c_n‖_p` over N tokens.
    #[allow(clippy::float_cmp)]
    pub fn penalties(&self, penalty: Penalty, n: i64) -> Result<Penalties, SaeError> {
        let Penalty { p, weight } = match penalty {
            // The number of active features has no gradient.
            Penalty { p: 0.0, .. } => Penalty { p: 1.0, weight: 0.0 },
            other => other,
        };
        if let Self::Sparse(code) = self {
            return Ok(Penalties::OfActive(code.penalties(p, weight)));
        }
        let weight = weight / n as f64;
        if p == 1.0 {
            return Ok(Penalties::Constant(weight));
        }
        let norms = match self {
            Self::Dense(features) | Self::Counted { features, .. } => {
                features.f_norm_scalaropt_dim(p, [-1], true)?
            }
            Self::OnGpu(code) => code.norms(p)?.f_unsqueeze(-1)?,
            Self::Sparse(_) => unreachable!("above"),
        };
        Ok(Penalties::OfNorms { factors: norms.f_pow_tensor_scalar(1.0 - p)?, p, weight })
    }

    /// The code on some of the F features.
    pub fn part(&self, features: &Range<i64>, all: i64) -> Result<PartOf<'_>, SaeError> {
        if *features == (0..all) {
            return Ok(PartOf::Whole(self));
        }
        let length = features.end - features.start;
        let narrow = |all: &Tensor| all.f_narrow(1, features.start, length)?.f_contiguous();
        let (code, places) = match self {
            Self::Dense(all) => (Self::Dense(narrow(all)?), Vec::new()),
            Self::Counted { features: all, .. } => {
                (Self::Counted { features: narrow(all)?, sums: Vec::new() }, Vec::new())
            }
            Self::OnGpu(_) => {
                let message = format!("{all} features, of which a code on a GPU has others");
                return Err(TchError::Shape(message).into());
            }
            Self::Sparse(code) => {
                let (part, places) = code.part(features.start as usize..features.end as usize);
                (Self::Sparse(part), places)
            }
        };
        Ok(PartOf::Own { code, places })
    }
}

impl PartOf<'_> {
    fn code(&self) -> &Code {
        match self {
            Self::Whole(code) => code,
            Self::Own { code, .. } => code,
        }
    }

    /// The part's reconstruction, added to `base`, and the rows that it was made with.
    ///
    /// # Shapes
    /// `w_dec: [F, E]` → `[N, E]`, in this precision, which is the code's.
    pub fn decode(
        &self,
        w_dec: &Tensor,
        base: Base<'_>,
        kind: Kind,
    ) -> Result<(Tensor, UnitRows), SaeError> {
        match self.code() {
            code @ (Code::Dense(_) | Code::OnGpu(_)) => {
                let norms = norms(w_dec)?;
                let elements = w_dec.f_detach()?.f_div(&norms)?.f_to_kind(kind)?;
                let base = base.tensor().f_detach()?.f_to_kind(kind)?;
                let reconstruction = match code {
                    Code::Dense(features) => base.f_addmm(features, &elements)?,
                    Code::OnGpu(code) => code.decode(&elements, &base)?,
                    _ => unreachable!("above"),
                };
                Ok((reconstruction, UnitRows::Divided { elements, norms }))
            }
            Code::Counted { features, .. } => {
                let scales = kernels::row_scales(w_dec)?;
                let column = Tensor::f_from_slice(&scales)?.f_unsqueeze(1)?;
                let elements = w_dec.f_detach()?.f_mul(&column)?;
                let reconstruction = base.tensor().f_detach()?.f_addmm(features, &elements)?;
                Ok((reconstruction, UnitRows::Scaled { elements: Some(elements), scales }))
            }
            Code::Sparse(code) => {
                let scales = kernels::row_scales(w_dec)?;
                let reconstruction = match base {
                    Base::Bias(bias) => kernels::decode(code, w_dec, &scales, bias)?,
                    Base::Before(before) => {
                        let zeros =
                            Tensor::f_zeros([w_dec.size2()?.1], (Kind::Float, w_dec.device()))?;
                        kernels::decode(code, w_dec, &scales, &zeros)?.f_add(before)?
                    }
                };
                Ok((reconstruction, UnitRows::Scaled { elements: None, scales }))
            }
        }
    }

    /// The gradients of this part.
    pub fn backward(&self, inputs: &PartInputs<'_>) -> Result<PartGradients, SaeError> {
        match (self.code(), inputs.rows) {
            (Code::Sparse(code), UnitRows::Scaled { scales, .. }) => {
                self.backward_sparse(code, scales, inputs)
            }
            (Code::OnGpu(code), UnitRows::Divided { elements, norms }) => {
                Self::backward_on_gpu(code, elements, norms, inputs)
            }
            (
                Code::Dense(features) | Code::Counted { features, .. },
                UnitRows::Divided { elements, .. }
                | UnitRows::Scaled { elements: Some(elements), .. },
            ) => Self::backward_dense(features, elements, inputs),
            _ => unreachable!("a sparse code's rows are scaled, a dense one's elements are there"),
        }
    }

    fn backward_sparse(
        &self,
        code: &SparseCode,
        scales: &[f32],
        inputs: &PartInputs<'_>,
    ) -> Result<PartGradients, SaeError> {
        let PartInputs { w_enc, w_dec, input, gradient, penalties, .. } = *inputs;
        let penalties = match (penalties, self) {
            (Penalties::OfActive(all), Self::Whole(_)) => all.clone(),
            (Penalties::OfActive(all), Self::Own { places, .. }) => {
                places.iter().map(|place| all[*place as usize]).collect()
            }
            _ => unreachable!("a sparse code has a penalty an active feature"),
        };
        let pre = kernels::feature_gradients(code, gradient, w_dec, scales, penalties)?;
        let by_input =
            inputs.wants_input.then(|| kernels::input_gradient(code, &pre, w_enc)).transpose()?;
        let by_parameters =
            || kernels::parameter_gradients(code, &pre, input, gradient, w_dec, scales);
        let parameters = inputs.wants_parameters.then(by_parameters).transpose()?;
        Ok(PartGradients { input: by_input, parameters })
    }

    fn backward_on_gpu(
        code: &gpu::SparseCode,
        elements: &Tensor,
        norms: &Tensor,
        inputs: &PartInputs<'_>,
    ) -> Result<PartGradients, SaeError> {
        let PartInputs { w_enc, w_dec, input, gradient, .. } = *inputs;
        let penalty = match inputs.penalties {
            Penalties::Constant(weight) => (None, *weight, 1.0),
            Penalties::OfNorms { factors, p, weight } => (Some(factors), *weight, *p),
            Penalties::OfActive(_) => unreachable!("a code on a GPU has factors of its norms"),
        };
        let pre = code.feature_gradients(gradient, elements, penalty)?;
        let lowered = || w_enc.f_to_kind(gradient.kind());
        let by_input =
            inputs.wants_input.then(|| code.input_gradient(&pre, &lowered()?)).transpose()?;
        let of_parameters = ParameterInputs {
            input: &input.f_contiguous()?,
            gradient,
            pre: &pre,
            w_dec,
            norms,
            min_norm: MIN_NORM,
        };
        let parameters = inputs
            .wants_parameters
            .then(|| code.parameter_gradients(&of_parameters))
            .transpose()?;
        Ok(PartGradients { input: by_input, parameters })
    }

    fn backward_dense(
        features: &Tensor,
        elements: &Tensor,
        inputs: &PartInputs<'_>,
    ) -> Result<PartGradients, SaeError> {
        let PartInputs { w_enc, w_dec, gradient, .. } = *inputs;
        let by_kernels = matches!(inputs.rows, UnitRows::Scaled { .. });
        let mut pre = gradient.f_mm(&elements.f_tr()?)?;
        match inputs.penalties {
            Penalties::Constant(weight) if by_kernels => {
                kernels::mask(&mut pre, features, *weight as f32)?;
            }
            Penalties::Constant(weight) => {
                let _ = pre.f_add_scalar_(*weight)?;
                pre = features.f_threshold_backward(&pre, 0.0)?;
            }
            Penalties::OfNorms { factors, p, weight } => {
                let derivative = features.f_pow_tensor_scalar(p - 1.0)?.f_mul(factors)?;
                // Where nothing is active, a power below 0 is infinite, and the mask takes it out.
                pre = pre.f_add(&derivative.f_mul_scalar(*weight)?)?;
                pre = pre.f_where_self(&features.f_gt(0.0)?, &pre.f_zeros_like()?)?;
            }
            Penalties::OfActive(_) => unreachable!("a dense code's penalties are not by feature"),
        }
        let by_input =
            inputs.wants_input.then(|| pre.f_mm(&w_enc.f_to_kind(pre.kind())?)).transpose()?;
        if !inputs.wants_parameters {
            return Ok(PartGradients { input: by_input, parameters: None });
        }
        let kind = w_enc.kind();
        let by_encoder = pre.f_tr()?.f_mm(inputs.input)?.f_to_kind(kind)?;
        let bias = sum_of_rows(&pre)?.f_to_kind(kind)?;
        drop(pre);
        let mut by_row = features.f_tr()?.f_mm(gradient)?.f_to_kind(kind)?;
        match inputs.rows {
            UnitRows::Scaled { scales, .. } => kernels::project(&mut by_row, w_dec, scales)?,
            UnitRows::Divided { norms, .. } => {
                let mut rows = w_dec.f_div(norms)?;
                let along = rows.f_mul(&by_row)?.f_sum_dim_intlist([-1].as_slice(), true, None)?;
                // A row too short to be divided by its norm is divided by a constant.
                let along = along.f_mul(&norms.f_gt(MIN_NORM)?)?;
                by_row = by_row.f_sub_(&rows.f_mul_(&along)?)?.f_div_(norms)?;
            }
        }
        Ok(PartGradients { input: by_input, parameters: Some([by_encoder, bias, by_row]) })
    }
}

impl<'a> Base<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Self::Bias(tensor) | Self::Before(tensor) => tensor,
        }
    }
}

/// `[N, D]` → `[D]`, summed in f32 at least.
pub(crate) fn sum_of_rows(x: &Tensor) -> Result<Tensor, SaeError> {
    Ok(x.f_sum_dim_intlist([0_i64].as_slice(), false, loss::wide(x))?)
}
