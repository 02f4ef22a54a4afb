//! The kernels of `sae-cuda` on tensors: contiguous, on one GPU, features in f32 or bfloat16. Everything else takes the plain
//! path of libtorch's operations, with which `sae bench agreement` compares these on a card.

use sae_cuda::{
    Active, GradientInputs, GradientOutputs, Kernels, Low, PADDING, Rows, Span, WIDEST,
};
use tch::{Device, Kind, TchError, Tensor};

use super::AdamStep;
use crate::SaeError;

/// The kernels of the GPU that all of these tensors are on, where they can work on them.
pub(crate) fn of(tensors: &[&Tensor]) -> Option<&'static Kernels> {
    let device = tensors.first()?.device();
    let Device::Cuda(index) = device else { return None };
    let fits = |tensor: &&Tensor| {
        tensor.device() == device
            && tensor.is_contiguous()
            && matches!(tensor.kind(), Kind::Float | Kind::BFloat16)
    };
    tensors.iter().all(fits).then(|| Kernels::of(index)).flatten()
}

/// Whether the kernels can work on tensors.
pub fn applies(tensors: &[&Tensor]) -> bool {
    of(tensors).is_some()
}

/// A sparse code on a GPU.
#[derive(Debug)]
pub(crate) struct SparseCode {
    kernels: &'static Kernels,
    /// `[N]`, i64: where a token's active features end.
    ends: Tensor,
    /// `[N]`, i32.
    counts: Tensor,
    /// `[N]`, f32: of a token's active features.
    sums: Tensor,
    /// `[M]`, i32: their numbers.
    index: Tensor,
    /// `[M]`, i32: their tokens.
    token: Tensor,
    /// `[M]`, f32.
    value: Tensor,
}

/// What the parameters' gradients are computed from, beside a code.
pub(crate) struct ParameterInputs<'a> {
    /// `[N, D]`.
    pub input: &'a Tensor,
    /// `[N, E]`.
    pub gradient: &'a Tensor,
    /// `[M]`, what [`SparseCode::feature_gradients`] gave.
    pub pre: &'a Tensor,
    /// `[F, E]`.
    pub w_dec: &'a Tensor,
    /// `[F, 1]`.
    pub norms: &'a Tensor,
    /// A row that is divided by no more than this is divided by a constant.
    pub min_norm: f64,
}

impl SparseCode {
    /// The code of the features that are above 0, where these are fewer than this share of all; none elsewhere, and where no
    /// kernels are. Waits for the GPU.
    ///
    /// # Shapes
    /// `features: [N, F]`, `w_enc: [F, D]`, `w_dec: [F, E]`.
    pub fn of_few(
        features: &Tensor,
        [w_enc, w_dec]: [&Tensor; 2],
        share: f64,
    ) -> Result<Option<Self>, SaeError> {
        let Some(kernels) = of(&[features, w_enc, w_dec]) else { return Ok(None) };
        let (n, f) = features.size2()?;
        let widest = w_enc.size2()?.1.max(w_dec.size2()?.1) as usize;
        if w_enc.kind() != Kind::Float || w_dec.kind() != Kind::Float || widest > WIDEST {
            return Ok(None);
        }
        let room = |size: i64, kind: Kind| Tensor::f_empty([size], (kind, features.device()));
        let (counts, sums) = (room(n, Kind::Int)?, room(n, Kind::Float)?);
        kernels.count_rows(rows(features)?, span(&counts)?, span(&sums)?)?;
        let ends = counts.f_cumsum(0, Kind::Int64)?;
        let active = if n == 0 { 0 } else { ends.f_int64_value(&[n - 1])? };
        if active as f64 >= share * (n * f) as f64 {
            return Ok(None);
        }
        let (index, token) = (room(active, Kind::Int)?, room(active, Kind::Int)?);
        let value = room(active, Kind::Float)?;
        let code = Self { kernels, ends, counts, sums, index, token, value };
        kernels.collect(rows(features)?, code.active()?)?;
        Ok(Some(code))
    }

    #[allow(unsafe_code)]
    fn active(&self) -> Result<Active<'_>, SaeError> {
        let rows = (span(&self.ends)?, span(&self.counts)?);
        let features = (span(&self.index)?, span(&self.token)?, span(&self.value)?);
        // SAFETY: `of_few` is the only one to make a code, and fills it so.
        Ok(unsafe { Active::new(rows, features) })
    }

    /// Refuses tensors on another device.
    fn check_device(&self, tensors: &[&Tensor]) -> Result<(), SaeError> {
        let own = self.device();
        match tensors.iter().map(|tensor| tensor.device()).find(|device| *device != own) {
            None => Ok(()),
            Some(other) => {
                let message = format!("a tensor on {other:?}, and a code on {own:?}");
                Err(TchError::Shape(message).into())
            }
        }
    }

    /// Active features of all tokens.
    pub fn len(&self) -> usize {
        self.value.numel()
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.value.device()
    }

    /// `‖c_n‖_p`, `[N]`.
    #[allow(clippy::float_cmp)]
    pub fn norms(&self, p: f64) -> Result<Tensor, SaeError> {
        if p == 1.0 {
            return Ok(self.sums.shallow_clone());
        }
        let norms = self.sums.f_empty_like()?;
        self.kernels.row_norms(self.active()?, p as f32, span(&norms)?)?;
        Ok(norms)
    }

    /// The sum of rows that the code stands for, on a base.
    ///
    /// # Shapes
    /// `rows: [F, E]`, `base: [E]`, in one precision → `[N, E]`.
    pub fn decode(&self, elements: &Tensor, base: &Tensor) -> Result<Tensor, SaeError> {
        self.combine(&self.value, elements, Some(base))
    }

    /// The gradient with respect to the input, of what [`SparseCode::feature_gradients`] gave.
    ///
    /// # Shapes
    /// `pre: [M]`, `w_enc: [F, D]` → `[N, D]`.
    pub fn input_gradient(&self, pre: &Tensor, w_enc: &Tensor) -> Result<Tensor, SaeError> {
        self.combine(pre, w_enc, None)
    }

    fn combine(
        &self,
        coefficient: &Tensor,
        of: &Tensor,
        base: Option<&Tensor>,
    ) -> Result<Tensor, SaeError> {
        self.check_device(&[coefficient, of])?;
        let size = [self.counts.numel() as i64, of.size2()?.1];
        let out = Tensor::f_empty(size, (of.kind(), of.device()))?;
        let base = match base {
            Some(base) => {
                self.check_device(&[base])?;
                Some(low(base)?)
            }
            None => None,
        };
        self.kernels.combine(self.active()?, span(coefficient)?, rows(of)?, base, rows(&out)?)?;
        Ok(out)
    }

    /// The gradient with respect to every active feature: what comes through the decoder, and the sparsity term's, `weight ·
    /// factor_n · c^(p − 1)`; without factors, `weight`.
    ///
    /// # Shapes
    /// `gradient: [N, E]`, `elements: [F, E]`, `factors: [N, 1]` → `[M]`.
    pub fn feature_gradients(
        &self,
        gradient: &Tensor,
        elements: &Tensor,
        (factors, weight, p): (Option<&Tensor>, f64, f64),
    ) -> Result<Tensor, SaeError> {
        self.check_device(&[gradient, elements, factors.unwrap_or(gradient)])?;
        let out = self.value.f_empty_like()?;
        let factors = factors.map(span).transpose()?;
        self.kernels.feature_gradients(
            self.active()?,
            rows(gradient)?,
            rows(elements)?,
            (factors, weight as f32, p as f32),
            span(&out)?,
        )?;
        Ok(out)
    }

    /// The gradients of `w_enc`, `b_enc` and `w_dec`.
    ///
    /// # Shapes
    /// → `[F, D]`, `[F]`, `[F, E]`, in f32.
    #[allow(unsafe_code)]
    pub fn parameter_gradients(
        &self,
        inputs: &ParameterInputs<'_>,
    ) -> Result<[Tensor; 3], SaeError> {
        let ParameterInputs { input, gradient, pre, w_dec, norms, min_norm } = *inputs;
        self.check_device(&[input, gradient, pre, w_dec, norms])?;
        let (f, e) = w_dec.size2()?;
        let options = (Kind::Float, w_dec.device());
        // A feature's tokens, one behind the other.
        let (sorted, order) = self.index.f_sort_stable(true, 0, false)?;
        let features = Tensor::f_arange(f + 1, (Kind::Int, w_dec.device()))?;
        let starts = features.f_searchsorted(&sorted, false, false, "left", None::<&Tensor>)?;
        let w_enc = Tensor::f_empty([f, input.size2()?.1], options)?;
        let (b_enc, by_row) = (Tensor::f_empty([f], options)?, Tensor::f_empty([f, e], options)?);
        let inputs = GradientInputs {
            input: rows(input)?,
            gradient: rows(gradient)?,
            pre: span(pre)?,
            order: span(&order)?,
            starts: span(&starts)?,
            w_dec: span(w_dec)?,
            norms: span(norms)?,
            min_norm: min_norm as f32,
        };
        let outputs =
            GradientOutputs { w_enc: span(&w_enc)?, b_enc: span(&b_enc)?, w_dec: span(&by_row)? };
        // SAFETY: an order of M features, and where those from each number on begin in it.
        unsafe { self.kernels.parameter_gradients(self.active()?, &inputs, &outputs) }?;
        Ok([w_enc, b_enc, by_row])
    }
}

/// `KL(p ‖ q)` of every row of logits, and `q − p` of the probabilities in this precision, f32 in the place of the logits of
/// `q`; of `v` words, those beyond count for nothing.
///
/// # Shapes
/// `p, q: [n, W]`, f32, padded → `[n]` in f64, `[n, W]`.
pub(crate) fn kl_rows(
    kernels: &Kernels,
    p: &Tensor,
    q: &Tensor,
    v: i64,
    kind: Kind,
) -> Result<Divergence, SaeError> {
    let values = Tensor::f_empty([p.size2()?.0], (Kind::Double, p.device()))?;
    let difference = match kind {
        Kind::BFloat16 => Tensor::f_empty(q.size(), (kind, q.device()))?,
        _ => q.shallow_clone(),
    };
    kernels.kl_rows(rows(p)?, rows(q)?, rows(&difference)?, span(&values)?, v as usize)?;
    Ok(Divergence { values, difference })
}

/// What [`kl_rows`] gives.
pub(crate) struct Divergence {
    /// KL of every token, `[n]`, in f64.
    pub values: Tensor,
    /// `q − p` of the probabilities, `[n, W]`.
    pub difference: Tensor,
}

/// A matrix or vector with as many zeros behind its first dimension as products on a GPU want.
///
/// # Shapes
/// `[V, ...]` → `[W, ...]`.
pub(crate) fn padded(tensor: &Tensor) -> Result<Tensor, SaeError> {
    let size = tensor.size();
    if size.first().is_some_and(|v| (*v as usize).is_multiple_of(PADDING)) {
        return Ok(tensor.shallow_clone());
    }
    let v = size.first().copied().unwrap_or_default();
    let mut pad = vec![0; 2 * size.len()];
    if let Some(end) = pad.last_mut() {
        *end = (v as usize).next_multiple_of(PADDING) as i64 - v;
    }
    Ok(tensor.f_constant_pad_nd(pad)?)
}

/// One step of Adam on a parameter and its moments, where the kernels can; whether they could.
///
/// # Shapes
/// All alike, f32.
pub fn adam(
    parameter: &mut Tensor,
    gradient: &Tensor,
    mean: &mut Tensor,
    square: &mut Tensor,
    step: AdamStep,
) -> Result<bool, SaeError> {
    let all = [&*parameter, gradient, mean, square];
    let Some(kernels) = of(&all) else { return Ok(false) };
    if all.iter().any(|tensor| tensor.kind() != Kind::Float) {
        return Ok(false);
    }
    super::check_disjoint(parameter, &[gradient, mean, square])?;
    super::check_disjoint(mean, &[gradient, square])?;
    super::check_disjoint(square, &[gradient])?;
    let AdamStep { mean_weight, square_weight, square_decay, eps, .. } = step;
    let AdamStep { rate, root_scale, gradient_scale, decay, .. } = step;
    let step = sae_cuda::AdamStep {
        mean_weight,
        square_weight,
        square_decay,
        eps,
        rate,
        root_scale,
        gradient_scale,
        decay,
    };
    kernels.adam(span(parameter)?, span(gradient)?, span(mean)?, span(square)?, step)?;
    Ok(true)
}

/// A type of numbers in a tensor.
trait Number {
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}
impl Number for f64 {
    const KIND: Kind = Kind::Double;
}
impl Number for i32 {
    const KIND: Kind = Kind::Int;
}
impl Number for i64 {
    const KIND: Kind = Kind::Int64;
}
impl Number for sae_cuda::Bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// A tensor's memory.
#[allow(unsafe_code)]
fn span<T: Number>(tensor: &Tensor) -> Result<Span<'_, T>, SaeError> {
    let fits = tensor.device().is_cuda() && tensor.is_contiguous() && tensor.kind() == T::KIND;
    if !fits {
        let (kind, device) = (tensor.kind(), tensor.device());
        let expected = T::KIND;
        return Err(TchError::Shape(format!(
            "a kernel works on contiguous {expected:?} on a GPU, not {kind:?} on {device:?}"
        ))
        .into());
    }
    // SAFETY: a contiguous tensor on a GPU holds `numel` numbers of its kind from `data_ptr` on for as long as it lives; what
    // is freed before a kernel has run is given out again only to work behind it in the default stream.
    Ok(unsafe { Span::new(tensor.data_ptr().addr() as u64, tensor.numel()) })
}

/// The same, of features' precision.
fn low(tensor: &Tensor) -> Result<Low<'_>, SaeError> {
    Ok(match tensor.kind() {
        Kind::BFloat16 => Low::Bf16(span(tensor)?),
        _ => Low::F32(span(tensor)?),
    })
}

/// A matrix of them.
fn rows(tensor: &Tensor) -> Result<Rows<'_>, SaeError> {
    let width = tensor.size2()?.1 as usize;
    Ok(Rows { numbers: low(tensor)?, width })
}
