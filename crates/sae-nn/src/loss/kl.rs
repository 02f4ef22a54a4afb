//! The KL divergence between two output distributions, and its gradient, without ever holding all logits.
//!
//! `N` tokens, `D` width of the final hidden state, `V` vocabulary.

use tch::{Kind, Tensor, no_grad};

use crate::SaeError;
use crate::kernels::{self, Distribution};

/// KL of one spliced model.
#[derive(Debug)]
pub struct KlTerm {
    /// `mean_n KL(p_original ‖ p_spliced)`, nats a token; a scalar tensor.
    pub value: Tensor,
    /// Its gradient with respect to the spliced hidden state, `[N, D]`.
    pub gradient: Tensor,
}

/// `mean_n Σ_v p_orig (log p_orig − log p_spliced)` for several spliced models against one original, each with its
/// gradient `(p_spliced − p_orig) · W_U / N` with respect to its final hidden state (the reference's `logits_kl`, whose
/// docstring names the other direction).
///
/// Works through `chunk` tokens at a time: a chunk's logits are all that ever stands in memory, and the original's
/// distribution is computed once for all. Each model's numbers do not depend on the others.
///
/// # Shapes
/// `original: [N, D]`, each of `spliced: [N, D]`, `unembedding: [V, D]`, its bias, where it has one, `[V]`.
pub fn kl_without_logits(
    original: &Tensor,
    spliced: &[&Tensor],
    unembedding: &Tensor,
    bias: Option<&Tensor>,
    chunk: usize,
) -> Result<Vec<KlTerm>, SaeError> {
    no_grad(|| {
        let n = original.size()[0];
        let mut sums = spliced
            .iter()
            .map(|hidden| Tensor::f_zeros([], (Kind::Double, hidden.device())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut gradients =
            spliced.iter().map(|hidden| hidden.f_empty_like()).collect::<Result<Vec<_>, _>>()?;
        let chunk = (chunk.max(1) as i64).min(n);
        let mut work = Chunk::buffers(original, unembedding, chunk)?;
        let mut start = 0;
        while start < n {
            let length = chunk.min(n - start);
            let rows = |tensor: &Tensor| tensor.f_narrow(0, start, length);
            work.set(&rows(original)?, unembedding, bias)?;
            for ((hidden, sum), gradient) in spliced.iter().zip(&mut sums).zip(&gradients) {
                let (kl, difference) = work.kl_and_gradient(&rows(hidden)?, unembedding, bias)?;
                let _ = sum.f_add_(&kl)?;
                let _ = difference.f_mm_out(&rows(gradient)?, unembedding)?;
            }
            start += length;
        }
        let scale = 1.0 / n as f64;
        sums.into_iter()
            .zip(&mut gradients)
            .map(|(mut sum, gradient)| {
                let value = sum.f_mul_scalar_(scale)?;
                Ok(KlTerm { value, gradient: gradient.f_mul_scalar_(scale)? })
            })
            .collect()
    })
}

/// The original distribution of some tokens.
enum Chunk {
    /// In one pass, in buffers that every chunk uses again, where the kernels apply.
    Fused { distribution: Distribution, logits: Tensor },
    /// With libtorch's operations.
    Plain { log_p: Tensor, p: Tensor },
}

impl Chunk {
    fn buffers(hidden: &Tensor, unembedding: &Tensor, n: i64) -> Result<Self, SaeError> {
        if kernels::applies(&[hidden, unembedding]) {
            let v = unembedding.size2()?.0;
            let logits = Tensor::f_empty([n, v], (Kind::Float, hidden.device()))?;
            return Ok(Self::Fused { distribution: Distribution::buffers(n, v)?, logits });
        }
        Ok(Self::Plain { log_p: Tensor::new(), p: Tensor::new() })
    }

    fn set(
        &mut self,
        hidden: &Tensor,
        unembedding: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<(), SaeError> {
        match self {
            Self::Fused { distribution, .. } => {
                let n = hidden.size2()?.0;
                distribution.set(n, |logits| write_logits(logits, hidden, unembedding, bias))
            }
            Self::Plain { log_p, p } => {
                *log_p = hidden.f_linear(unembedding, bias)?.f_log_softmax(-1, None)?;
                *p = log_p.f_exp()?;
                Ok(())
            }
        }
    }

    /// `Σ_n KL` to the distribution of another hidden state, a scalar in f64, and `p_spliced − p_orig`.
    fn kl_and_gradient(
        &mut self,
        hidden: &Tensor,
        unembedding: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor), SaeError> {
        match self {
            Self::Fused { distribution, logits } => {
                let mut logits = logits.f_narrow(0, 0, hidden.size2()?.0)?;
                write_logits(&logits, hidden, unembedding, bias)?;
                let kl = distribution.kl_and_gradient(&mut logits)?;
                Ok((Tensor::from(kl), logits))
            }
            Self::Plain { log_p, p } => {
                let log_q = hidden.f_linear(unembedding, bias)?.f_log_softmax(-1, None)?;
                let kl = log_p.f_sub(&log_q)?.f_mul_(p)?.f_sum(Kind::Double)?;
                Ok((kl, log_q.f_exp()?.f_sub_(p)?))
            }
        }
    }
}

/// `hidden · W_Uᵀ + b_U` into a buffer.
fn write_logits(
    out: &Tensor,
    hidden: &Tensor,
    unembedding: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(), SaeError> {
    let transposed = unembedding.f_tr()?;
    let _ = match bias {
        None => hidden.f_mm_out(out, &transposed)?,
        Some(bias) => bias.f_addmm_out(out, hidden, &transposed)?,
    };
    Ok(())
}
