//! MSE between a dictionary's reconstruction and the original model's activation there (the reference's `out_to_orig`).

use sae_nn::loss;
use tch::Tensor;

use super::{AtSplicePoint, Term};
use crate::SpliceError;

#[derive(Debug)]
pub(super) struct Output;

impl Term for Output {
    fn at_splice_point(&self, at: &AtSplicePoint<'_>) -> Result<Option<Tensor>, SpliceError> {
        let original = at.clean.activation(at.site)?;
        at.mean(|reconstruction| Ok(loss::mse(reconstruction, original)?)).map(Some)
    }
}
