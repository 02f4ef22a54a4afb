//! The KL divergence between two output distributions, and its gradient, without ever holding all logits.
//!
//! `N` tokens, `D` width of the final hidden state, `V` vocabulary.

use tch::{Kind, Tensor, no_grad};

use crate::SaeError;

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
        let mut sums = Vec::with_capacity(spliced.len());
        let mut gradients = Vec::with_capacity(spliced.len());
        for hidden in spliced {
            sums.push(Tensor::f_zeros([], (Kind::Double, hidden.device()))?);
            gradients.push(hidden.f_empty_like()?);
        }
        let mut start = 0;
        while start < n {
            let length = (chunk.max(1) as i64).min(n - start);
            let rows = |tensor: &Tensor| tensor.f_narrow(0, start, length);
            let log_p = rows(original)?.f_linear(unembedding, bias)?.f_log_softmax(-1, None)?;
            let p = log_p.f_exp()?;
            for ((hidden, sum), gradient) in spliced.iter().zip(&mut sums).zip(&gradients) {
                let mut log_q =
                    rows(hidden)?.f_linear(unembedding, bias)?.f_log_softmax(-1, None)?;
                let kl = log_p.f_sub(&log_q)?.f_mul_(&p)?.f_sum(Kind::Double)?;
                let _ = sum.f_add_(&kl)?;
                let difference = log_q.f_exp_()?.f_sub_(&p)?;
                rows(gradient)?.f_copy_(&difference.f_matmul(unembedding)?)?;
            }
            start += length;
        }
        let scale = 1.0 / n as f64;
        sums.into_iter()
            .zip(gradients)
            .map(|(mut sum, mut gradient)| {
                let value = sum.f_mul_scalar_(scale)?;
                let gradient = gradient.f_mul_scalar_(scale)?;
                Ok(KlTerm { value, gradient })
            })
            .collect()
    })
}
