//! KL divergence of the spliced model's output distribution from the original's, `mean_n Σ_v p_orig (log p_orig − log
//! p_spliced)`, in nats a token (the reference's `logits_kl`).

use sae_model::Unembedding;
use sae_nn::loss;
use tch::Tensor;

use super::{AtOutput, OutputValue, Term};
use crate::{SpliceError, SplicedModel};

#[derive(Debug)]
pub(super) struct Kl;

impl Term for Kl {
    fn at_output(&self) -> Option<AtOutput> {
        Some(divergence)
    }
}

/// The logits are never kept, and the original's distribution is computed once for all passes.
fn divergence(
    model: &SplicedModel,
    original: &Tensor,
    spliced: &[&Tensor],
) -> Result<Vec<OutputValue>, SpliceError> {
    let Unembedding { weight, bias } = model.model().unembedding();
    let (chunk, lowered) = (model.chunk(), model.model().kind());
    let found = loss::kl_without_logits(original, spliced, weight, bias, chunk, lowered)?;
    Ok(found
        .into_iter()
        .map(|loss::KlTerm { value, gradient }| OutputValue { value, gradient })
        .collect())
}
